"""torchvision's detectors on the pyramid: built, trained one step, run, and honest about what they cannot do."""

import pytest
import torch

pytest.importorskip("torchvision")

from van import create_model as create
from van.configs.backbone import VARIANTS
from van.configs.catalog import resolve
from van.configs.detector import DETECTORS, DetectorConfig
from van.errors import ConfigError, UnknownNameError

TINY = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "mlp_ratios": (2, 2, 2, 2),
    "channels": 32,
    "num_classes": 3,
    "min_size": 64,
    "max_size": 96,
    "smallest_anchor": 8,
    "score_threshold": 0.0,
    "detections_per_image": 7,
}
NAMES = ["retinanet_van_b0", "mask_rcnn_van_b0"]


def targets(count=2):
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]])
    masks = torch.zeros(2, 64, 80, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    return [{"boxes": boxes.clone(), "labels": torch.tensor([1, 3]), "masks": masks.clone()} for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_reaches_every_parameter_and_lowers_the_loss(name):
    model = create(name, seed=0, **TINY).train()
    images = list(torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(0)
    losses = []
    for _ in range(4):
        parts = model(images, targets())
        loss = sum(parts.values())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    backbone = model.backbone.backbone
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    assert ("loss_mask" in parts) == (name == "mask_rcnn_van_b0")


@pytest.mark.parametrize("name", NAMES)
def test_inference_gives_boxes_inside_images_of_any_size(name):
    model = create(name, seed=0, **TINY).eval()
    images = [torch.rand(3, 50, 70), torch.rand(3, 64, 80)]
    with torch.inference_mode():
        found = model(images)
    for image, objects in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert 0 < len(objects["boxes"]) <= 7
        assert objects["boxes"][:, 0::2].amax() <= width
        assert objects["boxes"][:, 1::2].amax() <= height
        assert objects["labels"].amax() <= 3
        if name == "mask_rcnn_van_b0":
            assert objects["masks"].shape == (len(objects["boxes"]), 1, height, width)


@pytest.mark.parametrize(
    ("name", "strides"), [("retinanet_van_b0", (8, 16, 32, 64, 128)), ("mask_rcnn_van_b0", (4, 8, 16, 32, 64))]
)
def test_pyramid_has_the_strides_of_the_method(name, strides):
    model = create(name, **TINY)
    maps = model.backbone(torch.zeros(1, 3, 128, 256))
    assert [tuple(m.shape) for m in maps.values()] == [(1, 32, 128 // s, 256 // s) for s in strides]
    generator = model.anchor_generator if name.startswith("retinanet") else model.rpn.anchor_generator
    assert [sizes[0] for sizes in generator.sizes] == [8, 16, 32, 64, 128]


def test_retinanets_sixth_map_comes_from_the_backbone_also_where_widths_agree():
    model = create("retinanet_van_b0", **TINY | {"embed_dims": (8, 16, 24, 32), "channels": 32})
    assert model.backbone.backbone.channels[-1] == model.backbone.out_channels
    assert not model.backbone.fpn.extra_blocks.use_P5


def test_state_dict_round_trip_gives_the_same_detections():
    model, again = create("mask_rcnn_van_b0", seed=0, **TINY).eval(), create("mask_rcnn_van_b0", seed=1, **TINY).eval()
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


def test_every_variant_has_both_detectors_and_names_resolve():
    assert set(DETECTORS) == {f"{method}_{name}" for method in ("retinanet", "mask_rcnn") for name in VARIANTS}
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
        ({"embed_dims": (8, 8), "depths": (1, 1), "mlp_ratios": (2, 2), "patch_sizes": (7, 3)}, "2 stages"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DETECTORS["retinanet_van_b0"].with_options(**options)


def test_configuration_round_trips_through_json():
    import json

    config = DETECTORS["mask_rcnn_van_b1"].with_options(num_classes=5, in_chans=1, mean=(0.5,), std=(0.5,))
    assert DetectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.promise("22")
def test_what_there_is_not_yet_is_said(tmp_path, capsys):
    import van
    from van.cli import main
    from van.errors import CheckpointError
    from van.inference.evaluate import evaluate
    from van.recipes import ModelSpec, get_recipe

    model = create("retinanet_van_b0", seed=0, **TINY).eval()
    for refused in (
        lambda: van.save(model, tmp_path / "d.safetensors"),
        lambda: van.Predictor(model),
        lambda: van.export(model, tmp_path / "d.onnx"),
        lambda: evaluate(model, "digits"),
        lambda: get_recipe("retinanet_van_b0"),
        lambda: ModelSpec(name="mask-rcnn-van-tiny"),
    ):
        with pytest.raises(
            ConfigError,
            match=r"is a detector: it can be created with van\.create_model, and trained .* with torchvision's tools",
        ):
            refused()
    for read in (van.load, van.info, van.Predictor):
        with pytest.raises(CheckpointError, match="retinanet_van_b0 is a detector"):
            read("retinanet_van_b0")
    torch.save(model.state_dict(), tmp_path / "d.pth")
    with pytest.raises(CheckpointError, match="holds a detector's weights"):
        van.load(tmp_path / "d.pth")
    create("retinanet_van_b0", **TINY).load_state_dict(torch.load(tmp_path / "d.pth"))  # the remedy
    for words in (["info"], ["predict", "x.png"], ["eval", "--data", "digits"], ["export", "x.onnx"], ["train"]):
        verb, *rest = words
        assert main([verb, "mask_rcnn_van_b0", *rest]) == 2
        assert "mask_rcnn_van_b0 is a detector" in capsys.readouterr().err
