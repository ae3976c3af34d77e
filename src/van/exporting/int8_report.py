"""What int8 costs and gains: figures, and how they are measured.

Shapes: N batch, C channels, H height, W width, K classes; logits (N, K), of a segmenter (N, K, h, w).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..tasks.segmentation.confusion_matrix import ConfusionMatrix
from .parity import Run


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far a product's result, bias added, is from that in float32: signal to noise in decibels.

    Accumulated, so not the product's own error alone: what it reads has been through all int8 before it.

    int8: whether the product itself is computed in int8.
    """

    layer: str
    sqnr_db: float
    int8: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """int8 against the float32 graph in the same runtime.

    agreement: share of `compared` images, of a segmenter their pixels, with the same likeliest class; of the validation
    data where there are any, else of those that it was calibrated on. sqnr_db: signal to noise of the logits on them.
    top1, fp32_top1: of a classifier, percent, on all validation data; None without.
    miou, fp32_miou: of a segmenter, 0 … 1, on all validation data; None without.
    miou_agreement: of a segmenter: mIoU of the pixels' classes in `compared` images, float32's taken for the truth.
    drop: fp32_top1 - top1 as a share of the images, fp32_miou - miou, without validation data 1 - agreement; max_drop:
    what was allowed.
    ms, fp32_ms: of one image, medians; speedup: the median of their ratios, round by round.
    images: that it was calibrated on; layers: in the network's order, the stem left out.
    """

    agreement: float
    sqnr_db: float
    top1: float | None
    fp32_top1: float | None
    miou: float | None
    fp32_miou: float | None
    miou_agreement: float | None
    drop: float
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
    def float_layers(self) -> tuple[str, ...]:
        """Products that were left in float32 to stay within the drop."""
        return tuple(each.layer for each in self.layers if not each.int8)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        layers = [asdict(each) for each in self.layers]
        return asdict(self) | {"layers": layers, "float_layers": list(self.float_layers)}


def agreement(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """Share of the images, or pixels, whose likeliest class is the same in two lists of logits."""
    same = [(a.argmax(1) == b.argmax(1)).ravel() for a, b in zip(got, want, strict=True)]
    return float(np.concatenate(same).mean())


def miou_agreement(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """mIoU of the pixels' likeliest classes in two lists of logits (1, K, h, w), the second taken for the truth."""
    matrix = ConfusionMatrix(want[0].shape[1], ignore_index=None)
    for ours, truth in zip(got, want, strict=True):
        matrix.update(ours.argmax(1)[0], truth.argmax(1)[0])
    return matrix.summary()["mIoU"]


def sqnr_db(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    """Energy of `want` over that of its difference from `got`, in decibels; at most 200, where they are equal."""
    return _decibels(*np.sum([_energies(*pair) for pair in zip(got, want, strict=True)], axis=0))


def layer_errors(
    outputs: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]], int8: Sequence[str]
) -> tuple[LayerError, ...]:
    """Errors from pairs (got, want) of every product's result, one pair per image."""
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


def logits_of(run: Run, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The logits of every image, (1, C, H, W) each."""
    return [run(image) for image in images]
