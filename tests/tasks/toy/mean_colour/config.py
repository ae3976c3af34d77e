"""The configuration that checkpoints of the toy carry."""

from dataclasses import dataclass
from typing import ClassVar

from van.configs.backbone import VanConfig
from van.configs.head_config import HeadConfig


@dataclass(frozen=True, kw_only=True)
class MeanColourConfig(HeadConfig):
    """A backbone and a linear layer; `num_classes`: channels of the colour."""

    task: ClassVar[str] = "mean_colour"
    noun: ClassVar[str] = "colour guesser"
    section: ClassVar[str] = "mean_colour"

    backbone: VanConfig
    num_classes: int = 3
    method: str = "linear"

    @property
    def name(self) -> str:
        return "mean_colour_van_custom"


TINY = VanConfig(
    num_classes=0, embed_dims=(4, 4, 4, 8), depths=(1, 1, 1, 1), mlp_ratios=(1, 1, 1, 1), layer_scale_init=1.0
)
