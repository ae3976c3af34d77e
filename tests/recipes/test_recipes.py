"""Recipes as data: published values, round trips, and nothing impossible or misspelt gets through."""

import dataclasses

import pytest

from van.errors import ConfigError, UnknownNameError
from van.recipes import (
    CLASSIFICATION_PRESETS,
    KINDS,
    PRESETS_OF,
    RECIPES,
    AugmentSpec,
    OptimSpec,
    Recipe,
    SegmentationRecipe,
    get_recipe,
    recipe_of,
    register,
    summary,
    with_preset,
)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_tell_their_story_and_round_trip(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe_of(recipe.to_dict()) == recipe
    story = RECIPES[name].__doc__
    for word in ("Command: van train " + name, "Hardware:", "Time:", "Expected:", "Published", "urs"):
        assert word in story, word
    assert summary(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "other"


@pytest.mark.parametrize(("source", "lr", "ema"), [("", 1e-3, None), ("_paper", 5e-4, 0.9998)])
@pytest.mark.parametrize(
    ("name", "drop_path"), [("van_b0", 0.1), ("van_b1", 0.1), ("van_b2", 0.1), ("van_b3", 0.2), ("van_b4", 0.2)]
)
def test_imagenet_recipes_hold_the_published_values(name, drop_path, source, lr, ema):
    r = get_recipe(f"imagenet_{name}{source}")
    assert (r.model.name, r.model.drop_path_rate) == (name, drop_path)
    assert (r.optim.name, r.optim.lr, r.optim.lr_batch, r.optim.weight_decay) == ("adamw", lr, 1024, 0.05)
    assert r.global_batch == 1024
    assert r.optim.scaled_lr(r.global_batch) == lr
    s = r.schedule
    assert (s.name, s.warmup_epochs, s.warmup_lr, s.min_lr, s.cooldown_epochs) == ("cosine", 5, 1e-6, 1e-6, 10)
    assert (r.trainer.epochs, r.total_epochs, r.trainer.ema_decay) == (300, 310, ema)
    a = r.augment
    assert (a.label_smoothing, a.mixup, a.cutmix, a.switch_prob, a.mix_prob) == (0.1, 0.8, 1.0, 0.5, 1.0)
    assert (a.auto_augment, a.erasing, a.erasing_mode) == ("rand-m9-mstd0.5-inc1", 0.25, "pixel")
    assert (a.crop_scale, a.hflip, a.color_jitter) == ((0.08, 1.0), 0.5, 0.0)
    assert r.data.mean == r.data.std == (0.5, 0.5, 0.5)
    assert (r.data.size, r.data.crop_pct, r.data.interpolation) == (224, 0.9, "bicubic")


@pytest.mark.parametrize(("name", "drop_path"), [("van_b4", 0.2), ("van_b5", 0.2), ("van_b6", 0.3)])
def test_22k_recipes_hold_the_published_values(name, drop_path):
    r = get_recipe(f"imagenet22k_{name}")
    assert (r.model.name, r.global_batch, r.optim.scaled_lr(8192)) == (name, 8192, 4e-3)
    assert (r.trainer.epochs, r.schedule.warmup_epochs, r.schedule.warmup_lr, r.total_epochs) == (90, 5, 0.0, 90)
    assert (r.augment.mixup, r.augment.cutmix, r.data.mean[0], r.trainer.ema_decay) == (0.8, 1.0, 0.485, None)
    for side, crop_pct, resize, batch in ((224, 0.875, "shortest", 32), (384, 1.0, "squash", 16)):
        r = get_recipe(f"imagenet_{name}_from_22k_{side}")
        assert (r.model.name, r.model.drop_path_rate) == (None, drop_path)
        assert f"{name.replace('_', '-')}_3rdparty_in21k" in r.model.checkpoint
        assert (r.trainer.batch_size, r.global_batch, r.optim.scaled_lr(512)) == (batch, 512, 5e-5)
        assert (r.optim.weight_decay, r.trainer.epochs, r.schedule.warmup_epochs) == (1e-8, 30, 0)
        assert (r.data.size, r.data.crop_pct, r.data.resize, r.augment.mixes) == (side, crop_pct, resize, False)
        assert r.augment.label_smoothing == 0.1


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean 'finetune'"):
        get_recipe("finetun")
    with pytest.raises(UnknownNameError, match=r"unknown recipe key 'optim\.lrr'; did you mean 'optim\.lr'"):
        Recipe().with_options(**{"optim.lrr": 1.0})
    with pytest.raises(UnknownNameError, match="did you mean 'optim'"):
        Recipe().with_options(**{"optm.lr": 1.0})
    with pytest.raises(UnknownNameError, match=r"did you mean 'trainer\.epochs'"):
        Recipe.from_dict({"trainer": {"epoch": 1}})
    with pytest.raises(UnknownNameError, match="did you mean 'trainer'"):
        Recipe.from_dict({"trainr": {"epochs": 1}})


def test_dashes_are_allowed():
    assert get_recipe("digits-van-b0") == get_recipe("digits_van_b0")


def test_linear_scaling():
    recipe = Recipe().with_options(
        **{"optim.lr": 1e-3, "optim.lr_batch": 256, "trainer.batch_size": 32, "trainer.accumulate": 2}
    )
    assert recipe.optim.scaled_lr(recipe.global_batch) == pytest.approx(2.5e-4)
    assert recipe.with_options(**{"optim.lr_batch": None}).optim.scaled_lr(64) == 1e-3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.name", "van_b9", "van_b9"),
        ("model.attention", "lkaa", "lka"),
        ("model.reset_head", True, "checkpoint"),
        ("data.val_fraction", 1.5, "val_fraction"),
        ("augment.hflip", 2, "hflip"),
        ("augment.mixup", -1.0, "mixup"),
        ("augment.crop_scale", (0.9, 0.1), "smaller first"),
        ("augment.zoom", (1.0,), "two positive"),
        ("augment.erasing_mode", "pixels", "pixel"),
        ("augment.label_smoothing", 1.0, "label_smoothing"),
        ("optim.lr", -1.0, "optim.lr"),
        ("optim.lr", float("nan"), "optim.lr"),
        ("optim.lr_batch", 0, "lr_batch"),
        ("optim.clip_norm", 0.0, "clip_norm"),
        ("schedule.name", "cosin", "cosine"),
        ("schedule.power", 1.0, "poly"),
        ("schedule.name", "poly", "power"),
        ("schedule.name", "multistep", "milestones"),
        ("schedule.k_decay", -1.0, "k_decay"),
        ("schedule.cycles", 1, "cycles"),
        ("schedule.noise", (0.9, 0.4), "in order"),
        ("optim.layer_decay", 1.0, "layer_decay"),
        ("optim.clip_agc", 0.0, "clip_agc"),
        ("augment.mix_mode", "pairs", "pair"),
        ("augment.cutmix_minmax", (0.5, 1.5), "cutmix_minmax"),
        ("augment.splits", 0, "splits"),
        ("loss.name", "ce", "cross_entropy"),
        ("data.reader", "webdataset", "wds"),
        ("trainer.history", 0, "history"),
        ("trainer.epochs", 0, "epochs"),
        ("trainer.batch_size", 2.5, "batch_size"),
        ("trainer.workers", -1, "workers"),
        ("trainer.precision", "fp64", "fp32"),
        ("trainer.keep", "first", "best"),
        ("trainer.monitor", "val/acc", "val/top1"),
        ("trainer.ema_decay", 1.0, "ema_decay"),
        ("name", "a/b", "name"),
    ],
)
def test_impossible_values_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        Recipe().with_options(**{key: value})


def test_options_that_would_do_nothing_are_refused():
    with pytest.raises(ConfigError, match="crop_scale"):
        AugmentSpec(crop_scale=None, crop_interpolation="bicubic")
    with pytest.raises(ConfigError, match="layer_scale_init"):
        Recipe().with_options(**{"model.layer_scale_init": 0.1, "model.checkpoint": "x"})
    with pytest.raises(ConfigError, match="even"):
        Recipe().with_options(**{"augment.mixup": 0.8, "trainer.batch_size": 7})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment.mix_mode": "elem"}, "belong to mixing"),
        ({"augment.mix_off_epoch": 3}, "belong to mixing"),
        ({"augment.mixup": 0.8, "augment.switch_prob": 0.3}, "switch_prob"),
        ({"augment.cutmix": 1.0, "augment.cutmix_minmax": (0.2, 0.8)}, "replaces augment.cutmix"),
        ({"augment.mixup": 0.8, "augment.mix_off_epoch": 100}, "100 epochs"),
        ({"augment.erasing_mode": "const"}, "erasing"),
        ({"augment.erasing": 0.2, "augment.erasing_spares_clean": True}, "splits"),
        ({"augment.splits": 3}, "equal copies"),
        ({"augment.splits": 3, "augment.erasing": 0.1, "augment.mixup": 0.8}, "blend two"),
        ({"loss.name": "jsd"}, "compares versions"),
        ({"loss.bce_threshold": 0.2}, "belong to loss.name bce"),
        ({"loss.jsd_alpha": 1.0}, "belongs to loss.name jsd"),
        ({"loss.temperature": 2.0}, "loss.teacher"),
        ({"loss.teacher": "x", "loss.distill": "hard", "loss.temperature": 2.0}, "soft distillation"),
        ({"loss.teacher": "x", "augment.splits": 2, "augment.erasing": 0.1}, "cannot be combined"),
        ({"optim.clip_norm": 1.0, "optim.clip_agc": 0.1}, "one way"),
        ({"schedule.cycle_decay": 0.5}, "schedule.cycles"),
        ({"schedule.name": "step", "schedule.cycles": 2}, "cosine, tanh, poly"),
        ({"schedule.noise_std": 1.0}, "schedule.noise"),
        ({"schedule.decay_epochs": 10}, "step, wsd"),
        ({"schedule.name": "multistep", "schedule.milestones": (50, 200)}, "earlier"),
        ({"data.prefetch": 4, "trainer.workers": 0}, "workers"),
        ({"data.reader": "wds", "augment.repeats": 2}, "one order"),
        ({"data.reader": "wds", "trainer.max_unreadable": 3}, "skips what it cannot read"),
        ({"data.reader": "tar", "data.train_images": 5}, "no effect on data.reader tar"),
        ({"data.train_split": "a"}, "no effect on image folders"),
        ({"data.reader": "hfds", "data.val_fraction": 0.1}, "no effect"),
        ({"data.path": "digits", "data.index": "x"}, "embedded digits"),
        ({"track.wandb_offline": True}, "track.wandb"),
        ({"track.mlflow_uri": "file:x"}, "track.mlflow"),
    ],
)
def test_combinations_without_effect_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Recipe().with_options(**options)


def test_cycles_make_a_run_longer():
    options = {"trainer.epochs": 10, "schedule.cycles": 3, "schedule.cooldown_epochs": 2}
    assert Recipe().with_options(**options).total_epochs == 32
    assert Recipe().with_options(**options, **{"schedule.cycle_mul": 2.0}).total_epochs == 72


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainer.eval_batch_size": 4}, "one by one"),
        ({"schedule.name": "cosine", "schedule.power": 0.9}, "power belongs to poly"),
        ({"schedule.min_lr": 1e-6}, "min_lr belongs to cosine"),
        ({"schedule.noise": (0.4, 0.9)}, "noise belongs to"),
        ({"schedule.name": "multistep", "schedule.milestones": (160_000,)}, "earlier"),
        ({"schedule.name": "wsd", "schedule.decay_steps": 0.0}, "positive"),
        ({"data.reader": "tar"}, "did you mean|known: hfds"),
        ({"data.reader": "wds"}, "give data.classes"),
        ({"data.classes": "names.txt"}, "no effect on label maps"),
        ({"data.path": "scenes", "data.check": "all"}, "digit scenes have none"),
        ({"data.reader": "wds", "data.classes": "names.txt", "trainer.max_unreadable": 3}, "skips what it cannot"),
        ({"loss.class_weights": "median"}, "balanced"),
        ({"loss.class_weights": (0.0, 0.0)}, "above 0"),
    ],
)
def test_options_that_a_segmenter_cannot_honour_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        get_recipe("light_ham_van_b0").with_options(**options)


def test_both_tasks_share_what_they_share():
    ours, theirs = (set(kind.sections()["trainer"].__dataclass_fields__) for kind in (Recipe, SegmentationRecipe))
    assert ours - theirs == {"epochs"}
    assert theirs - ours == {"steps", "val_every"}
    assert issubclass(SegmentationRecipe.sections()["optim"], OptimSpec)


def test_recipes_of_another_task_can_be_added(monkeypatch):
    monkeypatch.setattr("van.recipes.registry.KINDS", [*KINDS])
    monkeypatch.setattr("van.recipes.registry.RECIPES", dict(RECIPES))
    monkeypatch.setattr("van.recipes.registry.PRESETS_OF", dict(PRESETS_OF))

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Counting(Recipe):
        task = "counting"
        tagged = True

    def counting_digits():
        """A recipe."""
        return Counting(name="counting_digits")

    register(Counting, {"counting_digits": counting_digits})
    recipe = get_recipe("counting-digits")
    assert recipe.to_dict()["task"] == "counting"
    assert recipe_of(recipe.to_dict()) == recipe
    with pytest.raises(ConfigError, match="already"):
        register(dataclasses.make_dataclass("Other", [], bases=(Counting,), frozen=True, kw_only=True))
    with pytest.raises(ConfigError, match="there is a recipe 'finetune' already"):
        register(Counting, {"finetune": counting_digits})
    with pytest.raises(UnknownNameError, match=r"known: classification, segmentation, .*counting"):
        recipe_of({"task": "dreaming"})


@pytest.mark.parametrize("preset", CLASSIFICATION_PRESETS)
@pytest.mark.parametrize("name", ["imagenet_van_b2", "imagenet22k_van_b6", "imagenet_van_b4_from_22k_384", "finetune"])
def test_presets_keep_the_batch_and_the_rate(preset, name):
    before = get_recipe(name)
    if before.trainer.batch_size == 16 and preset == "tiny_gpu":
        before = before.with_options(**{"trainer.batch_size": 32})
    after = with_preset(before, preset)
    assert after.global_batch == before.global_batch
    assert after.trainer.batch_size * {"small_gpu": 4, "tiny_gpu": 16}[preset] == before.trainer.batch_size
    assert (after.trainer.precision, after.model.grad_checkpointing) == ("bf16", True)
    assert (after.optim, after.schedule, after.augment) == (before.optim, before.schedule, before.augment)


def test_presets_belong_to_a_task():
    with pytest.raises(
        ConfigError,
        match="belongs to segmentation, detection, instance and panoptic recipes; this one has small_gpu, tiny_gpu",
    ):
        with_preset(get_recipe("finetune"), "one_gpu")
    with pytest.raises(ConfigError, match="belongs to classification"):
        with_preset(get_recipe("light_ham_van_b0"), "tiny_gpu")
    with pytest.raises(UnknownNameError, match="did you mean 'small_gpu'"):
        with_preset(get_recipe("finetune"), "smal_gpu")
    with pytest.raises(ConfigError, match="even parts"):
        with_preset(get_recipe("imagenet_van_b0").with_options(**{"trainer.batch_size": 16}), "tiny_gpu")
