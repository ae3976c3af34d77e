"""Measure in which blocks the Triton kernels are fastest on this GPU, and keep the answer (for triton_tiles.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from . import cuda_depthwise as gpu
from .triton_tiles import Blocks, from_table, key

# Results of two choices of blocks differ by the order of a sum at most.
TOLERANCE = 1e-2
# Numbers a thread may hold: below, it has too little to do; above, they do not fit its registers.
FEWEST, MOST = 4, 128


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel on one map: use ("map" or "weight"), side, dilation, type, and the map's N, C, H, W."""

    use: str
    side: int
    dilation: int
    dtype: torch.dtype
    shape: tuple[int, int, int, int]

    @property
    def key(self) -> str:
        _, channels, _, width = self.shape
        return key(self.use, self.side, self.dilation, self.dtype, channels, width)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The fastest blocks of a case; milliseconds with them and with the table's."""

    case: Case
    blocks: Blocks
    ms: float
    table_ms: float


def tune(
    cases: Iterable[Case], *, device: torch.device, timer: Callable[[Callable[[], object]], float] | None = None
) -> Iterator[Tuned]:
    """The fastest blocks of each case among those that compute the same as the table's.

    timer: milliseconds of a function, None for Triton's own benchmark.
    """
    timer = timer or _milliseconds
    for case in dict.fromkeys(cases):
        run = _runner(case, device)
        start = from_table(case.use, case.side, case.dilation, case.dtype, case.shape[1], case.shape[3])
        wanted, best = run(start), start
        table_ms = ms = timer(lambda run=run, start=start: run(start))  # type: ignore[misc]
        for blocks in candidates(case):
            try:
                same = _gap(run(blocks), wanted) < TOLERANCE
                spent = timer(lambda run=run, blocks=blocks: run(blocks)) if same else math.inf  # type: ignore[misc]
            except Exception:  # too many registers or too much shared memory for this GPU
                continue
            if spent < ms:
                best, ms = blocks, spent
        yield Tuned(case=case, blocks=best, ms=ms, table_ms=table_ms)


def candidates(case: Case) -> Iterator[Blocks]:
    """Blocks worth trying: a thread has neither nothing to do nor more than its registers hold."""
    channels, width = case.shape[1], case.shape[3]
    widest, most_channels = (max(8, 1 << (size - 1).bit_length()) for size in (width, channels))
    heights = (1, 2, 3, 4) if case.use == "map" else (8, 16, 32, 64, 128)
    for rows, columns, count, warps in product(heights, (8, 16, 32, 64), (16, 32, 64, 128), (1, 2, 4, 8)):
        held = columns * count / (32 * warps) * (rows if case.use == "map" else case.side + 1)
        if columns <= widest and count <= most_channels and FEWEST <= held <= MOST:
            yield Blocks(rows, columns, count, warps)


def _runner(case: Case, device: torch.device) -> Callable[[Blocks], list[Tensor]]:
    draw = torch.Generator(device).manual_seed(0)
    channels, drawn = case.shape[1], {"generator": draw, "device": device, "dtype": case.dtype}
    x = torch.randn(case.shape, **drawn).contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = torch.randn((channels, 1, case.side, case.side), **drawn) / case.side  # type: ignore[call-overload]
    conv = (weight, weight.new_zeros(channels), case.dilation)
    if case.use == "map":
        return lambda blocks: [gpu.convolve(x, conv, blocks=blocks)]
    return lambda blocks: list(gpu.parameter_gradients(x, x, conv, blocks=blocks))


def _gap(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, wanted, strict=True))


def _milliseconds(function: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return float(do_bench(function, warmup=5, rep=30, return_mode="median"))
