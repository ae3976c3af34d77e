"""Which way each primitive is computed on this machine, and why."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .c_library import library, multiplies_bfloat16
from .cuda_depthwise import gpu
from .measured import BORROWED, RATIOS, REPLACED
from .selection import family, path_taken, ratio_of
from .triton_tiles import TABLE, read_tuned, tuned_file


def report() -> dict[str, str]:
    """Primitive -> path and reason, on the CPU, then for the GPU; finds out what was not needed yet.

    Under "measured FAMILY" what every family of processors gains by each path, and which are on for that.
    """
    return {
        **{path: _way(path) for path in REPLACED},
        "pointwise_conv2d": "matrix product",
        "half precision": _halves(),
        "fast_layout": "channels_last",
        "threads": str(torch.get_num_threads()),
        **{
            f"measured {name}": (f"as {BORROWED[name]}: " if name in BORROWED else "") + _measured(ratios)
            for name, ratios in RATIOS.items()
        },
        **_of_gpu(),
    }


def _halves() -> str:
    """How the C kernel computes folded networks in bfloat16 and float16."""
    if library().handle is None:
        return f"library: {library().reason}"
    if multiplies_bfloat16():
        return "C kernel after van.optimize: bfloat16 is multiplied as it is, float16 widened to float32"
    return "C kernel after van.optimize: widened to float32, for want of AVX512-BF16"


def _way(path: str) -> str:
    found, ratio = library(), ratio_of(path)
    if found.handle is None:
        return f"{REPLACED[path]}: {found.reason}"
    gain = (
        f"never measured on {family()}" if ratio is None else f"measured {ratio:.2f} times as fast as {REPLACED[path]}"
    )
    if path_taken(path):
        return f"C kernel: {found.reason}; {gain}"
    way_out = f"; VAN_OPS={found.instructions} takes it all the same" if ratio is None else ""
    return f"{REPLACED[path]}, not the C kernel: {found.reason}; {gain}{way_out}"


def _measured(ratios: Mapping[str, float | None]) -> str:
    """`depthwise_pair 1.20 on, …`."""
    return ", ".join(
        f"{path} never" if ratio is None else f"{path} {ratio:.2f} {'on' if ratio >= 1 else 'off'}"
        for path, ratio in ratios.items()
    )


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
