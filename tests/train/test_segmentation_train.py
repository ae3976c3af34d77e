"""Segmentation training: recipes as published, schedule and loss by hand, what a run leaves, resume, real starts."""

import csv
import json

import numpy as np
import pytest
import segmentation_reference as reference
import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from safetensors.torch import load_file
from tiny_segmentation import SLIM_NETWORK, slim_segmentation
from tiny_training import training_of

import van
from van.configs.segmenter import SEGMENTERS
from van.data.infinite_sampler import InfiniteSampler, spread
from van.errors import ConfigError, VanNotice
from van.nn.segmenter import Segmenter
from van.recipes import PRESETS, RECIPES, SegmentationRecipe, get_recipe, recipe_of
from van.recipes.schedule_spec import StepScheduleSpec
from van.recipes.segmentation import SEGMENTATION_RECIPES
from van.recipes.segmentation.loss_spec import SegmentationLossSpec
from van.tasks.segmentation.losses import PixelLoss
from van.tasks.segmentation.network import build_segmenter
from van.train import run
from van.train.module import TrainingModule
from van.train.optimizer import build_optimizer
from van.train.prepare import fit_devices, prepare
from van.train.run import _processes
from van.train.schedule import build_schedule

PUBLISHED = [name for name in SEGMENTATION_RECIPES if name != "light_ham_digits"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    recipe = slim_segmentation(tmp_path_factory.mktemp("runs") / "whole")
    return run(recipe), recipe


def table(folder):
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in csv.DictReader(file)]


class TestRecipes:
    def test_all_published_ones_are_there(self):
        count = {method: sum(name.startswith(method) for name in PUBLISHED) for method in ("light_ham", "hamnet")}
        assert count == {"light_ham": 6, "hamnet": 4}
        assert sum(name.startswith("upernet") for name in PUBLISHED) == 8
        assert sum(name.startswith("semantic_fpn") for name in PUBLISHED) == 5
        assert [name for name in PUBLISHED if name.endswith("22k")] == [f"upernet_van_b{n}_22k" for n in (4, 5, 6)]

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_published_values(self, name):
        r = get_recipe(name)
        fpn, four = name.startswith("semantic_fpn"), name.startswith(("semantic_fpn", "hamnet", "upernet_van_b4"))
        assert (r.trainer.steps, r.trainer.devices, r.trainer.batch_size) == (
            40_000 if fpn else 160_000,
            8,
            4 if four else 2,
        )
        assert (r.optim.name, r.optim.lr, r.optim.weight_decay) == (
            "adamw",
            2e-4 if fpn else 6e-5,
            1e-4 if fpn else 0.01,
        )
        assert r.optim.decayed == ("everything" if fpn else "all_but_backbone_norms")
        assert r.schedule == (StepScheduleSpec(power=0.9, warmup_steps=0) if fpn else StepScheduleSpec())
        assert (r.schedule.warmup_ratio, StepScheduleSpec().warmup_steps, StepScheduleSpec().power) == (1e-6, 1500, 1.0)
        assert (r.data.resize, r.augment.crop, r.augment.scale) == ((2048, 512), (512, 512), (0.5, 2.0))
        assert (r.augment.max_class_share, r.augment.flip, r.augment.photometric) == (0.75, 0.5, True)
        assert (r.loss.auxiliary_weight, r.trainer.batch_norm) == (0.4, "sync")
        assert (r.trainer.val_every, r.trainer.keep) == (4_000 if fpn else 16_000, "last")

    @pytest.mark.parametrize(
        ("name", "rate"),
        [
            ("light_ham_van_b0", 0.1), ("light_ham_van_b3", 0.25), ("light_ham_van_b4", 0.3), ("hamnet_van_b3", 0.25),
            ("semantic_fpn_van_b2", 0.2), ("upernet_van_b3", 0.3),
            ("upernet_van_b5_22k", 0.4), ("upernet_van_b6_22k", 0.5), ("semantic_fpn_van_b1", 0.2),
        ],
    )  # fmt: skip
    def test_drop_path(self, name, rate):
        assert get_recipe(name).model.drop_path_rate == rate

    def test_both_published_scores_are_told(self):
        assert all(score in RECIPES["upernet_van_b2"].__doc__ for score in ("50.1%", "48.3%"))
        assert all(score in RECIPES["upernet_van_b3"].__doc__ for score in ("50.6%", "50.1%"))

    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize("name", ["light_ham_van_b4", "hamnet_van_b0", "semantic_fpn_van_b2"])
    def test_presets_keep_the_batch(self, preset, name):
        before, after = get_recipe(name), PRESETS[preset](get_recipe(name))
        assert after.global_batch == before.global_batch
        assert after.trainer.devices == 1
        assert after.optim == before.optim

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("model.name", "light_ham_van_b9", "light_ham_van_b0"),
            ("model.name", "van_b0", "a classifier"),
            ("trainer.val_every", 7, "does not divide"),
            ("schedule.warmup_steps", 4000, "all warm-up"),
            ("loss.ohem_min_kept", 5, "ohem_threshold"),
            ("loss.average", "all", "labelled"),
            ("optim.decayed", "norms", "everything"),
            ("augment.max_class_share", 0.0, "max_class_share"),
            ("trainer.monitor", "val/top1", "val/mIoU"),
        ],
    )
    def test_impossible_values_are_refused(self, key, value, message):
        with pytest.raises(ConfigError, match=message):
            get_recipe("light_ham_digits").with_options(**{key: value})


class TestSchedule:
    def test_poly_with_warm_up_as_a_ratio_by_hand(self):
        spec = StepScheduleSpec(power=1.0, warmup_steps=4, warmup_ratio=0.1)
        assert spec.factor(0, 10) == pytest.approx(0.1)
        assert spec.factor(2, 10) == pytest.approx(0.8 * (1 - 0.5 * 0.9))  # of the decayed rate, as mmcv
        assert spec.factor(4, 10) == pytest.approx(0.6)
        assert StepScheduleSpec(power=0.9, warmup_steps=0).factor(5, 10) == pytest.approx(0.5**0.9)

    def test_the_optimizer_follows(self):
        recipe = slim_segmentation("x", **{"optim.lr": 1.0, "schedule.warmup_steps": 2, "schedule.warmup_ratio": 0.5})
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule, rates = build_schedule(optimizer, recipe, 2), []
        for step in range(4):
            schedule.before_epoch(step // 2)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step(step + 1)
        assert rates == pytest.approx([0.5, 0.75 * 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    "golden", ["mmseg_lightham_van_tiny_d256", "mmseg_hamnet_os8_van_tiny", "mmseg_upernet_van_tiny"]
)
def test_decay_equals_the_rule_on_published_names(golden):
    """The published rule spares names that contain `norm`, told here of the originals' own names."""
    manifest, name, _ = reference.GOLDENS[golden]
    recipes = [slim_segmentation("x", **{"optim.decayed": rule}) for rule in ("all_but_backbone_norms", "everything")]
    published, everything = map(training_of, recipes)
    model = Segmenter(SEGMENTERS[name])
    ours = dict(model.named_parameters())
    seen = 0
    for original in reference.published_state(manifest):
        key = reference.our_key(original)
        if key in ours:
            assert published.decays(key, ours[key]) == ("norm" not in original), original
            assert everything.decays(key, ours[key])
            seen += 1
    assert seen == len(ours)


def test_parameter_groups_hold_every_parameter_once():
    recipe = slim_segmentation("x", **{"optim.decayed": "all_but_backbone_norms", "optim.weight_decay": 0.25})
    model = build_segmenter(recipe.model, ("a", "b"), ((0, 0, 0), (1, 1, 1)), seed=0)
    groups = {
        group["weight_decay"]: group["params"] for group in build_optimizer(model, training_of(recipe)).param_groups
    }
    assert set(groups) == {0.25, 0.0}
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert any(model.head.hamburger.norm.weight is p for p in groups[0.25])
    assert any(model.backbone.stages[0].norm.weight is p for p in groups[0.0])


class TestLoss:
    logits = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [3.0, 0.0]]]])  # (1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [1, 255]]])

    def losses(self):
        return F.cross_entropy(self.logits, self.labels.where(self.labels != 255, 0), reduction="none")[0]

    def test_average_over_all_pixels_or_the_labelled(self):
        total = self.losses().flatten()[:3].sum()
        assert PixelLoss(SegmentationLossSpec(), ignore_index=255)(self.logits, self.labels) == pytest.approx(
            float(total / 4)
        )
        loss = PixelLoss(SegmentationLossSpec(average="labelled"), ignore_index=255)
        assert loss(self.logits, self.labels) == pytest.approx(float(total / 3))

    def test_class_weights_do_not_enter_the_divisor(self):
        one, two, three = self.losses().flatten()[:3]
        loss = PixelLoss(SegmentationLossSpec(), ignore_index=255, weights=torch.tensor([0.5, 2.0]))
        assert loss(self.logits, self.labels) == pytest.approx(float(0.5 * one + 0.5 * two + 2 * three) / 4)

    def test_mining_keeps_the_hard_pixels(self):
        hard = self.losses()[0, 1]  # the only one whose class has less than 0.7
        loss = PixelLoss(SegmentationLossSpec(ohem_threshold=0.7, ohem_min_kept=1), ignore_index=255)
        assert loss(self.logits, self.labels) == pytest.approx(float(hard) / 4)
        more = PixelLoss(SegmentationLossSpec(ohem_threshold=0.01, ohem_min_kept=2), ignore_index=255)
        assert more(self.logits, self.labels) == pytest.approx(float(hard + self.losses()[0, 0]) / 4)


class TestStream:
    def test_periods_continue_one_stream(self):
        sampler, seen = InfiniteSampler(5, period=4, seed=3), []
        for period in range(5):
            sampler.set_epoch(period)
            seen += list(sampler)
        assert [number for number, _ in seen] == [position // 5 for position in range(20)]
        for number in range(4):
            assert sorted(index for n, index in seen if n == number) == [0, 1, 2, 3, 4]

    def test_ranks_share_a_period(self):
        whole = list(InfiniteSampler(7, period=6, seed=0))
        parts = [list(InfiniteSampler(7, period=6, seed=0, rank=rank, world_size=2)) for rank in range(2)]
        assert sorted(parts[0] + parts[1]) == sorted(whole)
        assert len(InfiniteSampler(7, period=6, seed=0, rank=1, world_size=2)) == 3

    def test_spread(self):
        assert spread(10, 3) == [0, 4, 9]
        assert spread(3, None) == spread(3, 8) == [0, 1, 2]


def test_a_run_leaves_everything_about_it(finished):
    folder, recipe = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "best.ckpt", "last.ckpt", "previous.ckpt", "metrics.csv", "recipe.yaml", "environment.json", "summary.json",
        "tensorboard", "model.safetensors",
    }  # fmt: skip
    from van.train.folder import read_recipe

    assert read_recipe(folder / "recipe.yaml") == recipe
    assert isinstance(recipe_of(recipe.to_dict()), SegmentationRecipe)
    assert [row["step"] for row in table(folder)] == ["2", "4"]
    assert all(0 <= float(row["val/mIoU"]) <= 1 for row in table(folder))
    model = van.load(folder / "model.safetensors")
    assert isinstance(model, Segmenter)
    assert (model.classes[:2], len(model.palette)) == (("background", "0"), 11)
    assert model.preprocess.mean == (0.485, 0.456, 0.406)
    assert model.provenance["recipe"] == "light_ham_digits"
    assert model.provenance["inference"]["resize"] is None


def test_resumed_equals_uninterrupted(finished, tmp_path, monkeypatch):
    whole, recipe = finished
    step = TrainingModule.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == 3:
            raise ZeroDivisionError
        return step(self, batch, batch_idx)

    cut = recipe.with_options(**{"trainer.out": str(tmp_path / "cut")})
    monkeypatch.setattr(TrainingModule, "training_step", failing)
    with pytest.raises(ZeroDivisionError):
        run(cut)
    monkeypatch.undo()
    torch.rand(7)  # the NMF draws from the global generator
    resumed = run(cut.with_options(**{"trainer.resume": str(tmp_path / "cut")}))
    assert table(resumed) == table(whole)
    one, two = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_accumulated_passes_count_as_one_iteration(tmp_path):
    recipe = slim_segmentation(tmp_path / "run", **{"trainer.accumulate": 2, "trainer.batch_size": 1})
    folder = run(recipe.with_options(**{"trainer.val_every": 4}))
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4


class TestStart:
    def build(self, checkpoint, name="light_ham_van_b0_d256", **options):
        recipe = slim_segmentation("x", **{"model.layer_scale_init": None, "model.checkpoint": str(checkpoint)})
        spec = recipe.with_options(**{"model.name": name, **options}).model
        return build_segmenter(spec, ("a", "b"), ((0, 0, 0), (1, 1, 1)), seed=0)

    def classifier(self, path, **options):
        sizes = {name: SLIM_NETWORK[name] for name in ("embed_dims", "depths", "mlp_ratios", "kernel_size", "dilation")}
        model = van.create_model("van_b0", seed=5, num_classes=3, **{**sizes, **options})
        van.save(model, path)
        return model

    def test_a_classifier_gives_every_weight_of_the_backbone(self, tmp_path):
        classifier = self.classifier(tmp_path / "c.safetensors", layer_norm_eps=1e-5)
        model = self.build(tmp_path / "c.safetensors")
        theirs = classifier.backbone.state_dict()
        assert theirs.keys() == model.backbone.state_dict().keys()
        assert all(torch.equal(value, theirs[key]) for key, value in model.backbone.state_dict().items())
        assert model.config.backbone.layer_norm_eps == 1e-5
        assert model.config.backbone.strides == (4, 1, 2, 2)  # the segmenter's own
        images = torch.rand(1, 3, 32, 32)
        with torch.no_grad():  # the same function, not only the same tensors
            model.eval(), classifier.eval()
            twin = classifier.backbone.stages[0](images)
            assert torch.equal(model.backbone.stages[0](images), twin)

    def test_another_size_is_refused(self, tmp_path):
        self.classifier(tmp_path / "c.safetensors", embed_dims=(8, 16, 24, 40))
        with pytest.raises(ConfigError, match="embed_dims"):
            self.build(tmp_path / "c.safetensors")
        with pytest.raises(ConfigError, match=r"set model\.name"):
            self.build(tmp_path / "c.safetensors", name=None)

    def test_a_segmenter_gives_everything(self, finished):
        folder, recipe = finished
        state = load_file(folder / "model.safetensors")
        classes = van.load(folder / "model.safetensors").classes
        spec = recipe.with_options(
            **{
                "model.layer_scale_init": None,
                "model.name": None,
                "model.checkpoint": str(folder / "model.safetensors"),
            }
        ).model
        model = build_segmenter(spec, classes, ((0, 0, 0),) * 11, seed=1)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        with pytest.warns(VanNotice, match="fresh pixel classifiers, as the checkpoint's have 11"):
            model = build_segmenter(spec, ("a", "b"), ((0, 0, 0),) * 2, seed=1)
        assert model.num_classes == 2
        kept = [key for key in state if "classify" not in key]
        assert len(kept) < len(state)
        assert all(torch.equal(model.state_dict()[key], state[key]) for key in kept)


class TestDevices:
    def test_fewer_devices_accumulate_more(self):
        recipe = get_recipe("light_ham_van_b0")
        with pytest.warns(VanNotice, match="the batch of 16 images is kept"):
            fitted = fit_devices(recipe, "cpu")
        assert (fitted.trainer.devices, fitted.trainer.accumulate, fitted.global_batch) == (1, 8, 16)

    def test_sync_bn_converts_where_several_devices_train(self, tmp_path):
        recipe = slim_segmentation(tmp_path / "run", **{"trainer.devices": 2})
        job = prepare(recipe)
        options = _processes(job, "cuda", 0)
        assert options["sync_batchnorm"] is True
        trainer = Trainer(accelerator="cpu", **options, logger=False, default_root_dir=tmp_path)
        converted = trainer.strategy._layer_sync.apply(job.module)
        left = [m for m in converted.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        synced = [m for m in converted.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
        assert (len(left), len(synced) > 10) == (0, True)
        alone = _processes(prepare(slim_segmentation(tmp_path / "one")), "cpu", 0)
        assert "sync_batchnorm" not in alone


def test_what_is_wrong_is_said_before_training(tmp_path):
    for options, message in (
        ({"data.path": None, "data.scene_size": None}, "no data"),
        ({"loss.class_weights": (1.0, 2.0)}, "2 numbers, the data 11 classes"),
        ({"data.mean": (0.5,), "data.std": (0.5,)}, "channel"),
        ({"optim.momentum": 0.9}, "momentum"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(slim_segmentation(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_light_ham_digits_learns(tmp_path):
    folder = run(get_recipe("light_ham_digits").with_options(**{"trainer.out": str(tmp_path / "run")}))
    from van.data.scenes import Scenes, pixel_baseline_miou
    from van.inference.evaluate import evaluate

    score = evaluate(folder / "model.safetensors", "scenes")["mIoU"]
    assert score >= 0.60
    assert score >= pixel_baseline_miou(Scenes("train"), Scenes("val")) + 0.2
    assert np.isfinite(score)
