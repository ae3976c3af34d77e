"""The memory layout in which a device computes the network fastest."""

from __future__ import annotations

import torch
from torch import Tensor

from .depthwise import has_gpu_kernel
from .tensors import ordinary


def fast_layout(x: Tensor) -> Tensor:
    """The same (N, C, H, W) values in the device's best layout.

    channels_last on the CPU and on a GPU that the Triton kernels serve, as they came elsewhere.
    """
    if not torch.compiler.is_exporting() and ordinary(x) and (x.device.type == "cpu" or has_gpu_kernel(x)):
        return x.contiguous(memory_format=torch.channels_last)
    return x
