"""Semantic segmentation on ADE20K as published, on digit scenes, and the same on smaller machines.

Published for Light-Ham and HamNet (configurations of Enjoy-Hamburger's seg_light_ham, 2022-03 and 2022-04) and for
UperNet (those of VAN-Segmentation, the tree of 2022-07): 160,000 iterations, AdamW 6e-5, betas 0.9 and 0.999, weight
decay 0.01 on all parameters but the backbone's norms, linear warm-up over 1500 iterations from a millionth of the rate,
poly decay of power 1, crops of 512 from images scaled 0.5 … 2.0 around a short side of 512, class-ratio cap 0.75, flip,
photometric distortion, auxiliary loss 0.4 (HamNet, UperNet), SyncBN, eight GPUs with two images each (HamNet, and
UperNet with B4: four), validation every 16,000 iterations, the last weights kept. Drop path 0.1; B3 0.25 (UperNet 0.3),
B4 0.4 (Light-Ham: 0.4, and 0.3 since its score was published), B5 0.4, B6 0.5.
Published for Semantic FPN (VAN-Segmentation, the tree of 2022-07): 40,000 iterations, AdamW 2e-4, weight decay 1e-4 on
everything, no warm-up, poly 0.9, eight GPUs with four images each, validation every 4,000 iterations, drop path 0.2, B3
0.3, B4 0.4. The tree of 2022-03, whose files the scores link to, sets no drop path, and its code then took 0.1 for
every size: --model.drop_path_rate 0.1.
Published scores are of multi-scale and mirrored tests (`van eval … --scales 0.5,0.75,1,1.25,1.5,1.75 --flip`), those
of Semantic FPN of single-scale ones; sides are rounded up to a multiple of 32, those of HamNet are left alone.
Ours: validations see what the test sees, so those of Light-Ham round sides to 32, which the published ones did not (its
test did). best.ckpt, the best by mIoU, stays beside the last weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...configs.segmenter import SEGMENTERS
from ..schedule_spec import StepScheduleSpec
from .loss_spec import SegmentationLossSpec
from .spec import (
    SegmentationAugmentSpec,
    SegmentationDataSpec,
    SegmentationModelSpec,
    SegmentationOptimSpec,
    SegmentationRecipe,
    SegmentationTrainerSpec,
)

_STORY = """{title} on ADE20K as published: {score}.

Command: van train {name} --data.path ADE20K --model.checkpoint {weights}
Hardware: published with eight GPUs, {images} images each; with fewer, accumulation keeps the batch of {batch}
(--preset one_gpu, --preset small_gpu). Time: {steps:,} iterations; not run by us. Expected: {score} (published).
Published and ours: see the head of recipes/segmentation/ade20k.py.{remark}
"""

# mIoU in percent; None: not published. Source: the tables of arXiv 2202.09741 and of the VAN segmentation code.
_WEIGHTS = {
    "b0": "van_tiny_754.pth.tar",
    "b1": "van_small_811.pth.tar",
    "b2": "van_base_828.pth.tar",
    "b3": "van_large_839.pth.tar",
    "b4": "van-b4_3rdparty_in1k_20220909-f4665b92.pth",
}
_WEIGHTS_22K = {
    "b4": "van-b4_3rdparty_in21k_20220909-db926b18.pth",
    "b5": "van-b5_3rdparty_in21k_20220909-18e904e3.pth",
    "b6": "van-b6_3rdparty_in21k_20220909-96c2cb3a.pth",
}
_LIGHT_HAM = {"b0_d256": "40.9", "b0": "42.3", "b1": "45.7", "b2": "49.6", "b3": "51.0", "b4": "51.5"}
_HAMNET = {"b0": "41.5", "b1": "45.1", "b2": "48.7", "b3": "50.2"}
_UPERNET = {"b0": "41.1", "b1": "44.9", "b2": "50.1", "b3": "50.6", "b4": "52.2"}
_UPERNET_FIRST = {"b2": "48.3", "b3": "50.1"}
_UPERNET_22K = {"b4": "53.5", "b5": "53.9", "b6": "54.7"}
_SEMANTIC_FPN = {"b0": "38.5", "b1": "42.9", "b2": "46.7", "b3": "48.1", "b4": None}


def light_ham_digits() -> SegmentationRecipe:
    """A small Light-Ham from scratch on the digit scenes: segmentation end to end on a CPU, no download.

    Command: van train light_ham_digits
    Hardware: two CPU cores, of which it uses one. Time: 6 minutes of CPU. Expected: 68% mIoU on the 400 held-out
    scenes; the best classifier of single pixels reaches 12%.
    Published: nothing of it. Ours: everything; background counts 0.3, which makes it learn the digits apart sooner.
    """
    return SegmentationRecipe(
        name="light_ham_digits",
        model=SegmentationModelSpec(
            name="light_ham_van_b0_d256",
            embed_dims=(32, 64, 96, 128),
            depths=(1, 1, 2, 1),
            mlp_ratios=(4, 4, 4, 4),
            strides=(4, 1, 2, 2),
            kernel_size=9,
            dilation=2,
            channels=96,
            ham_channels=96,
            auxiliary=True,
            auxiliary_channels=32,
            drop_path_rate=0.0,
            drop_rate=0.0,
            layer_scale_init=0.1,
        ),
        data=SegmentationDataSpec(path="scenes", resize=None),
        augment=SegmentationAugmentSpec(
            crop=(64, 64), scale=(0.85, 1.2), max_class_share=1.0, flip=0.0, photometric=False
        ),
        loss=SegmentationLossSpec(class_weights=(0.3, *(1.0,) * 10), average="labelled"),
        optim=SegmentationOptimSpec(lr=2e-3, weight_decay=0.05, decayed="matrices"),
        schedule=StepScheduleSpec(power=1.0, warmup_steps=100, warmup_ratio=0.01),
        trainer=SegmentationTrainerSpec(
            steps=1600,
            val_every=400,
            batch_size=16,
            channels_last=True,
            workers=0,
            threads=1,  # maps this small are slower on two
            keep="last",
            device="cpu",
            log_every_steps=20,
        ),
    )


def _recipe(name: str, network: str, **options: Any) -> Callable[[], SegmentationRecipe]:
    """A published recipe, with its story as docstring. options: what the story needs."""
    semantic_fpn = network.startswith("semantic_fpn")
    images = 4 if network.startswith(("hamnet", "semantic_fpn", "upernet_van_b4")) else 2
    steps, val_every = (40_000, 4_000) if semantic_fpn else (160_000, 16_000)

    def make() -> SegmentationRecipe:
        drop_path = SEGMENTERS[network].backbone.drop_path_rate
        return SegmentationRecipe(
            name=name,
            model=SegmentationModelSpec(name=network, drop_path_rate=drop_path),
            optim=SegmentationOptimSpec(lr=2e-4, weight_decay=1e-4, decayed="everything")
            if semantic_fpn
            else SegmentationOptimSpec(),
            schedule=StepScheduleSpec(power=0.9, warmup_steps=0) if semantic_fpn else StepScheduleSpec(),
            trainer=SegmentationTrainerSpec(
                steps=steps, val_every=val_every, devices=8, batch_size=images, keep="last"
            ),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = _STORY.format(name=name, images=images, batch=8 * images, steps=steps, **options)
    return make


def _published() -> list[Callable[[], SegmentationRecipe]]:
    recipes = []
    for size, score in _LIGHT_HAM.items():
        title = f"Light-Ham with VAN-{size.upper().replace('_', ', ')}"
        remark = "\nDrop path 0.3; the first published configuration had 0.4." if size == "b4" else ""
        recipes.append(_ade(f"light_ham_van_{size}", title, score, _WEIGHTS[size[:2]], remark))
    for size, score in _HAMNET.items():
        title = f"HamNet, output stride 8, with VAN-{size.upper()}"
        recipes.append(_ade(f"hamnet_van_{size}", title, score, _WEIGHTS[size]))
    for size, score in _UPERNET.items():
        first = _UPERNET_FIRST.get(size)
        remark = f"\nThe paper's first version gives {first}% mIoU, later ones {score}%." if first else ""
        recipes.append(_ade(f"upernet_van_{size}", f"UperNet with VAN-{size.upper()}", score, _WEIGHTS[size], remark))
    for size, score in _UPERNET_22K.items():
        title = f"UperNet with VAN-{size.upper()} from ImageNet-22K"
        recipes.append(_ade(f"upernet_van_{size}", title, score, _WEIGHTS_22K[size], name=f"upernet_van_{size}_22k"))
    for size, fpn_score in _SEMANTIC_FPN.items():
        title, remark = f"Semantic FPN with VAN-{size.upper()}", "\nConfiguration: the tree of 2022-07."
        if size != "b4":
            remark += " The tree of 2022-03 sets no drop path, and its code took 0.1."
        recipes.append(_ade(f"semantic_fpn_van_{size}", title, fpn_score, _WEIGHTS[size], remark))
    return recipes


def _ade(
    network: str, title: str, score: str | None, weights: str, remark: str = "", *, name: str | None = None
) -> Callable[[], SegmentationRecipe]:
    scored = "score unpublished" if score is None else f"{score}% mIoU"
    return _recipe(name or network, network, title=title, score=scored, weights=weights, remark=remark)


SEGMENTATION_RECIPES: dict[str, Callable[[], SegmentationRecipe]] = {
    recipe.__name__: recipe for recipe in (light_ham_digits, *_published())
}
