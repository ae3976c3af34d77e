"""Instance segmentation's part of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..coco.report import ObjectReport
from ..report_parts import Curves


class InstanceReport(ObjectReport):
    """That of objects, with curves of their masks."""

    curves: ClassVar[tuple[Curves, ...]] = (
        Curves(
            title="average precision of masks",
            labels={"val/mask/AP": "AP", "val/mask/AP50": "AP50", "val/mask/AP75": "AP75"},
        ),
        *ObjectReport.curves,
    )
    headline: ClassVar[Mapping[str, str]] = {"val/mask/AP": "{:.2%}", "val/mask/AP50": "{:.2%}"}
