"""Every published recipe field by field against the configuration it follows; the tables name the original files.

A field of a recipe is in one of three lists: published (its value is the original's), ours (the recipe's page says so
and why), or about this machine and this code alone. A field in none of them fails.
"""

import inspect

import pytest
import torch
from recipe_fields import MACHINE, OFF, flat

from van.configs.segmenter import SEGMENTERS
from van.recipes import RECIPES, get_recipe

OWN = ("digits_van_b0", "finetune", "finetune_few", "finetune_head", "light_ham_digits")
OBJECTS = ("detection", "instance", "panoptic")  # whose tables are in test_published_object_recipes.py
PUBLISHED_NAMES = [name for name in RECIPES if name not in OWN and get_recipe(name).task not in OBJECTS]

# --- segmentation ---

HAM = "Enjoy-Hamburger 2022-04, seg_light_ham/configs/ham/hamnet_{}_512x512_160k_ade20k.py"
UPERNET = "VAN-Segmentation 2022-07, configs/upernet/{}_pretrained/upernet_van_{}_512x512_160k_ade20k{}.py"
FPN = "VAN-Segmentation 2022-07, configs/sem_fpn/fpn_van_{}_ade20k_40k.py"

# Recipe -> file, images per GPU, drop path.
SEGMENTATION = {
    "light_ham_van_b0_d256": (HAM.format("light_van_tiny_d256"), 2, 0.1),
    "light_ham_van_b0": (HAM.format("light_van_tiny"), 2, 0.1),
    "light_ham_van_b1": (HAM.format("light_van_small"), 2, 0.1),
    "light_ham_van_b2": (HAM.format("light_van_base"), 2, 0.1),
    "light_ham_van_b3": (HAM.format("light_van_large"), 2, 0.25),
    "light_ham_van_b4": (HAM.format("light_van_huge"), 2, 0.3),  # 0.4 in 2022-03, before there was a score
    "hamnet_van_b0": (HAM.format("van_tiny"), 4, 0.1),
    "hamnet_van_b1": (HAM.format("van_small"), 4, 0.1),
    "hamnet_van_b2": (HAM.format("van_base"), 4, 0.1),
    "hamnet_van_b3": (HAM.format("van_large"), 4, 0.25),
    "upernet_van_b0": (UPERNET.format("1k", "b0", ""), 2, 0.1),
    "upernet_van_b1": (UPERNET.format("1k", "b1", ""), 2, 0.1),
    "upernet_van_b2": (UPERNET.format("1k", "b2", ""), 2, 0.1),
    "upernet_van_b3": (UPERNET.format("1k", "b3", ""), 2, 0.3),
    "upernet_van_b4": (UPERNET.format("1k", "b4", ""), 4, 0.4),
    "upernet_van_b4_22k": (UPERNET.format("22k", "b4", "_22k"), 4, 0.4),
    "upernet_van_b5_22k": (UPERNET.format("22k", "b5", "_22k"), 2, 0.4),
    "upernet_van_b6_22k": (UPERNET.format("22k", "b6", "_22k"), 2, 0.5),
    "semantic_fpn_van_b0": (FPN.format("b0"), 4, 0.2),
    "semantic_fpn_van_b1": (FPN.format("b1"), 4, 0.2),
    "semantic_fpn_van_b2": (FPN.format("b2"), 4, 0.2),
    "semantic_fpn_van_b3": (FPN.format("b3"), 4, 0.3),
    "semantic_fpn_van_b4": (FPN.format("b4"), 4, 0.4),
}

# configs/_base_/datasets/ade20k.py, the same in both trees, and what the code does with it.
PIPELINE = {
    "data.resize": (2048, 512), "data.window": None, "data.stride": None, "data.val_fraction": None,
    "data.mean": None, "data.std": None,  # the checkpoint's, else ImageNet's: 123.675 … and 58.395 … of 255
    "data.size_divisor": None,  # the method's own, see test_size_divisor.py
    "augment.crop": (512, 512), "augment.scale": (0.5, 2.0), "augment.max_class_share": 0.75,
    "augment.flip": 0.5, "augment.vflip": 0.0, "augment.photometric": True,
    "loss.auxiliary_weight": 0.4, "loss.class_weights": None, "loss.average": "pixels",
    "loss.cross_entropy": 1.0, "loss.dice": 0.0, "loss.lovasz": 0.0,
    "loss.focal": 0.0, "loss.focal_gamma": None, "loss.focal_alpha": None,
    "loss.ohem_threshold": None, "loss.ohem_min_kept": None, "loss.ohem_top_k": None,
    "optim.name": "adamw", "optim.lr_batch": None, "optim.layer_decay": None,
    "optim.betas": None, "optim.eps": None, "optim.momentum": None,  # AdamW's own: 0.9, 0.999 and 1e-8
    "optim.clip_norm": None, "optim.clip_value": None, "optim.clip_agc": None,
    "trainer.devices": 8, "trainer.accumulate": 1, "trainer.batch_norm": "sync", "trainer.recalibrate_images": None,
    "trainer.precision": "fp32", "trainer.keep": "last", "trainer.early_stopping": None,
}  # fmt: skip
# In the files of Light-Ham, HamNet and UperNet, and in mmseg's schedule_160k.py that they start from.
SCHEDULE_160K = {
    "optim.lr": 6e-5, "optim.weight_decay": 0.01, "optim.decayed": "all_but_backbone_norms",
    "schedule.name": "poly", "schedule.power": 1.0, "schedule.warmup_steps": 1500, "schedule.warmup_ratio": 1e-6,
    "trainer.steps": 160_000, "trainer.val_every": 16_000,
}  # fmt: skip
# In fpn_van_b2_ade20k_40k.py, which the other sizes start from: gpu_multiples is 2.
SCHEDULE_40K = {
    "optim.lr": 2e-4, "optim.weight_decay": 1e-4, "optim.decayed": "everything",
    "schedule.name": "poly", "schedule.power": 0.9,
    "schedule.warmup_steps": 0, "schedule.warmup_ratio": 1e-6,  # without a warm-up, the ratio has no effect
    "trainer.steps": 40_000, "trainer.val_every": 4_000,
}  # fmt: skip

# --- classification ---

TRAIN = "VAN-Classification, train.sh and the defaults of train.py"
CODE_22K = "VAN-Classification of the 22K weights, ImageNet-22k/{} and the defaults of main.py"

PLAIN = {
    "model.in_chans": None, "optim.layer_decay": None, "optim.betas": None, "optim.eps": None, "optim.momentum": None,
    "optim.clip_norm": None, "optim.clip_value": None, "optim.clip_agc": None, "optim.name": "adamw",
    "augment.crop_scale": (0.08, 1.0), "augment.crop_ratio": None, "augment.rotate_degrees": 0.0, "augment.shift": 0.0,
    "augment.zoom": None, "augment.hflip": 0.5, "augment.vflip": 0.0, "augment.auto_augment": "rand-m9-mstd0.5-inc1",
    "augment.color_jitter": 0.0,  # 0.4, which timm leaves out beside a policy
    "augment.erasing": 0.25, "augment.erasing_mode": "pixel", "augment.erasing_count": 1, "augment.repeats": 1,
    "augment.splits": 1, "augment.erasing_spares_clean": False, "augment.cutmix_minmax": None, "augment.mix_prob": 1.0,
    "augment.switch_prob": 0.5, "augment.mix_mode": "batch", "augment.mix_off_epoch": None,
    "augment.label_smoothing": 0.1, "schedule.name": "cosine", "schedule.min_lr": 1e-6, "schedule.power": None,
    "data.size": 224, "data.interpolation": "bicubic", "trainer.precision": "fp32",
    "trainer.batch_norm": "reduce", "trainer.recalibrate_images": None, "trainer.early_stopping": None,
    "trainer.monitor": "val/top1",
    **{f"schedule.{name}": None for name in ("k_decay", "cycles", "cycle_mul", "cycle_decay", "decay_epochs")},
    **{f"schedule.{name}": None for name in ("milestones", "decay_rate", "noise", "noise_limit", "noise_std")},
}  # fmt: skip
IMAGENET = PLAIN | {
    "optim.lr": 1e-3, "optim.lr_batch": 1024, "optim.weight_decay": 0.05,
    "augment.crop_interpolation": None,  # random
    "augment.mixup": 0.8, "augment.cutmix": 1.0, "schedule.warmup_epochs": 5, "schedule.warmup_lr": 1e-6,
    "schedule.cooldown_epochs": 10, "schedule.per": "epoch", "data.crop_pct": 0.9, "data.resize": None,
    "data.mean": (0.5, 0.5, 0.5), "data.std": (0.5, 0.5, 0.5), "data.val_fraction": None,
    "trainer.epochs": 300, "trainer.batch_size": 128, "trainer.ema_decay": None, "trainer.keep": "best",
}  # fmt: skip
STATISTICS = {"data.mean": (0.485, 0.456, 0.406), "data.std": (0.229, 0.224, 0.225)}
PRETRAIN = PLAIN | STATISTICS | {
    "optim.lr": 4e-3, "optim.lr_batch": 8192, "optim.weight_decay": 0.05, "augment.crop_interpolation": "bicubic",
    "augment.mixup": 0.8, "augment.cutmix": 1.0, "schedule.warmup_epochs": 5, "schedule.warmup_lr": 0.0,
    "schedule.cooldown_epochs": 0, "schedule.per": "step", "data.crop_pct": 0.875, "data.resize": None,
    "trainer.epochs": 90, "trainer.batch_size": 64, "trainer.ema_decay": None,
}  # fmt: skip
FINETUNE = PLAIN | STATISTICS | {
    "optim.lr": 5e-5, "optim.lr_batch": 512, "optim.weight_decay": 1e-8, "augment.crop_interpolation": "bicubic",
    "augment.mixup": 0.0, "augment.cutmix": 0.0, "schedule.warmup_epochs": 0, "schedule.warmup_lr": 1e-6,
    "schedule.cooldown_epochs": 0, "schedule.per": "step", "data.val_fraction": None,
    "trainer.epochs": 30, "trainer.ema_decay": None, "trainer.keep": "best",
}  # fmt: skip
AT_224 = {"data.size": 224, "data.crop_pct": 0.875, "data.resize": "shortest", "trainer.batch_size": 32}
AT_384 = {"data.size": 384, "data.crop_pct": 1.0, "data.resize": "squash", "trainer.batch_size": 16}

# Recipe -> file, global batch, values.
CLASSIFICATION = {
    **{f"imagenet_van_b{i}": (TRAIN, 1024, IMAGENET | {"model.drop_path_rate": p})
       for i, p in enumerate((0.1, 0.1, 0.1, 0.2))},
    # the paper, section 4.1: another rate, and an average
    **{f"imagenet_van_b{i}_paper": (TRAIN, 1024, IMAGENET | {"model.drop_path_rate": p, "optim.lr": 5e-4})
       for i, p in enumerate((0.1, 0.1, 0.1, 0.2))},
    "imagenet_van_b4": (TRAIN, 1024, IMAGENET),
    "imagenet_van_b4_paper": (TRAIN, 1024, IMAGENET | {"optim.lr": 5e-4}),
    "imagenet22k_van_b4": (CODE_22K.format("train.sh"), 8192, PRETRAIN | {"model.drop_path_rate": 0.1}),
    "imagenet22k_van_b5": (CODE_22K.format("train.sh"), 8192, PRETRAIN),
    "imagenet22k_van_b6": (CODE_22K.format("train.sh"), 8192, PRETRAIN),
    **{f"imagenet_van_b{i}_from_22k_224": (CODE_22K.format("finetune.sh"), 512,
                                           FINETUNE | AT_224 | {"model.drop_path_rate": p})
       for i, p in ((4, 0.2), (5, 0.2), (6, 0.3))},
    **{f"imagenet_van_b{i}_from_22k_384": (CODE_22K.format("finetune_384.sh"), 512,
                                           FINETUNE | AT_384 | {"model.drop_path_rate": p})
       for i, p in ((4, 0.2), (5, 0.2), (6, 0.3))},
}  # fmt: skip

# Field -> what the page of the recipe (its own text or the head of its file) says of it.
OURS = {
    "trainer.accumulate": "gradient accumulation",
    "trainer.devices": "one device with gradient accumulation",
    "trainer.ema_decay": "decay of the average is not published",  # of the _paper recipes
    "model.drop_path_rate": "Ours:",  # B4's, and B5's and B6's in pre-training
    "data.val_fraction": "held out",
    "trainer.keep": "last weights kept",  # of pre-training, which validated nothing
    "trainer.monitor": "best.ckpt",  # of segmentation: mmseg chose none
}


def page(name):
    """What `van train NAME --help` shows, and the head of the file it points to."""
    return RECIPES[name].__doc__ + inspect.getmodule(RECIPES[name]).__doc__


def published(name):
    """The file of the original and its values."""
    if name in CLASSIFICATION:
        source, _, values = CLASSIFICATION[name]
        return source, values
    source, images, drop_path = SEGMENTATION[name]
    schedule = SCHEDULE_40K if name.startswith("semantic_fpn") else SCHEDULE_160K
    return source, PIPELINE | schedule | {"trainer.batch_size": images, "model.drop_path_rate": drop_path}


@pytest.mark.promise("10")
@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_every_field_is_the_originals_or_said_to_be_ours(name):
    source, want = published(name)
    got = flat(get_recipe(name))
    for field, value in want.items():
        if field in OURS and got[field] != value:
            assert OURS[field] in " ".join(page(name).split()), f"{name}: {field} is ours, and its page is silent"
        else:
            assert got[field] == value, f"{name}: {field}, of {source}"
    network = {field for field in got if field.startswith("model.") and field != "model.drop_path_rate"}
    left = got.keys() - want.keys() - MACHINE - network
    for field in left:
        if got[field] in OFF or (field, got[field]) == ("loss.name", "cross_entropy"):
            continue
        assert field in OURS, f"{name}: nothing says where {field} comes from"
        assert OURS[field] in " ".join(page(name).split()), f"{name}: {field} is ours, and its page is silent"


@pytest.mark.promise("10")
def test_every_published_recipe_has_its_original():
    assert set(PUBLISHED_NAMES) == CLASSIFICATION.keys() | SEGMENTATION.keys()


@pytest.mark.promise("10")
@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_the_global_batch_and_the_network_are_the_originals(name):
    recipe = get_recipe(name)
    if name in CLASSIFICATION:
        assert recipe.global_batch == CLASSIFICATION[name][1]
        return
    assert recipe.global_batch == 8 * SEGMENTATION[name][1]
    segmenter = name.removesuffix("_22k")
    assert recipe.model.name == segmenter
    # what `van.create_model` builds drops as many paths as the recipe does
    assert SEGMENTERS[segmenter].backbone.drop_path_rate == SEGMENTATION[name][2]
    options = recipe.model.options()
    assert options == {"drop_path_rate": SEGMENTATION[name][2]}  # the rest is the segmenter's, which parity tests hold
    assert SEGMENTERS[segmenter].drop_rate == 0.1


@pytest.mark.promise("10")
def test_what_the_tables_take_for_granted():
    defaults = torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).defaults
    assert (defaults["betas"], defaults["eps"]) == ((0.9, 0.999), 1e-8)
    for name in ("semantic_fpn_van_b0", "semantic_fpn_van_b1"):
        assert all(tree in RECIPES[name].__doc__ for tree in ("2022-07", "2022-03"))
    assert "0.4" in RECIPES["light_ham_van_b4"].__doc__
    for name in ("upernet_van_b4", "upernet_van_b4_22k"):
        assert "four" not in RECIPES[name].__doc__
        assert "4 images each" in RECIPES[name].__doc__
