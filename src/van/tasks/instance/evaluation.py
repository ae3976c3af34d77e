"""What an evaluation of an instance segmenter shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..coco.evaluation import CocoEvaluation


@dataclass(frozen=True, kw_only=True)
class InstanceEvaluation(CocoEvaluation):
    """Average precision and recall of boxes and of masks."""

    monitored: ClassVar[str] = "mask/AP"
    figures: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75", "mask/AP", "mask/AP50", "mask/AP75")
    class_columns: ClassVar[Mapping[str, str]] = {
        "AP": "AP %",
        "AP50": "AP50 %",
        "mask/AP": "mask/AP %",
        "mask/AP50": "mask/AP50 %",
        "objects": "objects",
        "detections": "detections",
    }
