"""What int8 costs and gains: figures, and how they are measured.

Shapes: N batch, C channels, H height, W width, K classes; logits (N, K, …).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..tasks.comparison import RawOutputs
from .parity import Run


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far a layer's result, bias added, is from that in float32: signal to noise in decibels.

    Accumulated, so not the layer's own error alone: what it reads has been through all int8 before it.

    int8: whether the layer itself is computed in int8.
    """

    layer: str
    sqnr_db: float
    int8: bool


# Scores that every report has under these names, None where they mean nothing to the task.
_ALWAYS = ("top1", "fp32_top1", "miou", "fp32_miou", "miou_agreement")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What int8 loses.

    agreement: share of the decisions, one per image or per pixel, that are the same in `compared` images; of the
    validation data where there are any, else of those that it was calibrated on. sqnr_db: signal to noise of the raw
    output on them. figures: further ones of the task on them, "miou_agreement".
    key: of the task's monitored score, "top1". score, fp32_score: on all validation data, None without; perfect: the
    largest that they can be.
    drop: of the score as a share of the perfect one, without validation data 1 - agreement.
    """

    agreement: float
    sqnr_db: float
    key: str
    score: float | None
    fp32_score: float | None
    perfect: float
    figures: Mapping[str, float]
    drop: float


@dataclass(frozen=True, kw_only=True)
class Report(Loss):
    """int8 against the float32 graph in the same runtime.

    max_drop: what was allowed. ms, fp32_ms: of one image, medians; speedup: the median of their ratios, round by round.
    images: that it was calibrated on; layers: in the network's order, the stem left out.
    """

    max_drop: float
    ms: float
    fp32_ms: float
    speedup: float
    calibration: str
    images: int
    compared: int
    validation: str | None
    layers: tuple[LayerError, ...]

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores and figures by their names in JSON: "top1" and "fp32_top1" in percent, "miou", "fp32_miou" …"""
        own = {self.key: self.score, f"fp32_{self.key}": self.fp32_score, **self.figures}
        return dict.fromkeys(_ALWAYS) | own

    @property
    def top1(self) -> float | None:
        """Percent, of int8 on all validation data; None without, and of other tasks."""
        return self.scores["top1"]

    @property
    def fp32_top1(self) -> float | None:
        """As `top1`, of the float32 graph."""
        return self.scores["fp32_top1"]

    @property
    def miou(self) -> float | None:
        """0 … 1, of int8 on all validation data; None without, and of other tasks."""
        return self.scores["miou"]

    @property
    def fp32_miou(self) -> float | None:
        """As `miou`, of the float32 graph."""
        return self.scores["fp32_miou"]

    @property
    def miou_agreement(self) -> float | None:
        """mIoU, 0 … 1, of int8's pixels in `compared` images, float32's taken for the truth; None of other tasks."""
        return self.scores["miou_agreement"]

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers that were left in float32 to stay within the drop."""
        return tuple(each.layer for each in self.layers if not each.int8)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        first = {"agreement": self.agreement, "sqnr_db": self.sqnr_db, **self.scores, "drop": self.drop}
        rest = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _LOSS}
        layers = [asdict(each) for each in self.layers]
        return first | rest | {"layers": layers, "float_layers": list(self.float_layers)}


_LOSS = frozenset(each.name for each in fields(Loss))


def sqnr_db(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """Energy of `want` over that of its difference from `got`, in decibels; at most 200, where they are equal."""
    return _decibels(*np.sum([_energies(*pair) for pair in zip(got, want, strict=True)], axis=0))


def layer_errors(
    outputs: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]], int8: Sequence[str]
) -> tuple[LayerError, ...]:
    """Errors from pairs (got, want) of every layer's result, one pair per image."""
    sums: dict[str, np.ndarray] = {}
    for got, want in outputs:
        for layer in want:
            sums[layer] = sums.get(layer, 0) + _energies(got[layer], want[layer])
    return tuple(LayerError(layer=layer, sqnr_db=_decibels(*both), int8=layer in int8) for layer, both in sums.items())


def _energies(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Of `want`, and of its difference from `got`."""
    want = want.astype(np.float64)
    return np.array([np.square(want).sum(), np.square(got - want).sum()])


def _decibels(signal: float, noise: float) -> float:
    return float(10 * np.log10(max(signal, 1e-300) / max(noise, signal * 1e-20, 1e-300)))


def outputs_of(run: Run, images: Sequence[np.ndarray]) -> list[RawOutputs]:
    """The outputs of every image, (1, C, H, W) each."""
    return [run(image) for image in images]
