"""The map of one stage of a backbone, or its mean, as a network of its own.

Shapes: N batch, C channels of the stage, H, W sides of the images, h, w of the stage's map.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ConfigError
from .backbone import Backbone

POOLS = ("avg", "none")


class StageFeatures(nn.Module):
    """What a backbone computes up to a stage, after that stage's LayerNorm; later stages are not run.

    stage: from 1. pool: "avg" for the mean over all positions, "none" for the map.
    Raises ConfigError for a stage or a pooling that does not exist.
    """

    def __init__(self, backbone: Backbone, *, stage: int, pool: str = "avg") -> None:
        super().__init__()
        stages = len(backbone.stages)
        if not 1 <= stage <= stages:
            raise ConfigError(f"stage is {stage}; expected 1 to {stages}, the stages of this backbone")
        if pool not in POOLS:
            raise ConfigError(f"pool is {pool!r}; expected one of {', '.join(POOLS)}")
        self.config, self.pool = backbone.config, pool
        self.stages = nn.ModuleList(backbone.stages[:stage])

    def forward(self, images: Tensor) -> Tensor:  # (N, in_chans, H, W) -> (N, C), or (N, C, h, w)
        x = images
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3)) if self.pool == "avg" else x
