"""ImageNet-22K pre-training of B4 to B6, and fine-tuning on ImageNet-1K at 224² and 384².

Published (the scripts of the 22K code): pre-training on 21,841 classes with AdamW, lr 4e-3 at a batch of 8192
(64 GPUs x 64 images x 2 passes), weight decay 0.05, cosine per step to 1e-6 over 90 epochs, 5 of warm-up from 0, label
smoothing 0.1, Mixup 0.8, CutMix 1.0, RandAugment, erasing 0.25, bicubic crops, no EMA, nothing validated. Fine-tuning:
lr 5e-5 at a batch of 512 (16 GPUs x 32 at 224², 32 GPUs x 16 at 384²), weight decay 1e-8, no warm-up, 30 epochs, no
Mixup and no CutMix, drop path 0.2 (B4, B5) and 0.3 (B6). ImageNet's mean and std; crop 0.875 at 224², a plain warp to
the size at 384². Both fine-tunings start from the 22K weights.
Contradiction: the scripts pass a head scale of 0.001 and a layer-wise decay exists, but the code hands neither to the
network or the optimizer: they never acted, and are left out.
Ours: drop path 0.1 of B5 and B6 in pre-training (the script shows B4's alone); 1% of every class held out while
pre-training, the last weights kept; one device with gradient accumulation in place of many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..optim_spec import OptimSpec
from ..schedule_spec import ScheduleSpec
from .data_spec import DataSpec
from .imagenet import IMAGENET_AUGMENT
from .spec import ModelSpec, Recipe, TrainerSpec

_PRETRAIN_STORY = """VAN-{size} on ImageNet-22K, to be fine-tuned: 90 epochs.

Command: van train {name} --data.path IMAGENET22K
Hardware: published with 64 GPUs. Time: 90 epochs of 14 million images; not run by us. Expected: unpublished; what it is
for: {top1[0]}% at 224² and {top1[1]}% at 384² on ImageNet-1K after fine-tuning (published).
Published and ours: see the head of recipes/classification/imagenet22k.py. For millions of files add --data.index
FOLDER.
"""

_FINETUNE_STORY = """VAN-{size} from ImageNet-22K to ImageNet-1K at {side}²: {top1}% top-1.

Command: van train {name} --data.path IMAGENET --model.checkpoint {weights}
Hardware: published with {gpus} GPUs. Time: 30 epochs; not run by us. Expected: {top1}% (published).
Published and ours: see the head of recipes/classification/imagenet22k.py.
"""

# Top-1 after fine-tuning at 224² and 384², drop path of the fine-tuning, OpenMMLab's file of the 22K weights.
_PUBLISHED = {
    "van_b4": ((85.7, 86.6), 0.2, "van-b4_3rdparty_in21k_20220909-db926b18.pth"),
    "van_b5": ((86.3, 87.0), 0.2, "van-b5_3rdparty_in21k_20220909-18e904e3.pth"),
    "van_b6": ((86.9, 87.8), 0.3, "van-b6_3rdparty_in21k_20220909-96c2cb3a.pth"),
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _pretrain(model: str) -> Callable[[], Recipe]:
    name, (top1, _, _) = f"imagenet22k_{model}", _PUBLISHED[model]

    def make() -> Recipe:
        return Recipe(
            name=name,
            model=ModelSpec(name=model, drop_path_rate=0.1),
            data=DataSpec(size=224, crop_pct=0.875, interpolation="bicubic", mean=_MEAN, std=_STD, val_fraction=0.01),
            augment=replace(IMAGENET_AUGMENT, crop_interpolation="bicubic"),
            optim=OptimSpec(lr=4e-3, lr_batch=8192, weight_decay=0.05),
            schedule=ScheduleSpec(warmup_epochs=5, warmup_lr=0.0, min_lr=1e-6),
            trainer=TrainerSpec(epochs=90, batch_size=64, accumulate=128, keep="last"),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = _PRETRAIN_STORY.format(name=name, size=model.removeprefix("van_").upper(), top1=top1)
    return make


def _finetune(model: str, side: int) -> Callable[[], Recipe]:
    name, (top1, drop_path_rate, weights) = f"imagenet_{model}_from_22k_{side}", _PUBLISHED[model]
    small = side == 224

    def make() -> Recipe:
        eyes = {"crop_pct": 0.875, "resize": "shortest"} if small else {"crop_pct": 1.0, "resize": "squash"}
        return Recipe(
            name=name,
            model=ModelSpec(checkpoint=weights, drop_path_rate=drop_path_rate),
            data=DataSpec(size=side, interpolation="bicubic", mean=_MEAN, std=_STD, **eyes),  # type: ignore[arg-type]
            augment=replace(IMAGENET_AUGMENT, crop_interpolation="bicubic", mixup=0.0, cutmix=0.0),
            optim=OptimSpec(lr=5e-5, lr_batch=512, weight_decay=1e-8),
            schedule=ScheduleSpec(min_lr=1e-6),
            trainer=TrainerSpec(epochs=30, batch_size=32 if small else 16, accumulate=16 if small else 32),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = _FINETUNE_STORY.format(
        name=name,
        size=model.removeprefix("van_").upper(),
        side=side,
        top1=top1[not small],
        weights=weights,
        gpus=16 if small else 32,
    )
    return make


IMAGENET22K_RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        *(_pretrain(model) for model in _PUBLISHED),
        *(_finetune(model, side) for side in (224, 384) for model in _PUBLISHED),
    )
}
