"""The maps of large kernel attention: what a block's input is multiplied with.

Shapes: N batch, C channels of the stage, h, w of its map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...nn.backbone import Backbone, LargeKernelAttention

Reduce = Callable[[Tensor], Tensor]


def attentions_of(backbone: Backbone) -> list[list[LargeKernelAttention]]:
    """The large kernel attentions of every stage, in the order of its blocks; of a folded network too."""
    return [[m for m in stage.modules() if isinstance(m, LargeKernelAttention)] for stage in backbone.stages]


@contextmanager
def recorded(modules: Sequence[LargeKernelAttention], reduce: Reduce) -> Iterator[list[Tensor | None]]:
    """Within it, a forward pass writes `reduce` of each attention, (N, C, h, w), into the list; None: it was not run.

    The attention is the output of the last convolution, which gates the input: as published, a factor; with
    attention="sigmoid" its sigmoid, with "add" what is added to the input, with "none" what takes its place.
    """
    found: list[Tensor | None] = [None] * len(modules)

    def writer(index: int) -> Callable[..., None]:
        def write(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            gate = output.detach().float()
            found[index] = reduce(gate.sigmoid() if modules[index].gate == "sigmoid" else gate)

        return write

    handles = [module.mix.register_forward_hook(writer(index)) for index, module in enumerate(modules)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def channel_mean(attention: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h, w)."""
    return attention.mean(1)


def scaled(values: Tensor) -> Tensor:
    """Values of a map moved and stretched to 0 … 1; zeros where all are equal or some are no numbers."""
    low, high = values.min(), values.max()
    if not bool(torch.isfinite(high - low)) or high == low:
        return torch.zeros_like(values)
    return (values - low) / (high - low)


def stage_numbers(stages: Sequence[int] | int | None, backbone: Backbone) -> tuple[int, ...]:
    """Numbers of stages from 1, each once and in order; None: all. Raises ConfigError for one that does not exist."""
    known = range(1, len(backbone.stages) + 1)
    if stages is None:
        return tuple(known)
    wanted = [stages] if isinstance(stages, int) else list(stages)
    for stage in wanted:
        if isinstance(stage, bool) or not isinstance(stage, int) or stage not in known:
            raise ConfigError(f"there is no stage {stage!r:.40}; expected numbers from 1 to {known[-1]}")
    if not wanted:
        raise ConfigError(f"stages is empty; expected numbers from 1 to {known[-1]}, or leave it out for all")
    return tuple(sorted(set(wanted)))
