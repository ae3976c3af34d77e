"""Detectors on COCO: RetinaNet, ATSS and GFL on VAN's pyramid, and D-FINE, the real-time detector.

RetinaNet, ATSS, GFL: schedules as recipes/coco/schedules.py describes them; scores from the tables of arXiv 2202.09741.
Published for D-FINE (arXiv 2410.13842, configuration L on COCO): AdamW 2.5e-4, betas 0.9 and 0.999, weight decay
1.25e-4 except on norms, the backbone at a twentieth of the rate, gradients clipped to a norm of 0.1, linear warm-up
over 500 iterations and a constant rate after it, moving average of the weights with a decay of 0.9999, four GPUs with
eight images each, 80 epochs, all but the last 8 with colour distortion (half the time), zooming out (half the time),
crops by overlap (0.8) and batches of 480 … 800 pixels in steps of 32 instead of 640; mirrored half the time, mixed
precision.
Ours for D-FINE: VAN as its backbone, so there is no published score; the backbone's norms are trained and do not decay
(published: frozen, as its own backbone is); drop path; every size of a batch is drawn equally often (published: 640
four times as often); bfloat16; the average of the weights is not begun afresh when the augmentation ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..coco.augment_spec import ObjectAugmentSpec
from ..coco.schedules import DROP_PATH, STORY, WEIGHTS, lska_optim, schedule_1x, schedule_3x
from ..coco.training_spec import ObjectOptimSpec, ObjectScheduleSpec
from .spec import DetectionDataSpec, DetectionRecipe, DetectionTrainerSpec, DetectorModelSpec

# AP in percent. Source: arXiv 2202.09741, tables of RetinaNet (1x) and of B2 with other heads (36 epochs).
RETINANET = {"b0": 38.8, "b1": 42.3, "b2": 44.9, "b3": 47.5}
B2_HEADS = {"atss": ("ATSS", 50.2), "gfl": ("GFL", 50.8)}


def _published(
    network: str, title: str, score: float, *, epochs: int, schedule: Callable[[], dict[str, Any]]
) -> Callable[[], DetectionRecipe]:
    """A published recipe, with its story as docstring."""
    name, size = f"{network}_{epochs // 12}x", network[-2:]

    def make() -> DetectionRecipe:
        return DetectionRecipe(
            name=name,
            model=DetectorModelSpec(name=network, drop_path_rate=DROP_PATH),
            data=DetectionDataSpec(group_shapes=True),
            optim=lska_optim(),
            trainer=DetectionTrainerSpec(epochs=epochs, devices=8, batch_size=2, keep="last"),
            **schedule(),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = STORY.format(
        name=name,
        title=f"{title} with VAN-{size.upper()}",
        schedule="1x" if epochs == 12 else f"{epochs} epochs, several scales",
        score=f"{score} AP",
        expected=f"{score} AP (published)",
        weights=WEIGHTS[size],
        devices=8,
        images=2,
        batch=16,
        epochs=epochs,
        page="coco/schedules",
        remark="",
    )
    return make


def _dfine(size: str) -> Callable[[], DetectionRecipe]:
    name = f"dfine_van_{size}"

    def make() -> DetectionRecipe:
        return DetectionRecipe(
            name=name,
            model=DetectorModelSpec(name=name, drop_path_rate=DROP_PATH),
            augment=ObjectAugmentSpec(
                photometric=0.5,
                zoom_out=0.5,
                overlap_crop=0.8,
                short_sides=tuple(range(480, 801, 32)),
                off_epoch=72,
            ),
            optim=ObjectOptimSpec(
                lr=2.5e-4, weight_decay=1.25e-4, decayed="all_but_norms", backbone_lr_scale=0.05, clip_norm=0.1
            ),
            schedule=ObjectScheduleSpec(name="constant", milestones=None, warmup_steps=500),
            trainer=DetectionTrainerSpec(
                epochs=80, devices=4, batch_size=8, ema_decay=0.9999, precision="bf16", keep="best"
            ),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = STORY.format(
        name=name,
        title=f"D-FINE with VAN-{size.upper()}",
        schedule="80 epochs",
        score="not published",
        expected="unknown, nobody has published this backbone under D-FINE",
        weights=WEIGHTS[size],
        devices=4,
        images=8,
        batch=32,
        epochs=80,
        page="detection/coco",
        remark="",
    )
    return make


DETECTION_RECIPES: dict[str, Callable[[], DetectionRecipe]] = {
    recipe.__name__: recipe
    for recipe in (
        *(
            _published(f"retinanet_van_{size}", "RetinaNet", score, epochs=12, schedule=schedule_1x)
            for size, score in RETINANET.items()
        ),
        *(
            _published(f"{method}_van_b2", title, score, epochs=36, schedule=schedule_3x)
            for method, (title, score) in B2_HEADS.items()
        ),
        *(_dfine(size) for size in ("b0", "b1", "b2")),
    )
}
