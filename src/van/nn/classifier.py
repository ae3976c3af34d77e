"""The image classifier: backbone, mean over positions, dropout, linear head.

Shapes: N batch, C channels of the last stage, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..configs.backbone import VanConfig
from .backbone import Backbone
from .model import Model


class Classifier(Model):
    """A Visual Attention Network with its classification head: (N, in_chans, H, W) -> (N, K) logits.

    With `num_classes=0` the head is an identity and the output is the pooled feature (N, C).
    Source: arXiv 2202.09741, section 3.2; the order (last map, LayerNorm, mean, linear) of every published code base.
    """

    def __init__(self, config: VanConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.dropout = nn.Dropout(config.head_drop_rate)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(config.num_classes)

    @property
    def config(self) -> VanConfig:
        """The configuration that this network was built from, with the present number of classes."""
        return self.backbone.config.with_options(num_classes=self.num_classes)

    @property
    def num_classes(self) -> int:
        """Width of the head; 0 when it returns features."""
        return getattr(self.head, "out_features", 0)  # also of what an adapter puts in its place

    @property
    def num_features(self) -> int:
        """Width of the pooled feature."""
        return self.backbone.config.embed_dims[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> the last stage's map after its LayerNorm, (N, C, H / 32, W / 32) rounded up."""
        return self.backbone.last(images)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, K) logits, or the pooled (N, C) feature with `pre_logits`."""
        x = self.dropout(x.mean((2, 3)))
        return x if pre_logits else self.head(x)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation of the whole network: see Backbone.reset_parameters and `reset_classifier`."""
        self.backbone.reset_parameters(generator)
        self.reset_classifier(self.num_classes, generator)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """A fresh head for `num_classes` (0: none), initialised as published: N(0, 0.02²) truncated, bias 0.

        Raises ConfigError for a negative number.
        """
        self.backbone.config.with_options(num_classes=num_classes)  # raises ConfigError for impossible numbers
        self.classes = None
        if num_classes == 0:
            self.head = nn.Identity()
            return
        like = next(self.backbone.parameters())
        head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
        nn.init.trunc_normal_(head.weight, std=0.02, generator=generator)
        nn.init.zeros_(head.bias)
        self.head = head.train(self.training)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """Row `order[i]` of the head becomes row i: the same logits in another order."""
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.copy_(parameter[list(order)])
