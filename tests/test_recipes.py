"""Recipes as data: published values, round trips, and nothing impossible or misspelt gets through."""

import dataclasses

import pytest

from van.errors import ConfigError, UnknownNameError
from van.recipes import RECIPES, AugmentSpec, Recipe, get_recipe, recipe_of, summary


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


@pytest.mark.parametrize(("name", "drop_path"), [("van_b0", 0.1), ("van_b1", 0.1), ("van_b2", 0.1), ("van_b3", 0.2)])
def test_imagenet_recipes_hold_the_published_values(name, drop_path):
    r = get_recipe(f"imagenet_{name}")
    assert (r.model.name, r.model.drop_path_rate) == (name, drop_path)
    assert (r.optim.name, r.optim.lr, r.optim.lr_batch, r.optim.weight_decay) == ("adamw", 1e-3, 1024, 0.05)
    assert r.global_batch == 1024
    assert r.optim.scaled_lr(r.global_batch) == 1e-3
    s = r.schedule
    assert (s.name, s.warmup_epochs, s.warmup_lr, s.min_lr, s.cooldown_epochs) == ("cosine", 5, 1e-6, 1e-6, 10)
    assert (r.trainer.epochs, r.total_epochs, r.trainer.ema_decay) == (300, 310, None)
    a = r.augment
    assert (a.label_smoothing, a.mixup, a.cutmix, a.switch_prob, a.mix_prob) == (0.1, 0.8, 1.0, 0.5, 1.0)
    assert (a.auto_augment, a.erasing, a.erasing_mode) == ("rand-m9-mstd0.5-inc1", 0.25, "pixel")
    assert (a.crop_scale, a.hflip, a.color_jitter) == ((0.08, 1.0), 0.5, 0.0)
    assert r.data.mean == r.data.std == (0.5, 0.5, 0.5)
    assert (r.data.size, r.data.crop_pct, r.data.interpolation) == (224, 0.9, "bicubic")


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
