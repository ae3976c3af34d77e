"""The network of the toy: the backbone's last map, its mean, a linear layer."""

import torch
from torch import Tensor, nn

from van.nn import Backbone
from van.nn.model import Model

from .config import MeanColourConfig


class MeanColour(Model):
    """(N, C, H, W) -> (N, 3) colours, 0 … 1."""

    def __init__(self, config: MeanColourConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = nn.Linear(config.backbone.embed_dims[-1], config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone.last(images).mean((2, 3)))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.backbone.reset_parameters(generator)
        self.reset_classifier(self.config.num_classes, generator)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        self.config = self.config.with_options(num_classes=num_classes)
        self.head = nn.Linear(self.head.in_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.head.bias)
