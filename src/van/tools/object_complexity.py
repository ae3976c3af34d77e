"""What models that find objects cost: parameters, and multiply-adds of one image at any size.

The network runs once on tensors without values, so nothing is computed and no memory is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import ops
from ..configs.object_config import ObjectConfig
from ..errors import ConfigError
from ..nn.build import build
from ..nn.object_model import ObjectModel
from .complexity_counter import Convention, count_operations
from .complexity_tables import ObjectComplexity, sides

# OpenMMLab's counter on detectors, as the paper's table has it.
MMCV_OBJECTS: Convention = {"macs": 1, "bias": 1, "batch_norm": 2, "group_norm": 2}


class _Counted(nn.Module):
    """A model whose `forward` is what tables count of it."""

    def __init__(self, model: ObjectModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> object:
        return self.model.counted(images)


def describe_objects(config: ObjectConfig, *, size: int | Sequence[int]) -> ObjectComplexity:
    """What a model costs for one image; size: side in pixels, or (height, width).

    Raises ConfigError for an impossible size, and for sides that are no multiples of the model's.
    """
    pixels, step = sides(size), config.size_divisor
    if any(side % step for side in pixels):
        padded = " x ".join(str(-(-side // step) * step) for side in pixels)
        raise ConfigError(f"size is {pixels[0]} x {pixels[1]}; expected multiples of {step}, as {padded}")
    # attention by its two products: what a fused one does is not counted everywhere
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), ops.without_kernels():
        model = cast(ObjectModel, build(config).eval())
        operations = count_operations(_Counted(model), torch.empty(1, config.backbone.in_chans, *pixels))
    by_part = {name: sum(tensor.numel() for tensor in part.parameters()) for name, part in model.named_children()}
    return ObjectComplexity(
        parameters=sum(tensor.numel() for tensor in model.parameters()),
        by_part={name: count for name, count in by_part.items() if count},
        macs=operations.total["macs"],
        matmul_macs=operations.total["matmul"],
        mmcv=operations.in_convention(MMCV_OBJECTS),
    )
