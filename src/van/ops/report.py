"""Which way each primitive is computed on this machine, and why."""

from __future__ import annotations

import torch

from .blocks import TABLE, read_tuned, tuned_file
from .gpu import gpu
from .library import library


def report() -> dict[str, str]:
    """Primitive -> path and reason, for float32 on the CPU, then for the GPU; finds out what was not needed yet."""
    found = library()
    served = found.handle is not None
    way = f"C kernel: {found.reason}" if served else f"library convolutions: {found.reason}"
    return {
        "depthwise_conv2d": way,
        "depthwise_gelu": way,
        "depthwise_pair": way,
        "folded_blocks": way if served else f"its modules one by one: {found.reason}",
        "folded_patch": way if served else f"library convolution: {found.reason}",
        "streamed_feed_forward": way if served else f"its modules one by one: {found.reason}",
        "pointwise_conv2d": "matrix product",
        "fast_layout": "channels_last",
        "threads": str(torch.get_num_threads()),
        **_of_gpu(),
    }


def _of_gpu() -> dict[str, str]:
    found = gpu()
    if not found.ready:
        return {"cuda": f"library convolutions, the layout as it came: {found.reason}"}
    tuned = len(read_tuned(tuned_file()))
    return {
        "cuda": found.reason,
        "cuda depthwise": "Triton kernels in float32, bfloat16, float16; others library convolutions",
        "cuda pointwise_conv2d": "matrix product in bfloat16 and float16, library convolution in float32",
        "cuda fast_layout": "channels_last",
        "cuda blocks": f"{tuned} cases tuned here, others from the table of {len(TABLE)} kernels" if tuned
        else "the table; `van tune` measures this GPU",
    }  # fmt: skip
