"""Options of classification: what to override of the preprocessing, what to list, how labels meet classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...images.preprocess import Preprocess
from .. import base
from ..options import option, per_channel, side_or_sides

GROUP = "preprocessing (default: the checkpoint's own)"


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """What the network gets of an image.

    size, crop_pct, interpolation, mean, std, resize: override the checkpoint's preprocessing.
    test_time_pool: pool over windows of the training size.
    """

    size: int | tuple[int, int] | None = option(
        None, "pixels: 224, or height x width: 224x320", parse=side_or_sides, group=GROUP
    )
    crop_pct: float | None = option(
        None, "share of the resized image that the centre crop keeps", kind=float, group=GROUP
    )
    interpolation: str | None = option(None, "nearest, bilinear, bicubic or lanczos", group=GROUP)
    mean: Sequence[float] | None = option(
        None, "per channel, 0 … 1, with commas: 0.485,0.456,0.406", parse=per_channel("--mean"), group=GROUP
    )
    std: Sequence[float] | None = option(
        None, "per channel, 0 … 1, with commas: 0.229,0.224,0.225", parse=per_channel("--std"), group=GROUP
    )
    resize: str | None = option(None, "shortest (then a centre crop) or squash", group=GROUP)
    test_time_pool: bool = option(
        False, "for images larger than the network was made for: pool over windows", kind=bool, network=True
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """The options that are fields of Preprocess; None keeps the checkpoint's."""
        return {each.name: getattr(self, each.name) for each in fields(Preprocess)}


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ViewOptions):
    """Options of prediction. top: how many classes a prediction lists."""

    top: int = option(5, "classes to list per image", kind=int)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"top is {self.top}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ViewOptions, base.EvalOptions):
    """Options of evaluation.

    split: None means val, but all of a folder of class folders that is called val, validation or test, or that comes
        with real labels, a subset or a class map.
    real_labels: JSON list of label lists in the order of ILSVRC2012_val_00000001 … (ImageNet-ReaL); top-1 and top-5
        then count any of an image's labels, and images without labels do not count. Labels are indices of the
        data set's classes when it has them all, else of the model's.
    classes_subset, class_map: see `class_plan.plan_classes`.
    """

    real_labels: str | Path | None = option(
        None, "ImageNet-ReaL JSON: a list of right labels per validation image", group="data"
    )
    classes_subset: Iterable[str | int] | str | Path | None = option(
        None, "text or JSON file of class names or indices to restrict to", group="data"
    )
    class_map: Mapping[str, str | int] | str | Path | None = option(
        None, "text or JSON file: folder name -> class name or index of the model", group="data"
    )

    @property
    def foreign(self) -> bool:
        """Whether the data's labels are not simply the model's classes."""
        return (self.real_labels, self.classes_subset, self.class_map) != (None, None, None)
