"""The schedules of COCO that several recipes follow, and what their stories say alike.

Published by LSKA (arXiv 2309.01439, mmdetection/configs/van of its code), which trained VAN's family on COCO: AdamW
1e-4, betas 0.9 and 0.999, weight decay 0.05 on everything, drop path 0.1, BatchNorm trained in the backbone
(norm_eval=False), linear warm-up of 1,000 iterations from a thousandth of the rate, 12 epochs with steps at 8 and 11,
eight GPUs with two images each, both wide or both tall, images of 1333 x 800, mirrored half the time. VAN's own
configurations were never published; the paper names schedule 1x, and for B2 36 epochs with multi-scale training.
Published with the longer schedule (mmdetection's 3x, which Swin and ConvNeXt use with AdamW): 36 epochs with steps at
27 and 33, short sides of 480 … 800 in steps of 32, long ones at most 1333.
Ours: that LSKA's settings hold for VAN too, drop path 0.1 for all sizes, and the 3x schedule with LSKA's optimizer.
Images without objects are trained on too (mmdetection leaves them out); resizing, the drawing of samples and losses are
those of the heads' libraries.
"""

from __future__ import annotations

from typing import Any

from .augment_spec import ObjectAugmentSpec
from .training_spec import ObjectOptimSpec, ObjectScheduleSpec

DROP_PATH = 0.1
WEIGHTS = {
    "b0": "van_tiny_754.pth.tar",
    "b1": "van_small_811.pth.tar",
    "b2": "van_base_828.pth.tar",
    "b3": "van_large_839.pth.tar",
    "b6": "van-b6_3rdparty_in21k_20220909-96c2cb3a.pth",
}
STORY = """{title} on COCO, {schedule}: {score}.

Command: van train {name} --data.path COCO --model.checkpoint {weights}
Hardware: published with {devices} GPUs, {images} images each; with fewer, accumulation keeps the batch of {batch}
(--preset one_gpu, --preset small_gpu). Time: {epochs} epochs; not run by us. Expected: {expected}.
Published and ours: see the head of recipes/{page}.py.{remark}
"""


def lska_optim() -> ObjectOptimSpec:
    """AdamW as LSKA trained VAN's family on COCO."""
    return ObjectOptimSpec(lr=1e-4, weight_decay=0.05, decayed="everything")


def schedule_1x() -> dict[str, Any]:
    """12 epochs: the sections `schedule` and `augment`."""
    return {
        "schedule": ObjectScheduleSpec(name="multistep", milestones=(8, 11), warmup_steps=1000),
        "augment": ObjectAugmentSpec(),
    }


def schedule_3x() -> dict[str, Any]:
    """36 epochs of several scales: the sections `schedule` and `augment`."""
    return {
        "schedule": ObjectScheduleSpec(name="multistep", milestones=(27, 33), warmup_steps=1000),
        "augment": ObjectAugmentSpec(short_sides=tuple(range(480, 801, 32))),
    }
