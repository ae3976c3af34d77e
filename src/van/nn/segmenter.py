"""Semantic segmentation: backbone, neck, head, and an auxiliary head for training.

Shape legend: N batch, H height, W width of the image, h and w of the head's logits, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.segmenter import SegmenterConfig
from .backbone import Backbone
from .hamburger import factorisations
from .heads import FPN, FCNHead, HamNetHead, LightHamHead, SemanticFPNHead, UperNetHead
from .heads.layers import PixelClassifier
from .model import Model


class Segmenter(Model):
    """A Visual Attention Network with a segmentation head: (N, in_chans, H, W) -> (N, K, H, W) logits.

    Built on the meta device, `to_empty` leaves the usual uninitialised parameters but usable NMF bases.
    Source: arXiv 2202.09741, section 4.3, and the VAN segmentation code.
    """

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
        self.auxiliary = _auxiliary(config) if config.auxiliary else None
        self._reset_heads()

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the size of the images, resized bilinearly from the head's: (N, K, H, W)."""
        return F.interpolate(self.decode(images), images.shape[-2:], mode="bilinear", align_corners=False)

    def raw(self, images: Tensor) -> Tensor:
        """See Model.raw: `decode`."""
        return self.decode(images)

    def decode(self, images: Tensor) -> Tensor:
        """Logits at the head's own size: (N, K, h, w)."""
        return self.head(self.neck(self.backbone(images)))

    def decode_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both heads' logits at their own sizes, for the training loss; the second is None without auxiliary head."""
        pyramid = self.backbone(images)
        auxiliary = None if self.auxiliary is None else self.auxiliary(pyramid[2])
        return self.head(self.neck(pyramid)), auxiliary

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation of the whole network: see Backbone.reset_parameters and `reset_heads`."""
        self.backbone.reset_parameters(generator)
        self._reset_heads(generator)

    def _reset_heads(self, generator: torch.Generator | None = None) -> None:
        """Convolutions N(0, 2 / fan_out), the neck's uniform (Xavier), pixel classifiers N(0, 0.01²), biases 0."""
        for part in (self.neck, self.head, self.auxiliary):
            for module in part.modules() if part is not None else ():
                if isinstance(module, nn.Conv2d):
                    _reset_conv(module, xavier=part is self.neck, generator=generator)
                elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
                    module.reset_parameters()
        for classifier in self._classifiers():
            classifier.reset_parameters(generator)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Fresh pixel classifiers for `num_classes`, auxiliary head included; the rest of the network stays.

        Raises ConfigError for an impossible number.
        """
        self.config = self.config.with_options(num_classes=num_classes)
        self.classes = self.palette = None
        for classifier in self._classifiers():
            classifier.resize(num_classes)
            classifier.reset_parameters(generator)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """Row `order[i]` of every pixel classifier becomes row i: the same logits in another order."""
        with torch.no_grad():
            for classifier in self._classifiers():
                for parameter in classifier.parameters():
                    parameter.copy_(parameter[list(order)])

    def _classifiers(self) -> list[PixelClassifier]:
        return [module for module in self.modules() if isinstance(module, PixelClassifier)]

    def to_empty(self, *, device: Any, recurse: bool = True) -> Segmenter:
        """As torch's, and the NMF bases are drawn again: published files do not hold them."""
        super().to_empty(device=device, recurse=recurse)
        for module in factorisations(self):
            module.reset_bases()
        return self


def _head(config: SegmenterConfig, widths: tuple[int, ...]) -> nn.Module:
    shared: dict[str, Any] = {
        "channels": config.channels,
        "num_classes": config.num_classes,
        "drop_rate": config.drop_rate,
    }
    if config.method == "upernet":
        return UperNetHead(widths, **shared)
    if config.method == "semantic_fpn":
        return SemanticFPNHead(widths, **shared)
    ham = {"ham_channels": config.ham_channels, "ham_rank": config.ham_rank}
    if config.method == "light_ham":
        return LightHamHead(widths, **shared, **ham)
    return HamNetHead(widths, **shared, **ham)


def _auxiliary(config: SegmenterConfig) -> FCNHead:
    return FCNHead(
        config.backbone.embed_dims[2],
        channels=config.auxiliary_channels,
        num_classes=config.num_classes,
        drop_rate=config.drop_rate,
        norm="group" if config.method == "hamnet" else "batch",
    )


def _reset_conv(conv: nn.Conv2d, *, xavier: bool, generator: torch.Generator | None) -> None:
    if xavier:
        nn.init.xavier_uniform_(conv.weight, generator=generator)
    else:
        fan_out = math.prod(conv.kernel_size) * conv.out_channels
        nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
