"""Semantic segmentation: backbone, neck, head, and an auxiliary head for training.

Shape legend: N batch, H height, W width of the image, h and w of the head's logits, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..segmenters import SegmenterConfig
from .backbone import Backbone
from .heads import FPN, FCNHead, HamNetHead, LightHamHead, SemanticFPNHead, UperNetHead


class Segmenter(nn.Module):
    """A Visual Attention Network with a segmentation head: (N, in_chans, H, W) -> (N, K, H, W) logits."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone.with_options(out_indices=()))
        widths = config.backbone.embed_dims
        self.neck: nn.Module = nn.Identity()
        if config.method == "semantic_fpn":
            self.neck = FPN(widths, config.neck_channels)
            widths = (config.neck_channels,) * len(widths)
        self.head = _head(config, widths)
        self.auxiliary: nn.Module | None = None
        if config.auxiliary:
            self.auxiliary = FCNHead(
                config.backbone.embed_dims[2],
                channels=config.auxiliary_channels,
                num_classes=config.num_classes,
                drop_rate=config.drop_rate,
                norm="group" if config.method == "hamnet" else "batch",
            )
        self.reset_classifiers()

    @property
    def num_classes(self) -> int:
        """Number of classes of the logits."""
        return self.config.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the size of the images, resized bilinearly from the head's: (N, K, H, W)."""
        return F.interpolate(self.decode(images), images.shape[-2:], mode="bilinear", align_corners=False)

    def decode(self, images: Tensor) -> Tensor:
        """Logits at the head's own size: (N, K, h, w)."""
        return self.head(self.neck(self.backbone(images)))

    def decode_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both heads' logits at their own sizes, for the training loss; the second is None without auxiliary head."""
        pyramid = self.backbone(images)
        auxiliary = None if self.auxiliary is None else self.auxiliary(pyramid[2])
        return self.head(self.neck(pyramid)), auxiliary

    def reset_classifiers(self) -> None:
        """Published initialisation of the pixel classifiers: N(0, 0.01²), bias 0."""
        for head in (self.head, self.auxiliary):
            if head is not None:
                nn.init.normal_(head.classify.conv.weight, std=0.01)
                nn.init.zeros_(head.classify.conv.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See Backbone.set_grad_checkpointing."""
        self.backbone.set_grad_checkpointing(enable)


def _head(config: SegmenterConfig, widths: tuple[int, ...]) -> nn.Module:
    sizes = {"channels": config.channels, "num_classes": config.num_classes}
    if config.method == "upernet":
        return UperNetHead(widths, **sizes, drop_rate=config.drop_rate)
    if config.method == "semantic_fpn":
        return SemanticFPNHead(widths, **sizes, drop_rate=config.drop_rate)
    head = LightHamHead if config.method == "light_ham" else HamNetHead
    ham = {"ham_channels": config.ham_channels, "ham_rank": config.ham_rank}
    return head(widths, **sizes, **ham, drop_rate=config.drop_rate)
