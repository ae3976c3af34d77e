"""How two forms of a segmenter are compared: pixel by pixel, and by the mIoU of their label maps.

Shapes: K classes, h and w of the head's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison import Comparison, RawOutputs
from .confusion_matrix import ConfusionMatrix


def miou_agreement(got: Sequence[RawOutputs], want: Sequence[RawOutputs]) -> float:
    """mIoU, 0 … 1, of the pixels' likeliest classes in two lists of logits (1, K, h, w), `want` taken for the truth."""
    matrix = ConfusionMatrix(want[0]["logits"].shape[1], ignore_index=None)
    for ours, truth in zip(got, want, strict=True):
        matrix.update(ours["logits"].argmax(1)[0], truth["logits"].argmax(1)[0])
    return matrix.summary()["mIoU"]


@dataclass(frozen=True, kw_only=True)
class PixelComparison(Comparison):
    """Pixels that keep their class, and `miou_agreement`."""

    def measure(self, got: Sequence[RawOutputs], want: Sequence[RawOutputs]) -> dict[str, float]:
        """See Comparison.measure."""
        return {"miou_agreement": miou_agreement(got, want)}


COMPARISON = PixelComparison(
    score="miou",
    heading="mIoU %",
    decisions="pixels",
    unit="pixels",
    figures={"miou_agreement": "mIoU against float32's"},
)
