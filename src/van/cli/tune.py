"""Measure the fastest blocks of the GPU kernels for the convolutions of some networks, and keep them in the cache.

Without it the kernels use a table that fits no GPU exactly. `van info --ops` shows how many cases were tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..configs.backbone import VARIANTS, resolve
from ..errors import ConfigError
from .output import say

if TYPE_CHECKING:
    from ..ops.tune import Case

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def add_arguments(parser: Any) -> None:
    """Options of `van tune`."""
    parser.add_argument("--models", nargs="+", default=["van_b0", "van_b1", "van_b2", "van_b3"], help="backbones")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--batch", type=int, default=128, help="images per batch")
    parser.add_argument("--precision", choices=tuple(_DTYPES), default="bf16", help="type of the maps")
    parser.add_argument("--inference", action="store_true", help="leave out the gradients of the weights")


def run(options: Any) -> None:
    """Measure, keep and print every case."""
    import torch

    from ..ops.cuda_depthwise import gpu
    from ..ops.triton_tiles import tuned_file, write_tuned
    from ..ops.tune import tune

    found = gpu()
    if not found.ready:
        raise ConfigError(f"van tune measures the GPU kernels, which are not used here: {found.reason}")
    device = torch.device("cuda", torch.cuda.current_device())
    file = tuned_file(device.index)
    for tuned in tune(cases(options), device=device):
        write_tuned(file, {tuned.case.key: tuned.blocks})
        faster = tuned.table_ms / tuned.ms
        say(f"{tuned.case.key:<44} {tuned.ms:8.4f} ms  {faster:5.2f}x the table's  {tuned.blocks}")
    say(f"kept in {file}")


def cases(options: Any) -> Iterator[Case]:
    """Every depthwise convolution of the networks, forward and, unless for inference only, its gradient."""
    import torch

    from ..ops.tune import Case

    dtype = getattr(torch, _DTYPES[options.precision])
    for config in (VARIANTS[resolve(name)] for name in options.models):
        for stage, reduction in enumerate(config.reductions):
            side, channels = -(-options.size // reduction), config.embed_dims[stage]
            near, far = (config.near_kernel, 1, channels), (config.far_kernel, config.dilation, channels)
            for kernel, dilation, width in (near, far, (3, 1, config.hidden_dim(stage))):
                for use in ("map",) if options.inference else ("map", "weight"):
                    shape = (options.batch, width, side, side)
                    yield Case(use=use, side=kernel, dilation=dilation, dtype=dtype, shape=shape)
