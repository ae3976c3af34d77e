"""Panoptic segmentation on COCO: Mask2Former on VAN's pyramid, 50 epochs.

Published for Mask2Former (arXiv 2112.01527, its COCO configuration): AdamW 1e-4, weight decay 0.05 except on norms, the
backbone at a tenth of the rate, gradients clipped to a norm of 0.01, 368,750 iterations (50 epochs) of 16 images with
steps at 327,778 and 355,092, warm-up of ten iterations, large-scale jitter of 0.1 … 2.0 around crops of 1024 x 1024,
mirrored half the time, mixed precision. Scores of VAN from the panoptic table of arXiv 2202.09741: B2 and B6.
Ours: drop path (0.1; B6 0.5, as its segmentation has it), steps at the ends of epochs 44 and 48 of 50 (published: 44.4
and 48.1), bfloat16, embeddings of queries and levels decay as the other matrices do.
"""

from __future__ import annotations

from collections.abc import Callable

from ..coco.augment_spec import ObjectAugmentSpec
from ..coco.schedules import STORY, WEIGHTS
from ..coco.training_spec import ObjectOptimSpec, ObjectScheduleSpec
from .spec import PanopticModelSpec, PanopticRecipe, PanopticTrainerSpec

# PQ (things / stuff) in percent. Source: arXiv 2202.09741, panoptic table.
MASK2FORMER = {"b2": "54.9 PQ (things 61.2, stuff 45.3)", "b6": "58.2 PQ (things 64.8, stuff 48.2)"}
_DROP_PATH = {"b2": 0.1, "b6": 0.5}


def _published(size: str, score: str) -> Callable[[], PanopticRecipe]:
    """A published recipe, with its story as docstring."""
    name = f"mask2former_van_{size}"

    def make() -> PanopticRecipe:
        return PanopticRecipe(
            name=name,
            model=PanopticModelSpec(name=name, drop_path_rate=_DROP_PATH[size]),
            augment=ObjectAugmentSpec(jitter=(0.1, 2.0), crop=(1024, 1024)),
            optim=ObjectOptimSpec(
                lr=1e-4, weight_decay=0.05, decayed="all_but_norms", backbone_lr_scale=0.1, clip_norm=0.01
            ),
            schedule=ObjectScheduleSpec(name="multistep", milestones=(44, 48), warmup_steps=10),
            trainer=PanopticTrainerSpec(epochs=50, devices=8, batch_size=2, precision="bf16", keep="last"),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = STORY.format(
        name=name,
        title=f"Mask2Former with VAN-{size.upper()}",
        schedule="panoptic, 50 epochs",
        score=score,
        expected=f"{score} (published)",
        weights=WEIGHTS[size],
        devices=8,
        images=2,
        batch=16,
        epochs=50,
        page="panoptic/coco",
        remark="",
    )
    return make


PANOPTIC_RECIPES: dict[str, Callable[[], PanopticRecipe]] = {
    recipe.__name__: recipe for recipe in (_published(size, score) for size, score in MASK2FORMER.items())
}
