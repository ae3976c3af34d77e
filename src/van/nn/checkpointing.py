"""Activation checkpointing that leaves BatchNorm's running statistics alone when it recomputes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint


def checkpoint(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)`, keeping only x for the backward pass; statistics are updated once, as without checkpointing."""
    return torch_checkpoint(
        module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_held(module))
    )


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
