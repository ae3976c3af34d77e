"""Activation checkpointing that leaves BatchNorm's running statistics alone when it recomputes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint


def checkpoint(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)`, keeping only x for the backward pass; statistics are updated once, as without checkpointing."""
    if torch.compiler.is_compiling():  # the compiler updates them once by itself, and knows no context_fn
        return torch_checkpoint(module, x, use_reentrant=False)
    return torch_checkpoint(module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_held(module)))


@contextmanager
def statistics_held(module: nn.Module) -> Iterator[None]:
    """While this is open, training-mode BatchNorms normalise as usual, but their running statistics do not move.

    The norms go on receiving their statistics, because the recomputation must save the same tensors as the forward
    pass did; a momentum of 0 leaves the averages as they are, bit for bit, and the counter is put back.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    before = [(norm.momentum, _copy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


def _copy(counter: Tensor | None) -> Tensor | None:
    return None if counter is None else counter.clone()
