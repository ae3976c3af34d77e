"""Options of panoptic segmentation. Segments of several views cannot be joined, so that there are no views."""

from __future__ import annotations

from dataclasses import dataclass

from .. import base
from ..coco.options import OUTPUT, PictureOptions, SizeOptions
from ..options import option


@dataclass(frozen=True, kw_only=True)
class PredictOptions(SizeOptions, PictureOptions):
    """Options of prediction."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions(SizeOptions, base.EvalOptions):
    """Options of evaluation. out: folder for the results in COCO's formats."""

    out: str | None = option(
        None, "folder: results in COCO's formats: panoptic/ (PNG), panoptic.json", group=OUTPUT, single=True
    )
