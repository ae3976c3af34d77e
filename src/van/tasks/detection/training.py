"""Training of detectors: images with boxes, validated as `van eval` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...data.object_data import open_objects
from ...data.objects import ObjectData
from ...recipes import DetectionRecipe
from ..coco.training import BOX_COLUMNS, ObjectsTraining


class DetectionTraining(ObjectsTraining[DetectionRecipe]):
    """Training of a detector by a recipe."""

    columns: ClassVar[tuple[str, ...]] = BOX_COLUMNS
    shown: ClassVar[Mapping[str, str]] = {"val/AP": "AP {:.2%}", "val/AP50": "AP50 {:.2%}"}

    def open_split(self, split: str, **options: Any) -> ObjectData:
        return open_objects(self.recipe.data.path or "", split, **options)
