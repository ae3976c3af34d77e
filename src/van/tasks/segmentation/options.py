"""Options of segmentation: how the network is applied to a picture, what is written, which bases are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from ...errors import ConfigError
from .. import base
from ..options import OWN, Own, numbers, option, per_channel
from .inference import Inference

GROUP = "segmenters (default: the checkpoint's own, else the published single-scale test)"
PREPROCESSING = "preprocessing (default: the checkpoint's own)"
OUTPUT = "segmenters"

OnMask = Callable[[int, Image.Image, np.ndarray, np.ndarray], None]


def fitted(text: str) -> tuple[int, int] | None:
    """`2048x512` -> (2048, 512), `none` -> None; raises ConfigError."""
    if text == "none":
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--fit is {text!r}; expected longest x shortest side, as 2048x512, or none")
    return int(sides[0]), int(sides[1])


def _scales(text: str) -> tuple[float, ...]:
    return numbers(text, "--scales", "factors with commas, as 0.5,1,1.5")


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Overrides of the fields of Inference, see there.

    inference: the same as a mapping. opacity: of the colours over a picture, 0 … 1.
    """

    scales: Sequence[float] | Own = option(
        OWN, "average views at these scales: 0.5,0.75,1,1.25,1.5,1.75", parse=_scales, group=GROUP
    )
    flip: bool | Own = option(OWN, "average with mirrored views", kind=bool, group=GROUP)
    window: int | Own | None = option(OWN, "side of sliding windows, pixels", kind=int, group=GROUP)
    stride: int | Own | None = option(
        OWN, "a window every so many pixels (default: two thirds of the window)", kind=int, group=GROUP
    )
    resize: tuple[int, int] | Own | None = option(
        OWN,
        "longest x shortest side that a picture is scaled into: 2048x512, or none",
        flag="--fit",
        parse=fitted,
        group=GROUP,
    )
    size_divisor: int | Own = option(
        OWN,
        "stretch sides to a multiple of it; 1: leave them alone (published: HamNet 1, all others 32)",
        kind=int,
        group=GROUP,
    )
    mean: Sequence[float] | None = option(
        None,
        "per channel, 0 … 1, with commas: 0.485,0.456,0.406",
        parse=per_channel("--mean"),
        group=PREPROCESSING,
    )
    std: Sequence[float] | None = option(
        None, "per channel, 0 … 1, with commas: 0.229,0.224,0.225", parse=per_channel("--std"), group=PREPROCESSING
    )
    whole_limit_pixels: int | Own | None = OWN
    band_bytes: int | Own = OWN
    inference: Mapping[str, Any] | None = None
    opacity: float = option(0.5, "of the overlays, 0 … 1", kind=float, group=OUTPUT)

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise ConfigError(f"--opacity is {self.opacity}; expected 0 (picture) to 1 (colours)")

    @property
    def given(self) -> dict[str, Any]:
        """The fields of Inference that are overridden."""
        values = {each.name: getattr(self, each.name) for each in fields(Inference)}
        unset = {name for name, value in values.items() if value is OWN or (name in ("mean", "std") and value is None)}
        return {**(self.inference or {}), **{name: value for name, value in values.items() if name not in unset}}


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ViewOptions):
    """Options of prediction."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ViewOptions, base.EvalOptions):
    """Options of evaluation.

    seeds: evaluate as many draws of a Hamburger's bases too.
    out, overlays, submission: folders for the label maps, as index PNG and raw .npy, painted over the pictures, and as
        the data set's test server wants them.
    overrides: as `inference`. on_mask: called with (index, picture, prediction, label) after each picture; picklable
        where several devices share the pictures. data_options: of `data.segmentation.open_segmentation`.
    """

    seeds: int | None = option(
        None, "mean and spread over so many draws of a Hamburger's bases, too", kind=int, group=OUTPUT
    )
    out: str | None = option(None, "folder: every label map as index PNG and as raw .npy", group=OUTPUT, single=True)
    overlays: str | None = option(
        None, "folder: every picture with its classes painted over it, and a legend", group=OUTPUT, single=True
    )
    submission: str | None = option(
        None, "folder: label maps as the data set's test server wants them", group=OUTPUT, single=True
    )
    overrides: Mapping[str, Any] | None = None
    on_mask: OnMask | None = None
    data_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds is not None and self.seeds < 2:
            raise ConfigError(f"seeds is {self.seeds}; a spread needs at least 2")

    @property
    def given(self) -> dict[str, Any]:
        return {**(self.overrides or {}), **super().given}

    def drawn(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        return super().drawn(provenance) | dict(self.data_options or {})
