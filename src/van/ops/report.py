"""Which way each primitive is computed on this machine, and why."""

from __future__ import annotations

import torch

from .library import library


def report() -> dict[str, str]:
    """Primitive -> path and reason, for float32 on the CPU; compiles the kernel where it has not been needed yet."""
    found = library()
    served = found.handle is not None
    way = f"C kernel: {found.reason}" if served else f"library convolutions: {found.reason}"
    return {
        "depthwise_conv2d": way,
        "depthwise_gelu": way,
        "depthwise_pair": way,
        "folded_block": way if served else f"its modules one by one: {found.reason}",
        "folded_patch": way if served else f"library convolution: {found.reason}",
        "pointwise_conv2d": "matrix product",
        "fast_layout": "channels_last",
        "threads": str(torch.get_num_threads()),
    }
