"""How two forms of a detector are compared: number by number, and by the classes that every place or query answers.

Shapes: N batch, Q queries, K classes, h and w of a map, a anchors of a place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..comparison import Comparison, RawOutputs


@dataclass(frozen=True, kw_only=True)
class AnswerComparison(Comparison):
    """Whether every class of every place, or of every query, is there: its probability is a half or more."""

    def aligned(self, got: RawOutputs, want: RawOutputs) -> RawOutputs:
        """Queries (N, Q, …) in the order of the original's: rounding can swap two that are equally sure."""
        if "boxes" not in want:
            return got
        orders = [_order(*(_rows(each, image) for each in (got, want))) for image in range(len(want["boxes"]))]
        return {name: np.stack([x[order] for x, order in zip(got[name], orders, strict=True)]) for name in want}

    def decide(self, raw: RawOutputs) -> np.ndarray:
        """Logits (N, a·K, h, w) of every map, or (N, Q, K) -> all answers of the batch, flat."""
        return np.concatenate([raw[name].ravel() for name in sorted(raw) if name.startswith("logits")]) >= 0


def _rows(outputs: RawOutputs, image: int) -> np.ndarray:
    """What is known of each query, (Q, 4 + K)."""
    return np.concatenate([outputs["boxes"][image], outputs["logits"][image]], 1)


def _order(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Which query of `got` is the original's first, second, …: as it is where every query is its own nearest."""
    if not np.isfinite(got).all():
        return np.arange(len(want))
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    return linear_sum_assignment(cdist(want, got, "cityblock"))[1]


COMPARISON = AnswerComparison(score="ap", heading="AP %", decisions="answers", unit="answers")
