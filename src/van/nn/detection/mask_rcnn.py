"""Mask R-CNN and Cascade Mask R-CNN: proposals from the pyramid, then a box head and a mask head for each.

Shapes: N images, H, W sides of the padded batch, D objects at most, m side of a mask.

Source: arXiv 1703.06870 (Mask R-CNN), 1712.00726 (cascade).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...configs.mask_rcnn import CascadeMaskRCNNConfig, MaskRCNNConfig
from ...errors import ConfigError
from ..backbone import Backbone
from ..object_model import Detections, Size, Target, class_scores, detections
from .pyramid import FeaturePyramid
from .torchvision_call import TorchvisionDetector, require_one_target_each

COUNTED_PROPOSALS, COUNTED_MASKS = 1000, 100


class MaskRCNN(TorchvisionDetector):
    """A two-stage model that finds objects with a mask each."""

    config: MaskRCNNConfig

    def __init__(self, config: MaskRCNNConfig) -> None:
        super().__init__(config)
        from .proposals import RegionProposals

        self.backbone = Backbone(config.backbone.with_options(out_indices=()))
        self.pyramid = FeaturePyramid(self.backbone.channels, config.channels, "pool")
        self.rpn = RegionProposals(config)
        self.roi_heads: Any = _heads(config)
        self._reset_heads()

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The pyramid's maps as torchvision's heads take them, by name."""
        return OrderedDict((str(i), x) for i, x in enumerate(self.pyramid(self.backbone(images))))

    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """See ObjectModel.losses: those of the proposals and of the heads, by torchvision's names."""
        require_one_target_each(targets, len(images), "size", "boxes", "labels", "masks")
        features, sizes = self.features(images), [target["size"] for target in targets]
        from_one = [{**target, "boxes": target["boxes"].float(), "labels": target["labels"] + 1} for target in targets]
        batch = _image_list(images, sizes)
        proposals, losses = self.rpn.propose_and_learn(batch, features, from_one)
        return losses | self.roi_heads.learn(features, proposals, sizes, from_one)

    def raw(  # type: ignore[override]
        self, images: Tensor, sizes: Sequence[Size] | None = None
    ) -> dict[str, Tensor]:
        """The objects of each image, the surest first, in places for `detections_per_image` of them, D.

        "boxes" (N, D, 4) in pixels, "scores" (N, D), 0 where there is no object, "labels" (N, D) from 0, "masks"
        (N, D, m, m), probabilities in each box; all float32.
        sizes: (height, width) of each image without padding, to which boxes are cut, the proposals too. None: read off
        the images, whose padding is rows and columns of zeros.
        Raises ConfigError in training mode.
        """
        if self.training:
            raise ConfigError("the model is in training mode; call eval() first, or losses() to train")
        sizes = unpadded(images) if sizes is None else sizes
        features = self.features(images)
        proposals, _ = self.rpn(_image_list(images, sizes), features)
        results, _ = self.roi_heads(features, proposals, sizes)
        return _stacked(results, self.config.detections_per_image)

    def counted(self, images: Tensor) -> object:
        """See ObjectModel.counted: with 1,000 proposals per stage and 100 masks, as OpenMMLab's tool takes."""
        features = self.features(images)
        self.rpn.head(list(features.values()))
        return self.roi_heads.counted(features["0"], COUNTED_PROPOSALS, COUNTED_MASKS)

    def found(self, images: Tensor, sizes: Sequence[Size]) -> list[Detections]:
        """See TorchvisionDetector.found."""
        return detections(self.config, self.raw(images, sizes), sizes)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation of backbone, pyramid, proposals and heads."""
        self.backbone.reset_parameters(generator)
        self.pyramid.reset_parameters(generator)
        self._reset_heads(generator)

    def _reset_heads(self, generator: torch.Generator | None = None) -> None:
        self.rpn.reset_parameters(generator)
        self.roi_heads.reset_parameters(generator)

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Fresh output layers of the heads for `num_classes`; everything else stays.

        Raises ConfigError for an impossible number.
        """
        self.config = self.config.with_options(num_classes=num_classes)
        self.classes = None
        self.roi_heads.reset_classes(num_classes, generator)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """See Model.reorder_classes."""
        self.roi_heads.reorder_classes(order)


def _heads(config: MaskRCNNConfig) -> Any:
    if isinstance(config, CascadeMaskRCNNConfig):
        from .cascade import CascadeHeads

        return CascadeHeads(config)
    from .roi_heads import RoIHeads

    return RoIHeads(config)


def _image_list(images: Tensor, sizes: Sequence[Size]) -> Any:
    from torchvision.models.detection.image_list import ImageList

    return ImageList(images, [tuple(size) for size in sizes])


def unpadded(images: Tensor) -> list[Size]:
    """(height, width) of each image in a batch (N, C, H, W) that is padded with zeros at the right and bottom.

    An image of zeros alone counts as whole.
    """
    content = (images != 0).any(1)  # (N, H, W)
    sizes = []
    for rows, columns in zip(content.any(2), content.any(1), strict=True):
        height, width = (int(side.nonzero().max()) + 1 if side.any() else len(side) for side in (rows, columns))
        sizes.append((height, width))
    return sizes


def _stacked(results: Sequence[Mapping[str, Tensor]], places: int) -> dict[str, Tensor]:
    """torchvision's results as tensors of one size."""
    first, count = results[0], len(results)
    raw = {
        "boxes": first["boxes"].new_zeros((count, places, 4)),
        "scores": first["scores"].new_zeros((count, places)),
        "labels": first["scores"].new_zeros((count, places)),
        "masks": first["masks"].new_zeros((count, places, *first["masks"].shape[-2:])),
    }
    for i, result in enumerate(results):
        found = len(result["boxes"])
        raw["boxes"][i, :found], raw["scores"][i, :found] = result["boxes"], result["scores"]
        raw["labels"][i, :found] = result["labels"].to(raw["labels"]) - 1
        raw["masks"][i, :found] = result["masks"][:, 0]
    return {name: values.float() for name, values in raw.items()}


@detections.register
def _(config: MaskRCNNConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Detections]:
    from torchvision.ops import clip_boxes_to_image

    images = []
    for i, size in enumerate(sizes):
        kept = raw["scores"][i] > config.score_threshold
        boxes = clip_boxes_to_image(raw["boxes"][i][kept], size)
        labels, scores, masks = (raw[name][i][kept] for name in ("labels", "scores", "masks"))
        images.append(Detections(boxes=boxes, labels=labels.long(), scores=scores, masks=masks, boxed=True))
    return images


@class_scores.register
def _(config: MaskRCNNConfig, raw: Mapping[str, Tensor]) -> Tensor:
    """The score of the surest object of each class; most classes have none."""
    scores, found = raw["scores"][0], raw["scores"][0] > 0
    of_class = raw["labels"][0].long()[:, None] == torch.arange(config.num_classes, device=scores.device)  # (D, K)
    return torch.where(of_class & found[:, None], scores[:, None], -torch.inf).amax(0)
