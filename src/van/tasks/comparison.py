"""How two forms of one network are compared by their raw outputs: exported with original, int8 with float32.

Shapes: N batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

RawOutputs = Mapping[str, np.ndarray]  # what a network gives for a batch, by name: a single output is "logits"


def values(outputs: RawOutputs) -> np.ndarray:
    """All numbers of the outputs, in the order of their names."""
    return np.concatenate([outputs[name].ravel() for name in sorted(outputs)])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What counts as the same result, and the words for it.

    decisions: the plural of what a network decides. unit: the plural of what has one decision.
    score, heading: the task's monitored score, its key in reports and its heading where it stands in percent.
    figures: key of each further figure -> the words before it.
    """

    score: str = "score"
    heading: str = "score %"
    decisions: str = "classes"
    unit: str = "images"
    figures: Mapping[str, str] = field(default_factory=dict)

    def aligned(self, got: RawOutputs, want: RawOutputs) -> RawOutputs:
        """`got` in the order of `want`, for outputs whose order means nothing."""
        return got

    def decide(self, raw: RawOutputs) -> np.ndarray:
        """The likeliest class everywhere: logits (N, K, …) -> (N, …)."""
        return raw["logits"].argmax(1)

    def agreement(self, got: Sequence[RawOutputs], want: Sequence[RawOutputs]) -> float:
        """Share of the decisions, 0 … 1, that are the same in two lists of raw outputs."""
        pairs = [(self.decide(self.aligned(a, b)), self.decide(b)) for a, b in zip(got, want, strict=True)]
        return float(np.concatenate([(a == b).ravel() for a, b in pairs]).mean())

    def measure(self, got: Sequence[RawOutputs], want: Sequence[RawOutputs]) -> dict[str, float]:
        """The further figures of two lists of raw outputs by their keys, `want` taken for the truth."""
        return {}
