"""Every recipe on COCO field by field against what is published; the tables name where.

As in test_published_recipes.py: a field is published, ours (its page says so), or about this machine and code alone.
"""

import importlib
import inspect
from dataclasses import fields

import pytest
from recipe_fields import MACHINE, OFF, flat

from van.configs.catalog import OBJECT_MODELS
from van.recipes import RECIPES, get_recipe

DIGITS = [name for name in RECIPES if name.endswith("_digits") and hasattr(get_recipe(name).model, "min_size")]
NAMES = [name for name in RECIPES if hasattr(get_recipe(name).model, "min_size") and name not in DIGITS]

# Which file says so -> names of the head of what page the recipe points to.
LSKA = "Large-Separable-Kernel-Attention, mmdetection/configs/van and configs/_base_/schedules/schedule_1x.py"
THREE = "mmdetection 2, configs/common/mstrain_3x_coco.py, with Swin's sizes"
DFINE = "D-FINE, configs/dfine/dfine_hgnetv2_l_coco.yml and what it includes"
M2F = "Mask2Former, configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"

PLAIN = {
    "optim.name": "adamw", "optim.lr_batch": None, "optim.layer_decay": None, "optim.betas": None, "optim.eps": None,
    "optim.momentum": None, "optim.clip_value": None, "optim.clip_agc": None, "loss.weights": None,
    "augment.flip": 0.5, "schedule.warmup_epochs": 0.0, "schedule.cooldown_epochs": 0, "schedule.per": "step",
    "data.sampling": "shuffled", "data.val_fraction": None, "trainer.accumulate": 1, "trainer.batch_norm": "reduce",
    "trainer.recalibrate_images": None, "trainer.early_stopping": None, "data.check": None,
    **{f"schedule.{name}": None for name in ("power", "k_decay", "cycles", "cycle_mul", "cycle_decay")},
    **{f"schedule.{name}": None for name in ("decay_epochs", "decay_rate", "noise", "noise_limit", "noise_std")},
}  # fmt: skip
OWN_STEPS = {"augment.zoom_out": 0.0, "augment.overlap_crop": 0.0, "augment.photometric": 0.0}
MMDET = PLAIN | OWN_STEPS | {
    "optim.lr": 1e-4, "optim.weight_decay": 0.05, "optim.decayed": "everything", "optim.backbone_lr_scale": None,
    "optim.clip_norm": None, "data.group_shapes": True,
    "schedule.name": "multistep", "schedule.warmup_steps": 1000, "schedule.warmup_lr": 1e-7,
    "augment.jitter": None, "augment.crop": None, "augment.off_epoch": None, "trainer.devices": 8,
    "trainer.batch_size": 2, "trainer.precision": "fp32", "trainer.ema_decay": None, "trainer.keep": "last",
    "model.drop_path_rate": 0.1,
}  # fmt: skip
SHORT = MMDET | {"schedule.milestones": (8, 11), "trainer.epochs": 12, "augment.short_sides": None}
LONG = MMDET | {
    "schedule.milestones": (27, 33), "trainer.epochs": 36, "augment.short_sides": tuple(range(480, 801, 32)),
}  # fmt: skip
REAL_TIME = PLAIN | {
    "optim.lr": 2.5e-4, "optim.weight_decay": 1.25e-4, "optim.decayed": "all_but_norms",
    "optim.backbone_lr_scale": 0.05, "optim.clip_norm": 0.1, "schedule.name": "constant", "schedule.milestones": None,
    "schedule.warmup_steps": 500, "augment.photometric": 0.5, "augment.zoom_out": 0.5, "augment.overlap_crop": 0.8,
    "augment.jitter": None, "augment.crop": None, "augment.short_sides": tuple(range(480, 801, 32)),
    "augment.off_epoch": 72, "trainer.epochs": 80, "trainer.devices": 4, "trainer.batch_size": 8,
    "trainer.ema_decay": 0.9999, "trainer.keep": "best",
}  # fmt: skip
PANOPTIC = PLAIN | OWN_STEPS | {
    "optim.lr": 1e-4, "optim.weight_decay": 0.05, "optim.decayed": "all_but_norms", "optim.backbone_lr_scale": 0.1,
    "optim.clip_norm": 0.01, "schedule.name": "multistep", "schedule.warmup_steps": 10, "augment.jitter": (0.1, 2.0),
    "augment.crop": (1024, 1024), "augment.short_sides": None, "augment.off_epoch": None, "trainer.epochs": 50,
    "trainer.devices": 8, "trainer.batch_size": 2, "trainer.ema_decay": None, "trainer.keep": "last",
}  # fmt: skip
del PANOPTIC["data.sampling"]

# Recipe -> file, values, score of arXiv 2202.09741.
PUBLISHED = {
    **{f"retinanet_van_{size}_1x": (LSKA, SHORT, score)
       for size, score in {"b0": "38.8", "b1": "42.3", "b2": "44.9", "b3": "47.5"}.items()},
    "atss_van_b2_3x": (THREE, LONG, "50.2"),
    "gfl_van_b2_3x": (THREE, LONG, "50.8"),
    **{f"dfine_van_{size}": (DFINE, REAL_TIME, "not published") for size in ("b0", "b1", "b2")},
    **{f"mask_rcnn_van_{size}_1x": (LSKA, SHORT, score)
       for size, score in {"b0": "40.2 box AP, 37.6", "b1": "42.6 box AP, 38.9", "b2": "46.4 box AP, 41.8",
                           "b3": "48.3 box AP, 43.4"}.items()},
    "mask_rcnn_van_b2_3x": (THREE, LONG, "48.8"),
    "cascade_mask_rcnn_van_b2_3x": (THREE, LONG, "52.0"),
    "mask2former_van_b2": (M2F, PANOPTIC, "54.9 PQ (things 61.2, stuff 45.3)"),
    "mask2former_van_b6": (M2F, PANOPTIC, "58.2 PQ (things 64.8, stuff 48.2)"),
}  # fmt: skip
# Field -> what the page says of it.
OURS = {
    "model.drop_path_rate": "drop path",
    "schedule.milestones": "steps at the ends of epochs 44 and 48",
    "schedule.min_lr": "", "schedule.warmup_lr": "", "trainer.monitor": "",  # of no effect, or of best.ckpt alone
    "trainer.precision": "bfloat16",
}  # fmt: skip


def page(name):
    """What `van train NAME --help` shows, and the heads of the files it points to."""
    story = RECIPES[name].__doc__
    heads = [importlib.import_module(f"van.recipes.{part}").__doc__
             for part in ("coco.schedules", inspect.getmodule(RECIPES[name]).__name__.removeprefix("van.recipes."))
             if part.replace(".", "/") in story or part != "coco.schedules"]  # fmt: skip
    return " ".join((story + "".join(heads)).split())


@pytest.mark.promise("10")
@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_the_originals_or_said_to_be_ours(name):
    source, want, _ = PUBLISHED[name]
    got = flat(get_recipe(name))
    for field, value in want.items():
        assert got[field] == value, f"{name}: {field}, of {source}"
    network = {field for field in got if field.startswith("model.") and field != "model.drop_path_rate"}
    for field in got.keys() - want.keys() - MACHINE - network:
        if got[field] in OFF:
            continue
        assert field in OURS, f"{name}: nothing says where {field} comes from"
        assert OURS[field] in page(name), f"{name}: {field} is ours, and its page is silent"


@pytest.mark.promise("10")
@pytest.mark.parametrize("name", NAMES)
def test_stories_give_score_command_and_batch(name):
    story, recipe = RECIPES[name].__doc__, get_recipe(name)
    assert PUBLISHED[name][2] in story
    assert f"van train {name} --data.path COCO --model.checkpoint van" in story
    assert f"published with {recipe.trainer.devices} GPUs, {recipe.trainer.batch_size} images each" in story
    assert f"the batch of {recipe.global_batch}" in story
    assert f"{recipe.trainer.epochs} epochs" in story
    assert recipe.model.options().keys() == {"drop_path_rate"}  # the rest is the model's
    assert len(RECIPES[name].__doc__.splitlines()[0]) < 120


@pytest.mark.promise("10")
def test_every_published_recipe_has_its_original():
    assert set(NAMES) == PUBLISHED.keys()


@pytest.mark.parametrize("name", DIGITS)
def test_digits_recipes_say_what_they_take_and_give(name):
    story = RECIPES[name].__doc__
    for part in (f"van train {name}", "Hardware: two CPU cores", "Time: ", "Expected: ", "Ours: "):
        assert part in story


@pytest.mark.parametrize("name", sorted({get_recipe(name).model.EXAMPLE for name in NAMES}))
def test_every_field_of_the_methods_can_be_set(name):
    task = OBJECT_MODELS[name].task
    kind = next(type(get_recipe(each).model) for each in NAMES if get_recipe(each).task == task)
    settable = {item.name for item in fields(kind)}
    given_by_the_data = {"num_classes", "num_things"}
    for config in (each for each in OBJECT_MODELS.values() if each.task == task):
        assert set(config.own_fields()) - given_by_the_data <= settable, config.method
