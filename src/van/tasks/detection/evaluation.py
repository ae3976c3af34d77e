"""What an evaluation of a detector shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..coco.evaluation import CocoEvaluation


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(CocoEvaluation):
    """Average precision and recall of boxes."""

    monitored: ClassVar[str] = "AP"
    figures: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    class_columns: ClassVar[Mapping[str, str]] = {
        "AP": "AP %",
        "AP50": "AP50 %",
        "AP75": "AP75 %",
        "objects": "objects",
        "detections": "detections",
    }
