"""Object detection: torchvision's RetinaNet and Mask R-CNN on a feature pyramid over the backbone's maps.

Shape legend: N images, H height, W width, K objects in an image.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from ..configs.mask_rcnn import MaskRCNNConfig
from ..configs.retinanet import RetinaNetConfig
from ..errors import MissingExtraError
from .backbone import Backbone

ASPECT_RATIOS = (0.5, 1.0, 2.0)
METHODS = {"retinanet": (1, 2, 3), "mask_rcnn": (0, 1, 2, 3)}
OCTAVE = tuple(2 ** (k / 3) for k in range(3))  # RetinaNet's three sizes of anchors per map


class DetectionPyramid(nn.Module):
    """Backbone and feature pyramid as torchvision's detectors take them: images -> ordered maps of equal width."""

    def __init__(self, config: RetinaNetConfig | MaskRCNNConfig) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

        self.out_channels = config.channels
        self.backbone = Backbone(config.backbone.with_options(out_indices=METHODS[config.method]))
        extra: Any = LastLevelMaxPool()
        if config.method == "retinanet":
            extra = LastLevelP6P7(self.backbone.channels[-1], config.channels)
            extra.use_P5 = False  # from the backbone's last map, also where that has as many channels as the pyramid
        self.fpn = FeaturePyramidNetwork(list(self.backbone.channels), config.channels, extra)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(N, in_chans, H, W) -> the backbone's maps, finest first, and what the method appends."""
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.backbone(images))))


def detector(config: RetinaNetConfig | MaskRCNNConfig) -> nn.Module:
    """torchvision's detector of a configuration, in training mode, `config` its plain attribute.

    Training: (images, targets) -> dict of losses; eval: images -> one dict of boxes, labels, scores (and masks) each.
    images: a list of (in_chans, H, W) on the 0 … 1 scale, of any sizes. targets: per image `boxes` (K, 4) as corners
    x, y, x, y in pixels, `labels` (K,) from 1, and for Mask R-CNN `masks` (K, H, W).
    Raises MissingExtraError without torchvision.
    """
    try:
        from torchvision.models.detection import MaskRCNN, RetinaNet
        from torchvision.models.detection.anchor_utils import AnchorGenerator
    except ImportError as error:
        raise MissingExtraError.of("torchvision", "hosts", "for detectors") from error
    octave = OCTAVE if config.method == "retinanet" else (1.0,)
    sides = [config.smallest_anchor * 2**level for level in range(5)]
    sizes = tuple(tuple(int(side * step) for step in octave) for side in sides)
    anchors = AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(sizes))
    images: dict[str, Any] = {"min_size": config.min_size, "max_size": config.max_size}
    images |= {"image_mean": list(config.mean), "image_std": list(config.std)}
    pyramid, classes = DetectionPyramid(config), config.num_classes + 1  # and the background
    if config.method == "retinanet":
        model: nn.Module = RetinaNet(
            pyramid,
            classes,
            **images,
            anchor_generator=anchors,
            score_thresh=config.score_threshold,
            detections_per_img=config.detections_per_image,
        )
    else:
        model = MaskRCNN(
            pyramid,
            classes,
            **images,
            rpn_anchor_generator=anchors,
            box_score_thresh=config.score_threshold,
            box_detections_per_img=config.detections_per_image,
        )
    model.__dict__["config"] = config
    return model
