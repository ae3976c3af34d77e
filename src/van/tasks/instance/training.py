"""Training of instance segmenters: images with boxes and masks, validated as `van eval` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...data.object_data import open_objects
from ...data.objects import ObjectData
from ...recipes import InstanceRecipe
from ..coco.training import BOX_COLUMNS, ObjectsTraining


class InstanceTraining(ObjectsTraining[InstanceRecipe]):
    """Training of an instance segmenter by a recipe."""

    columns: ClassVar[tuple[str, ...]] = (
        *BOX_COLUMNS,
        *(name.replace("val/", "val/mask/") for name in BOX_COLUMNS),
    )
    shown: ClassVar[Mapping[str, str]] = {"val/AP": "AP {:.2%}", "val/mask/AP": "mask AP {:.2%}"}
    masks: ClassVar[bool] = True

    def open_split(self, split: str, **options: Any) -> ObjectData:
        return open_objects(self.recipe.data.path or "", split, need_masks=True, **options)
