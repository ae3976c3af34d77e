"""The layout in which a network trains."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import nn

from ..nn import optimize
from .distributed import process_info

Net = TypeVar("Net", bound=nn.Module)


def laid_out(network: Net, device: str, *, channels_last: bool) -> Net:
    """The network in the layout to train in: on CUDA what `van.optimize` makes and checks on this process's GPU.

    Elsewhere the same network, its weights in channels_last memory where asked.
    """
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or process_info().rank % torch.cuda.device_count())
        return cast(Net, optimize(network.to(torch.device("cuda", index)), training=True))
    return network.to(memory_format=torch.channels_last) if channels_last else network
