"""The feature pyramid of the detectors, with what each method appends to it.

Source: arXiv 1612.03144 (pyramid), 1708.02002 (two more maps).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..heads.semantic_fpn import FPN

EXTRAS = ("pool", "backbone", "pyramid")


class FeaturePyramid(FPN):
    """Maps of the backbone, finest first -> as many of `channels`, and coarser ones.

    extra: "pool" appends every second place of the last map (Mask R-CNN); "backbone" and "pyramid" append two maps by
    strided convolutions from the backbone's last map (RetinaNet) or the pyramid's own (ATSS, GFL).
    """

    def __init__(self, in_channels: Sequence[int], channels: int, extra: str) -> None:
        super().__init__(in_channels, channels)
        self.extra = extra
        first = {"pool": None, "backbone": in_channels[-1], "pyramid": channels}[extra]
        widths = [] if first is None else [first, channels]
        self.extras = nn.ModuleList(nn.Conv2d(width, channels, 3, 2, padding=1) for width in widths)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = super().forward(pyramid)
        if self.extra == "pool":
            return (*maps, maps[-1][..., ::2, ::2])
        x = self.extras[0](pyramid[-1] if self.extra == "backbone" else maps[-1])
        return (*maps, x, self.extras[1](F.relu(x)))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Convolutions uniform with variance 1 / fan_in, biases 0, as torchvision's and detectron's pyramids."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
