"""What losses are divided by where several processes train on parts of one batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_processes(count: Tensor, at_least: float = 1.0) -> Tensor:
    """A count (of objects, of positive anchors) summed over all processes and divided by their number.

    Gradients are averaged over processes, so losses that each process divides by this mean add up to those of one
    process with the whole batch. Never below `at_least` over the number of processes, so that the division of what is
    empty everywhere is by what one process would take. Without torch.distributed the count itself.
    """
    total = count.detach().to(torch.float32)
    processes = 1
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        processes = dist.get_world_size()
        total = total.clone()
        dist.all_reduce(total)
    return total.clamp(min=at_least) / processes
