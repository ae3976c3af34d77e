"""The models with torchvision's heads: built, trained one step, run; their losses, their classes."""

import pytest
import torch

pytest.importorskip("torchvision")

from torchvision_detectors import NAMES, TINY, noise, objects, targets, tiny

from van import create_model as create
from van.configs.backbone import VARIANTS
from van.configs.catalog import resolve
from van.configs.mask_rcnn import MASK_RCNNS, MaskRCNNConfig
from van.configs.retinanet import RETINANETS
from van.errors import ConfigError, DataError, UnknownNameError

every_model = pytest.mark.parametrize("name", NAMES)


@every_model
def test_a_training_step_reaches_every_parameter_and_lowers_the_loss(name):
    model = create(name, seed=0, **NAMES[name]).train()
    images = list(torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(0)
    losses = []
    for _ in range(4):
        parts = model(images, objects())
        loss = sum(parts.values())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any("mask" in part for part in parts) == ("mask" in name)


@every_model
def test_inference_gives_boxes_inside_images_of_any_size(name):
    model = tiny(name)
    images = [torch.rand(3, 50, 70), torch.rand(3, 64, 80)]
    with torch.inference_mode():
        found = model(images)
    for image, one in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert 0 < len(one["boxes"]) <= 7
        assert one["boxes"][:, 0::2].amax() <= width
        assert one["boxes"][:, 1::2].amax() <= height
        assert one["labels"].amax() <= 3
        if "mask" in name:
            assert one["masks"].shape == (len(one["boxes"]), 1, height, width)


@pytest.mark.parametrize(
    ("name", "strides"), [("retinanet_van_b0", (8, 16, 32, 64, 128)), ("mask_rcnn_van_b0", (4, 8, 16, 32, 64))]
)
def test_pyramid_has_the_strides_of_the_method(name, strides):
    model = create(name, **TINY)
    maps = model.pyramid(model.backbone(torch.zeros(1, 3, 128, 256)))
    assert [tuple(m.shape) for m in maps] == [(1, 32, 128 // s, 256 // s) for s in strides]
    generator = model.anchor_generator if name.startswith("retinanet") else model.rpn.anchor_generator
    assert [sizes[0] for sizes in generator.sizes] == [8, 16, 32, 64, 128]


@pytest.mark.parametrize(("name", "source"), [("retinanet_van_b0", "backbone"), ("atss_van_b0", "pyramid")])
def test_the_sixth_map_comes_from_where_the_method_takes_it(name, source):
    model = create(name, **TINY | {"embed_dims": (8, 16, 24, 32), "channels": 32})  # also where the widths agree
    maps = model.backbone(torch.rand(1, 3, 128, 128))
    pyramid = model.pyramid(maps)
    origin = maps[-1] if source == "backbone" else pyramid[2]
    assert torch.equal(pyramid[3], model.pyramid.extras[0](origin))


def test_state_dict_round_trip_gives_the_same_detections():
    model, again = tiny("mask_rcnn_van_b0"), create("mask_rcnn_van_b0", seed=1, **NAMES["mask_rcnn_van_b0"]).eval()
    images = [torch.rand(3, 64, 80)]
    with torch.inference_mode():
        assert not torch.equal(model(images)[0]["scores"], again(images)[0]["scores"])
        again.load_state_dict(model.state_dict())
        assert torch.equal(model(images)[0]["boxes"], again(images)[0]["boxes"])


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, two = create("retinanet_van_b0", seed=3, **TINY), create("retinanet_van_b0", seed=3, **TINY)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_every_variant_has_every_detector_and_names_resolve():
    for table, methods in (
        (RETINANETS, ("retinanet", "atss", "gfl")),
        (MASK_RCNNS, ("mask_rcnn", "cascade_mask_rcnn")),
    ):
        assert set(table) == {f"{method}_{name}" for method in methods for name in VARIANTS}
        assert all(config.name == name for name, config in table.items())
    assert resolve("Mask-RCNN-VAN-Tiny") == "mask_rcnn_van_b0"
    with pytest.raises(UnknownNameError, match=r"did you mean 'retinanet_van_b.'"):
        create("retinanet_van_bo")
    with pytest.raises(UnknownNameError, match="num_clases"):
        create("retinanet_van_b0", num_clases=3)
    with torch.device("meta"):
        model = create("mask_rcnn_van_b3")
    assert model.config.backbone.embed_dims == VARIANTS["van_b3"].embed_dims


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"max_size": 10, "min_size": 20}, "max_size is 10"),
        ({"in_chans": 1}, "1 entries each"),
        ({"score_threshold": 1.0}, "score_threshold"),
        ({"nms_threshold": 0.0}, "nms_threshold is 0.0"),
        ({"assignment": "max"}, "unknown assignment 'max'"),
        ({"loss": "gfl"}, "loss 'gfl' needs assignment 'atss'"),
        ({"embed_dims": (8, 8), "depths": (1, 1), "mlp_ratios": (2, 2), "patch_sizes": (7, 3)}, "2 stages"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RETINANETS["retinanet_van_b0"].with_options(**options)


def test_configuration_round_trips_through_json():
    import json

    config = MASK_RCNNS["mask_rcnn_van_b1"].with_options(num_classes=5, in_chans=1, mean=(0.5,), std=(0.5,))
    assert MaskRCNNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@every_model
def test_losses_of_images_without_objects_are_finite_and_reach_every_parameter(name):
    model = tiny(name).train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "size": (64, 80)}
    empty["masks"] = torch.zeros(0, 64, 80, dtype=torch.uint8)
    losses = model.losses(noise(2, 3, 64, 96), [empty, empty])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_losses_do_not_depend_on_the_mode_of_the_heads(name):
    everything = {"rpn_samples": 60000, "box_samples": 60000} if "mask" in name else {}
    model = tiny(name, **everything)
    with torch.inference_mode():
        evaluating = model.losses(noise(2, 3, 64, 96), targets(size=(64, 80)))
        training = model.train().losses(noise(2, 3, 64, 96), targets(size=(64, 80)))
    assert evaluating.keys() == training.keys()
    assert all(loss.isfinite() and loss > 0 for loss in evaluating.values())


@every_model
def test_targets_without_sense_are_refused_in_training(name):
    model = tiny(name).train()
    flat = objects(1)
    flat[0]["boxes"][1, 2] = flat[0]["boxes"][1, 0]
    with pytest.raises(DataError, match=r"image 0 has the box \[20\.0, 10\.0, 20\.0, 50\.0\]"):
        model([noise(3, 64, 80)], flat)
    with pytest.raises(DataError, match="2 images got 1 targets"):
        model([noise(3, 64, 80)] * 2, objects(1))
    with pytest.raises(DataError, match="got no targets"):
        model([noise(3, 64, 80)])
    with pytest.raises(DataError, match="2 images got 1 targets"):
        model.losses(noise(2, 3, 64, 96), targets(1))
    unlabelled = [{key: value for key, value in targets(1)[0].items() if key != "labels"}]
    with pytest.raises(DataError, match="the target of image 0 has no labels"):
        model.losses(noise(1, 3, 64, 96), unlabelled)


@every_model
@pytest.mark.parametrize("images", [[], [torch.rand(1, 64, 64)], torch.rand(3, 64, 64)], ids=["none", "grey", "bare"])
def test_what_are_no_images_is_refused(name, images):
    with pytest.raises(ConfigError, match=r"no images|an image has shape"):
        tiny(name)(images)


@every_model
def test_a_fresh_classifier_has_another_width_and_leaves_the_rest(name):
    model = tiny(name)
    model.classes = ("a", "b", "c")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(5, torch.Generator().manual_seed(3))
    after = model.state_dict()
    changed = {key for key in before if before[key].shape != after[key].shape}
    assert changed
    assert all(torch.equal(before[key], after[key]) for key in before if key not in changed and ".bbox" not in key)
    assert (model.num_classes, model.classes) == (5, None)
    assert model([noise(3, 64, 80)])[0]["labels"].max() <= 5
    twice = tiny(name)
    twice.reset_classifier(5, torch.Generator().manual_seed(3))
    assert all(torch.equal(value, twice.state_dict()[key]) for key, value in after.items())
    with pytest.raises(ConfigError, match="num_classes is 0"):
        model.reset_classifier(0)


@every_model
def test_classes_in_another_order_are_the_same_objects(name):
    model = tiny(name, detections_per_image=40)
    order = [2, 0, 1]
    image = [noise(3, 64, 80)]
    with torch.inference_mode():
        before = model(image)[0]
        model.reorder_classes(order)
        after = model(image)[0]
    assert len(set(before["labels"].tolist())) > 1
    torch.testing.assert_close(before["boxes"], after["boxes"])
    torch.testing.assert_close(before["scores"], after["scores"])
    assert before["labels"].tolist() == [1 + order[label - 1] for label in after["labels"].tolist()]


@every_model
def test_gradients_with_and_without_checkpointing_are_equal(name):
    everything = {"rpn_samples": 60000, "box_samples": 60000} if "mask" in name else {}
    gradients = []
    for enable in (False, True):
        model = tiny(name, **everything).train()
        model.set_grad_checkpointing(enable)
        sum(model.losses(noise(2, 3, 64, 96), targets(size=(64, 80))).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@every_model
def test_a_frozen_backbone_gets_no_gradient_and_the_rest_does(name):
    model = tiny(name).train()
    model.freeze_backbone()
    sum(model.losses(noise(2, 3, 64, 96), targets(size=(64, 80))).values()).backward()
    learned = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None}
    assert learned == {"pyramid", "head"} or learned == {"pyramid", "rpn", "roi_heads"}


def test_running_in_training_mode_is_refused():
    with pytest.raises(ConfigError, match=r"in training mode; call eval\(\) first"):
        tiny("mask_rcnn_van_b0").train().raw(noise(1, 3, 64, 64))


@pytest.mark.long
@pytest.mark.parametrize("name", ["retinanet_van_b0", "gfl_van_b0"])
def test_raw_outputs_of_one_stage_are_a_graph_with_free_sizes(name):
    """From 129 pixels on: the coarsest map has more than one place then."""
    from torch.export import Dim

    from van import ops

    model = tiny(name)
    raw = torch.nn.Module()
    raw.model = model
    raw.forward = model.raw
    with ops.without_kernels():
        program = torch.export.export(
            raw, (noise(2, 3, 384, 512),), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
        )
        for size in ((1, 3, 160, 288), (3, 3, 256, 160)):
            expected = model.raw(noise(*size))
            for key, value in program.module()(noise(*size)).items():
                torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-5)
