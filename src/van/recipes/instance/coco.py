"""Instance segmentation on COCO: Mask R-CNN and Cascade Mask R-CNN on VAN's pyramid.

Schedules as recipes/coco/schedules.py describes them; scores from the tables of arXiv 2202.09741, of boxes and masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..coco.schedules import DROP_PATH, STORY, WEIGHTS, lska_optim, schedule_1x, schedule_3x
from .spec import InstanceDataSpec, InstanceModelSpec, InstanceRecipe, InstanceTrainerSpec

# AP in percent. Source: arXiv 2202.09741, tables of Mask R-CNN (1x) and of B2 with other heads (36 epochs).
MASK_RCNN = {"b0": "40.2 box AP, 37.6 mask AP", "b1": "42.6 box AP, 38.9 mask AP", "b2": "46.4 box AP, 41.8 mask AP",
             "b3": "48.3 box AP, 43.4 mask AP"}  # fmt: skip
B2_36_EPOCHS = {"mask_rcnn": "48.8 box AP", "cascade_mask_rcnn": "52.0 box AP"}
_TITLES = {"mask_rcnn": "Mask R-CNN", "cascade_mask_rcnn": "Cascade Mask R-CNN"}


def _published(
    method: str, size: str, score: str, *, epochs: int, schedule: Callable[[], dict[str, Any]]
) -> Callable[[], InstanceRecipe]:
    """A published recipe, with its story as docstring."""
    name = f"{method}_van_{size}_{epochs // 12}x"

    def make() -> InstanceRecipe:
        return InstanceRecipe(
            name=name,
            model=InstanceModelSpec(name=f"{method}_van_{size}", drop_path_rate=DROP_PATH),
            data=InstanceDataSpec(group_shapes=True),
            optim=lska_optim(),
            trainer=InstanceTrainerSpec(epochs=epochs, devices=8, batch_size=2, keep="last"),
            **schedule(),
        )

    make.__name__ = make.__qualname__ = name
    make.__doc__ = STORY.format(
        name=name,
        title=f"{_TITLES[method]} with VAN-{size.upper()}",
        schedule="1x" if epochs == 12 else f"{epochs} epochs, several scales",
        score=score,
        expected=f"{score} (published)",
        weights=WEIGHTS[size],
        devices=8,
        images=2,
        batch=16,
        epochs=epochs,
        page="coco/schedules",
        remark="",
    )
    return make


INSTANCE_RECIPES: dict[str, Callable[[], InstanceRecipe]] = {
    recipe.__name__: recipe
    for recipe in (
        *(_published("mask_rcnn", size, score, epochs=12, schedule=schedule_1x) for size, score in MASK_RCNN.items()),
        *(_published(method, "b2", score, epochs=36, schedule=schedule_3x) for method, score in B2_36_EPOCHS.items()),
    )
}
