"""How a time is measured, the same way everywhere: bursts, taken in turn, summed up by medians and quartiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

# A timing is the best of a burst of this length, after one run to wake the threads.
BURST_S = 0.25


def burst_ms(run: Callable[[], object], *, seconds: float = BURST_S) -> float:
    """Milliseconds of a call, the best of a burst."""
    run()
    spent: list[float] = []
    while sum(spent) < seconds:
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return 1e3 * min(spent)


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every measurement once per round, one after the other, so that a busy moment of the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            times[name].append(measure())
    return times


def summary(base: list[float], own: list[float]) -> dict[str, float]:
    """Median and quartiles of `own`, and the median and the worst ratio of `base` to it, round by round."""
    ratios = [a / b for a, b in zip(base, own, strict=True)]
    low, _, high = quantiles(own, n=4) if len(own) > 1 else own * 3
    return {"ms": median(own), "low": low, "high": high, "ratio": median(ratios), "worst": min(ratios)}
