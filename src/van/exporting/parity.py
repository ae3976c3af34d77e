"""Does a file compute what the network computes? Random images of several sizes, and real ones.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, VanError
from ..tasks.comparison import Comparison, RawOutputs

Run = Callable[[np.ndarray], RawOutputs]  # (N, C, H, W) float32 -> outputs by name

TOLERANCE = 1e-4  # float32's rounding in a deep network, with room: as in van.optimize
AGREEMENT = 0.99


@dataclass(frozen=True, kw_only=True)
class Case:
    """One batch through both.

    shape: (N, C, H, W). max_error, mean_error: of the outputs, as parts of the largest number of the original's output
    of that name; of several outputs the worst.
    agreement: share of the decisions, one per image or per pixel, that are the same; votes: how many there are.
    """

    name: str
    shape: tuple[int, ...]
    max_error: float
    mean_error: float
    agreement: float
    votes: int


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What came out of a comparison; tolerance and minimal_agreement are what was asked for."""

    cases: tuple[Case, ...]
    tolerance: float
    minimal_agreement: float

    @property
    def max_error(self) -> float:
        """The worst of all cases."""
        return max(case.max_error for case in self.cases)

    @property
    def mean_error(self) -> float:
        """The mean over all cases."""
        return float(np.mean([case.mean_error for case in self.cases]))

    @property
    def agreement(self) -> float:
        """Share of all decisions that are the same."""
        votes = [case.votes for case in self.cases]
        return float(np.average([case.agreement for case in self.cases], weights=votes))

    @property
    def passed(self) -> bool:
        """Whether the errors are within the tolerance and the classes agree."""
        return self.max_error <= self.tolerance and self.agreement >= self.minimal_agreement

    def check(self, what: str) -> None:
        """Raises VanError unless `passed`."""
        if self.max_error > self.tolerance:
            worst = max(self.cases, key=lambda case: case.max_error)
            raise VanError(
                f"{what} differs from the network by {worst.max_error:.2g} of the largest output on {worst.name};"
                f" expected at most {self.tolerance:g}; nothing was written: raise --tolerance if that is good enough"
            )
        if self.agreement < self.minimal_agreement:
            raise VanError(
                f"{what} gives the network's class for {self.agreement:.2%} of the images or pixels; expected"
                f" {self.minimal_agreement:.2%} or more; nothing was written"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        figures = {name: getattr(self, name) for name in ("max_error", "mean_error", "agreement", "tolerance")}
        return {**figures, "minimal_agreement": self.minimal_agreement, "cases": [asdict(case) for case in self.cases]}


def compare(
    run: Run,
    reference: Run,
    batches: Iterable[tuple[str, np.ndarray]],
    *,
    tolerance: float = TOLERANCE,
    minimal_agreement: float = AGREEMENT,
    comparison: Comparison | None = None,
) -> Parity:
    """Both on every named batch (N, C, H, W); nothing is raised for a difference, see `Parity.check`.

    comparison: what the networks decide; None: the likeliest class everywhere.
    Raises VanError when the reference's own outputs are not finite or the shapes differ.
    """
    check_limits(tolerance, minimal_agreement)
    compared = comparison or Comparison()
    cases = tuple(_case(name, images, run(images), reference(images), compared) for name, images in batches)
    return Parity(cases=cases, tolerance=tolerance, minimal_agreement=minimal_agreement)


def check_limits(tolerance: float, agreement: float) -> None:
    """Before minutes of work: raises ConfigError for limits that no comparison could have."""
    if not 0 < tolerance < np.inf:
        raise ConfigError(f"tolerance is {tolerance}; expected a positive part of the largest logit, e.g. {TOLERANCE}")
    if not 0 <= agreement <= 1:
        raise ConfigError(f"agreement is {agreement}; expected a share from 0 to 1, e.g. {AGREEMENT}")


def _case(name: str, images: np.ndarray, got: RawOutputs, want: RawOutputs, comparison: Comparison) -> Case:
    for output, values in want.items():
        if not np.isfinite(values).all():
            raise VanError(f"the network's own {output} are not finite on {name}; nothing can be compared with them")
    shapes, expected = ({key: value.shape for key, value in each.items()} for each in (got, want))
    if shapes != expected:
        raise VanError(f"{name}: the exported network gives {_shown(shapes)}, the original {_shown(expected)}")
    got = comparison.aligned(got, want)
    errors = [_errors(got[output], want[output]) for output in want]
    same = comparison.decide(got) == comparison.decide(want)
    return Case(
        name=name,
        shape=images.shape,
        max_error=max(most for most, _ in errors),
        mean_error=max(mean for _, mean in errors),
        agreement=float(same.mean()),
        votes=same.size,
    )


def _errors(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """The largest and the mean difference, as parts of the largest number that was wanted."""
    if not np.isfinite(got).all():
        return float("inf"), float("inf")
    difference = np.abs(got.astype(np.float64) - want) / max(float(np.abs(want).max()), 1e-30)
    return float(difference.max()), float(difference.mean())


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())


def random_batches(sizes: Sequence[tuple[int, int, int]], in_chans: int) -> Iterable[tuple[str, np.ndarray]]:
    """Standard normal images from a fixed seed, (N, in_chans, H, W) per (N, H, W)."""
    draw = np.random.default_rng(0)
    for batch, height, width in sizes:
        images = draw.standard_normal((batch, in_chans, height, width), np.float32)
        yield f"random {batch} x {height} x {width}", images
