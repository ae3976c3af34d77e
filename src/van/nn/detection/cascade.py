"""The cascade of heads: each learns from, and refines, the boxes that the one before has moved.

Shapes: N images, P proposals of an image, R of a batch, K classes, m side of a mask.

Source: arXiv 1712.00726 (boxes); with a mask head per stage as OpenMMLab's published Cascade Mask R-CNN has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from ...configs.mask_rcnn import CascadeMaskRCNNConfig
from ..object_model import Size
from .proposals import Features
from .roi_heads import RoIHeads, Sampled


class CascadeHeads(nn.Module):
    """Stages of RoIHeads; call it as those: in eval mode it gives one dict of objects per image, and no losses."""

    def __init__(self, config: CascadeMaskRCNNConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            RoIHeads(config, iou=iou, weights=coder_weights(stage), agnostic=True)
            for stage, iou in enumerate(config.stage_ious)
        )

    def forward(
        self, features: Features, proposals: list[Tensor], sizes: Sequence[Size]
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        scores, last = [], len(self.stages) - 1
        for i, stage in enumerate(self._heads()):
            logits, deltas = stage.predict(features, proposals, sizes)
            scores.append(logits.softmax(1))
            if i < last:
                proposals = moved(stage, deltas, proposals, sizes)
        mean = torch.stack(scores).mean(0)  # (R, K + 1)
        deltas = deltas.repeat(1, mean.shape[1])  # the same for all classes
        # torchvision takes logits: the softmax of the logarithm of probabilities is these again
        boxes, found, labels = stage.postprocess_detections(mean.log(), deltas, proposals, sizes)
        results = [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(boxes, found, labels, strict=True)]
        for result, masks in zip(results, self._masks(features, boxes, labels, sizes), strict=True):
            result["masks"] = masks
        return results, {}

    def _masks(
        self, features: Features, boxes: list[Tensor], labels: list[Tensor], sizes: Sequence[Size]
    ) -> list[Tensor]:
        """The mean of the stages' probabilities, (P, 1, m, m) per image."""
        chosen = torch.cat(labels)
        rows = torch.arange(len(chosen), device=chosen.device)
        stages = [stage.mask_logits(features, boxes, sizes).sigmoid()[rows, chosen] for stage in self._heads()]
        masks = torch.stack(stages).mean(0)[:, None]
        return list(masks.split([len(part) for part in boxes]))

    def learn(
        self, features: Features, proposals: list[Tensor], sizes: Sequence[Size], targets: Sequence[Any]
    ) -> dict[str, Tensor]:
        """Losses of all stages, "loss_classifier_1" and so on; a stage counts half of the one before."""
        losses: dict[str, Tensor] = {}
        for i, stage in enumerate(self._heads()):
            sampled = stage.sample(proposals, targets)
            logits, deltas = stage.predict(features, sampled.boxes, sizes)
            own = stage.box_losses(logits, deltas, sampled)
            own["loss_mask"] = stage.mask_loss(features, sampled, sizes, targets)
            losses |= {f"{name}_{i + 1}": loss * 0.5**i for name, loss in own.items()}
            proposals = _without_objects(moved(stage, deltas.detach(), sampled.boxes, sizes), sampled)
        return losses

    def counted(self, features: Tensor, proposals: int, masks: int) -> None:
        """See RoIHeads.counted."""
        for stage in self._heads():
            stage.counted(features, proposals, masks)

    def _heads(self) -> list[RoIHeads]:
        return list(self.stages)  # type: ignore[arg-type]

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """See RoIHeads.reset_parameters."""
        for stage in self._heads():
            stage.reset_parameters(generator)

    def reset_classes(self, num_classes: int, generator: torch.Generator | None) -> None:
        """See RoIHeads.reset_classes."""
        for stage in self._heads():
            stage.reset_classes(num_classes, generator)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """See RoIHeads.reorder_classes."""
        for stage in self._heads():
            stage.reorder_classes(order)


def coder_weights(stage: int) -> tuple[float, float, float, float]:
    """What a stage's deltas are multiplied by: the better the boxes, the finer the steps."""
    return (10.0 * (stage + 1), 10.0 * (stage + 1), 5.0 * (stage + 1), 5.0 * (stage + 1))


def moved(stage: RoIHeads, deltas: Tensor, boxes: list[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
    """The boxes of each image, moved by (R, 4) deltas and cut to the image."""
    decoded = stage.box_coder.decode_single(deltas, torch.cat(boxes)).split([len(part) for part in boxes])
    return [clip_boxes_to_image(part, size) for part, size in zip(decoded, sizes, strict=True)]


def _without_objects(boxes: list[Tensor], sampled: Sampled) -> list[Tensor]:
    """Without what the objects' own boxes became; the next stage gets these boxes themselves."""
    return [part[~given] for part, given in zip(boxes, sampled.given, strict=True)]
