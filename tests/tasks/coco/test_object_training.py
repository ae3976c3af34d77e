"""What training of models that find objects makes of images, networks and parameters."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_objects import make_objects, slim_objects
from tiny_training import training_of

import van
from van.data.objects import Objects
from van.data.scenes import COUNTS
from van.errors import ConfigError, UnknownNameError, VanNotice
from van.nn.object_model import ObjectModel
from van.recipes import get_recipe
from van.recipes.coco.augment_spec import ObjectAugmentSpec
from van.tasks.coco.network import build_object_model
from van.tasks.coco.training import rarest_classes
from van.tasks.coco.training_example import ObjectExample, collate
from van.train.optimizer import build_optimizer
from van.train.schedule import build_schedule

DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghij")


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setitem(COUNTS, "train", 8)
    monkeypatch.setitem(COUNTS, "val", 3)


def slim(name="retinanet_digits", **options):
    return slim_objects(name, "scenes", "x", **options)


def fresh(recipe, classes=DIGITS):
    return build_object_model(recipe.model, classes, seed=0)


def objects_of(boxes, labels, size, *, crowd=None):
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return Objects(
        size=size,
        image_id=1,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        areas=masks.sum((1, 2)).astype(np.float32),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.array(crowd),
        ids=np.arange(len(boxes)) + 1,
        read_masks=lambda: masks,
    )


def model_of(path):
    return van.load(path)


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


class TestExamples:
    def test_images_of_any_shape_are_padded_to_the_divisor(self):
        recipe = slim("mask_rcnn_digits", **{"augment.jitter": None, "augment.crop": None, "model.max_size": 100})
        example = ObjectExample(recipe, fresh(recipe).config, masks=True)
        wide = example(noise(32, 48), objects_of([(8, 4, 20, 30)], [3], (32, 48)), (0, 0))
        tall = example(noise(64, 32), objects_of([], [], (64, 32)), (0, 1))
        images, targets = collate([wide, tall])
        assert images.shape == (2, 3, 64, 64)
        assert [target["size"] for target in targets] == [(32, 48), (64, 32)]
        assert not images[0, :, 32:].any()
        assert not images[0, :, :, 48:].any()
        assert images[0, :, :32, :48].any()
        assert targets[0]["boxes"].tolist() == [[8, 4, 20, 30]]
        assert targets[0]["labels"].tolist() == [3]
        assert targets[0]["masks"].shape == (1, 64, 64)
        assert targets[0]["masks"].sum() == 12 * 26
        assert targets[1]["masks"].shape == (0, 64, 64)
        assert targets[1]["boxes"].shape == (0, 4)

    def test_the_short_side_is_one_of_those_given(self):
        recipe = slim(**{
            "augment.jitter": None, "augment.crop": None, "augment.short_sides": (16, 24), "model.min_size": 20,
            "model.max_size": 30,
        })  # fmt: skip
        example = ObjectExample(recipe, fresh(recipe).config, masks=False)
        truth = objects_of([(0, 0, 20, 20)], [1], (40, 60))
        found = {example(noise(40, 60), truth, (0, index)).target["size"] for index in range(20)}
        assert found == {(16, 24), (20, 30)}  # the long side stays below max_size

    def test_augmentation_ends_at_off_epoch(self):
        recipe = slim(**{
            "augment.jitter": (0.3, 0.5), "augment.flip": 0.0, "augment.off_epoch": 1, "augment.photometric": 1.0
        })  # fmt: skip
        example = ObjectExample(recipe, fresh(recipe).config, masks=False)
        image, truth = noise(32, 32), objects_of([(0, 0, 20, 20)], [1], (32, 32))
        assert max(example(image, truth, (0, 0)).target["size"]) <= 16
        after = example(image, truth, (1, 0))
        assert after.target["size"] == (32, 32)
        mean, std = (torch.tensor(values)[:, None, None] for values in (recipe_mean(example), recipe_std(example)))
        expected = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std
        assert torch.allclose(after.image, expected, atol=1e-5)

    def test_squares_of_a_batch_have_one_side(self):
        recipe = get_recipe("dfine_van_b0").with_options(**{
            "augment.short_sides": (64, 96), "model.min_size": 64, "model.queries": 20, "augment.zoom_out": 0.0,
            "augment.overlap_crop": 0.0, "augment.flip": 0.0, "trainer.epochs": 80,
        })  # fmt: skip
        config = van.configs.catalog.OBJECT_MODELS["dfine_van_b0"].with_options(min_size=64, queries=20)
        example = ObjectExample(recipe, config, masks=False)
        truth = objects_of([(0, 0, 20, 40)], [1], (40, 60))
        sides = set()
        for number in range(12):
            batch = [example(noise(40, 60), truth, (0, number, copy)) for copy in (0, 1)]
            images, targets = collate(batch)
            side = images.shape[-1]
            sides.add(side)
            assert images.shape == (2, 3, side, side)
            assert torch.allclose(targets[0]["boxes"], torch.tensor([[0, 0, side / 3, side]]))
            assert targets[1]["size"] == (side, side)
        assert sides == {64, 96}

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("retinanet_digits", {"augment.short_sides": (64,)}, "model.max_size is 32; raise model.max_size"),
            ("dfine_van_b0", {"augment.short_sides": (65,)}, "multiples of 32"),
        ],
    )
    def test_sides_that_the_model_cannot_take(self, name, options, message):
        off = {"augment.jitter": None, "augment.crop": None}
        recipe = slim(**off, **options) if name == "retinanet_digits" else get_recipe(name).with_options(**options)
        config = fresh(recipe).config if name == "retinanet_digits" else van.configs.catalog.OBJECT_MODELS[name]
        with pytest.raises(ConfigError, match=message):
            ObjectExample(recipe, config, masks=False)


def recipe_mean(example):
    return example.plain.mean


def recipe_std(example):
    return example.plain.std


class TestNetworks:
    def test_a_seed_gives_the_network(self):
        first, second = (fresh(slim()).state_dict() for _ in range(2))
        assert all(torch.equal(value, second[key]) for key, value in first.items())
        other = build_object_model(slim().model, DIGITS, seed=1).state_dict()
        assert not torch.equal(first["pyramid.laterals.0.weight"], other["pyramid.laterals.0.weight"])

    @pytest.mark.parametrize("kind", ["classifier", "segmenter", "other"])
    def test_any_checkpoint_gives_its_backbone(self, kind, tmp_path):
        sizes = {name.removeprefix("model."): value for name, value in slim().model.options().items()}
        own = {name: sizes[name] for name in ("embed_dims", "depths", "mlp_ratios", "kernel_size", "dilation")}
        name = {"classifier": "van_b0", "segmenter": "semantic_fpn_van_b0", "other": "mask_rcnn_van_b0"}[kind]
        start = van.create_model(name, num_classes=3, seed=5, **own)
        van.save(start, tmp_path / "start.safetensors")
        recipe = slim(**{"model.checkpoint": str(tmp_path / "start.safetensors"), "model.layer_scale_init": None})
        model = fresh(recipe)
        for key, value in start.backbone.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[key], value), key
        assert model.config.backbone.strides == (4, 1, 2, 2)  # the model's own
        assert model.classes == DIGITS
        with pytest.raises(ConfigError, match=r"gives a backbone only; set model\.name"):
            fresh(recipe.with_options(**{"model.name": None}))
        with pytest.raises(ConfigError, match="no classifiers to keep"):
            fresh(recipe.with_options(**{"model.keep_head": True}))
        with pytest.raises(ConfigError, match=r"has embed_dims \(8, 16, 24, 32\), retinanet_van_b0 needs"):
            fresh(recipe.with_options(**{"model.embed_dims": (8, 16, 24, 40)}))

    @pytest.fixture
    def trained(self, tmp_path):
        model = build_object_model(slim().model, DIGITS, seed=5)
        van.save(model, tmp_path / "trained.safetensors")
        return tmp_path / "trained.safetensors"

    def continued(self, trained, classes, **options):
        recipe = slim(**{"model.checkpoint": str(trained), "model.name": None, "model.layer_scale_init": None})
        return build_object_model(recipe.with_options(**options).model, classes, seed=1)

    def test_a_model_of_the_same_classes_gives_everything(self, trained):
        model, before = self.continued(trained, DIGITS), van.load(trained)
        assert all(torch.equal(value, before.state_dict()[key]) for key, value in model.state_dict().items())
        assert model.training

    def test_classes_in_another_order(self, trained):
        with pytest.warns(VanNotice, match="another order"):
            model = self.continued(trained, DIGITS[::-1])
        before = van.load(trained).eval()
        images = torch.randn(1, 3, 32, 32)
        with torch.inference_mode():
            new, old = (each.eval().raw(images)["logits_p3"] for each in (model, before))
        places = new.shape[1] // 10
        assert torch.allclose(new.unflatten(1, (places, 10)), old.unflatten(1, (places, 10)).flip(2), atol=1e-6)
        assert model.classes == DIGITS[::-1]

    def test_other_classes_get_fresh_classifiers(self, trained):
        with pytest.warns(VanNotice, match="fresh box classifiers, as its classes have other names"):
            model = self.continued(trained, LETTERS)
        before = van.load(trained).state_dict()
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        assert changed == {"head.classification_head.cls_logits.weight"}
        with pytest.warns(VanNotice, match="the checkpoint's have 10 classes, the data 2"):
            assert self.continued(trained, ("a", "b")).num_classes == 2
        kept = self.continued(trained, LETTERS, **{"model.keep_head": True})
        assert torch.equal(kept.state_dict()["head.classification_head.cls_logits.weight"],
                           before["head.classification_head.cls_logits.weight"])  # fmt: skip
        with pytest.warns(VanNotice, match="reset_head asks for"):
            self.continued(trained, DIGITS, **{"model.reset_head": True})

    def test_options_that_do_not_fit_the_file(self, trained):
        with pytest.raises(ConfigError, match="does not fit the options channels"):
            self.continued(trained, DIGITS, **{"model.channels": 8})
        with pytest.raises(ConfigError, match=r"has depths \(1, 1, 1, 1\), retinanet_van_b0 needs \(2, 1, 1, 1\)"):
            self.continued(trained, DIGITS, **{"model.name": "retinanet_van_b0", "model.depths": (2, 1, 1, 1)})
        named = self.continued(trained, DIGITS, **{"model.name": "retinanet_van_b0"})
        assert named.config == model_of(trained).config
        model = self.continued(trained, DIGITS, **{"model.min_size": 64, "model.max_size": 80})
        assert (model.config.min_size, model.config.max_size) == (64, 80)


class TestParameters:
    def groups(self, **options):
        recipe = slim(**options)
        network = fresh(recipe)
        optimizer = build_optimizer(network, training_of(recipe))
        build_schedule(optimizer, recipe, 4)
        found = {id(value): group for group in optimizer.param_groups for value in group["params"]}
        return {name: found[id(value)] for name, value in network.named_parameters()}, network, recipe

    def test_the_backbone_learns_at_its_share(self):
        groups, _, recipe = self.groups(**{
            "optim.backbone_lr_scale": 0.25, "schedule.warmup_steps": 0, "schedule.name": "constant",
            "schedule.power": None,
        })  # fmt: skip
        shares = {name.startswith("backbone."): group["lr"] / recipe.optim.lr for name, group in groups.items()}
        assert shares == pytest.approx({True: 0.25, False: 1.0})

    @pytest.mark.parametrize("rule", ["matrices", "all_but_norms", "everything"])
    def test_what_decays(self, rule):
        groups, network, recipe = self.groups(**{"optim.decayed": rule})
        norms = ("norm.weight", "norm.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
        for name, value in network.named_parameters():
            expected = {
                "matrices": value.ndim > 1, "all_but_norms": not name.endswith(norms), "everything": True
            }[rule]  # fmt: skip
            assert groups[name]["weight_decay"] == (recipe.optim.weight_decay if expected else 0), name

    def test_two_ways_to_slow_the_backbone(self):
        with pytest.raises(ConfigError, match="in two ways"):
            slim(**{"optim.backbone_lr_scale": 0.1, "optim.layer_decay": 0.9})


def test_a_class_counts_for_its_rarest_object():
    train, _ = training_of(slim()).open_data()
    counts, found = train.class_counts(), rarest_classes(train)
    for index, label in enumerate(found):
        there = train.load(index)[1].labels.tolist()
        assert label in there
        assert counts[label] == min(counts[each] for each in there)
    keys = [key[1] for key in training_of(slim(**{"data.sampling": "balanced"})).sampler(train)]
    drawn = [found[index] for index in keys]
    frequencies = [drawn.count(label) for label in set(found)]
    assert max(frequencies) - min(frequencies) <= 1


def test_batches_of_one_shape(tmp_path):
    root = make_objects(tmp_path / "data", train=8, val=2)
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    for number, image in enumerate(content["images"]):
        image["height"] = 32 if number % 3 else 40
    file.write_text(json.dumps(content))
    recipe = slim_objects("retinanet_digits", root, "x", **{"data.group_shapes": True, "trainer.devices": 2,
                                                           "trainer.batch_size": 1})  # fmt: skip
    training = training_of(recipe)
    train, _ = training.open_data()
    share = training.sampler(train)
    chunks = []
    for epoch in range(4):
        share.set_epoch(epoch)
        keys = [key[1] for key in share.sampler]
        assert sorted(keys) == list(range(8))
        chunks.append([{index % 3 == 0 for index in keys[at : at + 2]} for at in range(0, 6, 2)])
    assert all(len(shapes) == 1 for epoch in chunks for shapes in epoch)
    assert len({str(epoch) for epoch in chunks}) > 1
    for image in content["images"]:
        del image["height"]
    file.write_text(json.dumps(content))
    with pytest.warns(VanNotice, match=r"data\.group_shapes has no effect"):
        training.sampler(training.open_data()[0])


def test_losses_are_weighted_by_name():
    recipe = slim(**{"loss.weights": {"bbox_regression": 3.0}})
    training = training_of(recipe)
    train, _ = training.open_data()
    network = training.network(train)
    assert isinstance(network, ObjectModel)
    batch = training.collate([training.example(train, network)(*train.load(i), (0, i)) for i in range(2)])
    plain, weighted = (
        training_of(each).objective(train, network).losses(network, batch, epoch=0) for each in (slim(), recipe)
    )
    assert weighted["bbox_regression"].item() == pytest.approx(3 * plain["bbox_regression"].item())
    assert weighted["classification"].item() == pytest.approx(plain["classification"].item())
    wrong = training_of(slim(**{"loss.weights": {"boxes": 1.0}})).objective(train, network)
    with pytest.raises(UnknownNameError, match=r"unknown loss in loss.weights: 'boxes'.*bbox_regression"):
        wrong.losses(network, batch, epoch=0)


def test_a_warm_up_longer_than_the_run_is_shortened():
    recipe = slim(**{"schedule.warmup_steps": 1000})
    training = training_of(recipe)
    with pytest.warns(VanNotice, match="warmup_steps 1000 becomes 4: the run has 8 steps"):
        assert training.fitted(*training.open_data()).schedule.warmup_steps == 4


def test_the_rate_rises_over_steps_and_falls_at_epochs():
    recipe = get_recipe("retinanet_van_b0_1x")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.optim.lr)
    schedule = build_schedule(optimizer, recipe, 2000)
    seen = {}
    for step in (0, 500, 1000, 8 * 2000 - 2, 8 * 2000, 11 * 2000, 12 * 2000 - 1):
        schedule.after_step(step)
        seen[step] = optimizer.param_groups[0]["lr"] / recipe.optim.lr
    assert seen == pytest.approx(
        {0: 1e-3, 500: 0.5005, 1000: 1, 15998: 1, 16000: 0.1, 22000: 0.01, 23999: 0.01}, rel=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jitter": (0.5, 2.0)}, "give augment.crop"),
        ({"jitter": (0.5, 2.0), "crop": (8, 8), "short_sides": (8,)}, "in two ways"),
        ({"short_sides": ()}, "is empty"),
        ({"crop": (8,)}, r"expected \(height, width\)"),
        ({"flip": 2.0}, r"augment.flip is 2.0; expected a number, 0 to 1"),
    ],
)
def test_augmentation_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        ObjectAugmentSpec(**options)
