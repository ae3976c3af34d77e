"""torchvision's box and mask heads with losses that are normalised over all processes.

Shapes: N images, P proposals of an image, R sampled ones of a batch, K classes, m side of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads as TorchvisionRoIHeads
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from ...configs.mask_rcnn import MaskRCNNConfig
from ..object_model import Size
from .normalizer import mean_over_processes
from .proposals import Features
from .torchvision_call import conv_like, draw_normal, reordered

BOX_SIDE, MASK_SIDE = 7, 14  # of the pooled maps
POSITIVE = 0.25  # part of the sampled proposals that may be objects
_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_SMOOTH = 1 / 9  # from where the box loss is linear, as torchvision has it


class Sampled(NamedTuple):
    """What the heads learn from.

    Per image: boxes (P, 4); objects (P,), the index of the one that each is compared with; labels (P,), 0 for the
    background; wanted (P, 4) deltas; given (P,): which of the boxes are the objects themselves.
    """

    boxes: list[Tensor]
    objects: list[Tensor]
    labels: list[Tensor]
    wanted: Sequence[Tensor]
    given: list[Tensor]


class RoIHeads(TorchvisionRoIHeads):
    """One box head and one mask head.

    agnostic: the box head moves boxes without regard to their class, as cascades do.
    """

    def __init__(
        self,
        config: MaskRCNNConfig,
        *,
        iou: float = 0.5,
        weights: tuple[float, float, float, float] = _WEIGHTS,
        agnostic: bool = False,
    ) -> None:
        classes = config.num_classes + 1
        predictor = FastRCNNPredictor(config.hidden_channels, classes)
        if agnostic:
            predictor.bbox_pred = nn.Linear(config.hidden_channels, 4)
        super().__init__(
            _pool(BOX_SIDE, config),
            TwoMLPHead(config.channels * BOX_SIDE**2, config.hidden_channels),
            predictor,
            fg_iou_thresh=iou,
            bg_iou_thresh=iou,
            batch_size_per_image=config.box_samples,
            positive_fraction=POSITIVE,
            bbox_reg_weights=weights,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections_per_image,
            mask_roi_pool=_pool(MASK_SIDE, config),
            mask_head=MaskRCNNHeads(config.channels, (config.mask_channels,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(config.mask_channels, config.mask_channels, classes),
        )
        self.agnostic = agnostic

    def learn(
        self, features: Features, proposals: list[Tensor], sizes: Sequence[Size], targets: Sequence[Any]
    ) -> dict[str, Tensor]:
        """Losses of the heads; targets: torchvision's, labels from 1."""
        sampled = self.sample(proposals, targets)
        logits, deltas = self.predict(features, sampled.boxes, sizes)
        return {
            **self.box_losses(logits, deltas, sampled),
            "loss_mask": self.mask_loss(features, sampled, sizes, targets),
        }

    def predict(self, features: Features, boxes: list[Tensor], sizes: Sequence[Size]) -> tuple[Tensor, Tensor]:
        """The box head's answers: (R, K + 1) logits, (R, 4 · (K + 1)) or (R, 4) deltas, float32."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, sizes)))
        return logits.float(), deltas.float()

    def sample(self, proposals: list[Tensor], targets: Sequence[Any]) -> Sampled:
        """Proposals and the objects' own boxes, compared with the objects and drawn from."""
        objects = [target["boxes"].to(proposals[0].dtype) for target in targets]
        boxes = self.add_gt_proposals(proposals, objects)
        index, labels = self.assign_targets_to_proposals(boxes, objects, [target["labels"] for target in targets])
        chosen = self.subsample(labels)
        own = [torch.arange(len(b), device=b.device) >= len(p) for b, p in zip(boxes, proposals, strict=True)]
        boxes, index, labels, own = (
            [values[rows] for values, rows in zip(each, chosen, strict=True)] for each in (boxes, index, labels, own)
        )
        matched = [
            truth[rows] if len(truth) else part.new_zeros((len(rows), 4))
            for truth, rows, part in zip(objects, index, boxes, strict=True)
        ]
        return Sampled(boxes, index, labels, self.box_coder.encode(matched, boxes), own)

    def box_losses(self, logits: Tensor, deltas: Tensor, sampled: Sampled) -> dict[str, Tensor]:
        """Losses divided by how many proposals all processes have sampled."""
        labels, wanted = torch.cat(sampled.labels), torch.cat(list(sampled.wanted))
        total = mean_over_processes(torch.tensor(float(len(labels)), device=logits.device))
        positive = (labels > 0).nonzero()[:, 0]
        deltas = deltas.unflatten(1, (-1, 4))  # (R, K + 1 or 1, 4)
        moved = deltas[positive, labels[positive] if deltas.shape[1] > 1 else 0]
        boxes = F.smooth_l1_loss(moved, wanted[positive], beta=_SMOOTH, reduction="sum")
        return {
            "loss_classifier": F.cross_entropy(logits, labels, reduction="sum") / total,
            "loss_box_reg": boxes / total,
        }

    def mask_loss(self, features: Features, sampled: Sampled, sizes: Sequence[Size], targets: Sequence[Any]) -> Tensor:
        """Cross-entropy of the masks of the sampled objects, the mean over their places."""
        kept = [labels > 0 for labels in sampled.labels]
        boxes, index, labels = (
            [values[rows] for values, rows in zip(each, kept, strict=True)]
            for each in (sampled.boxes, sampled.objects, sampled.labels)
        )
        logits = self.mask_logits(features, boxes, sizes)
        m = logits.shape[-1]
        parts = zip(targets, boxes, index, strict=True)
        truth = torch.cat([project_masks_on_boxes(t["masks"], part, rows, m) for t, part, rows in parts])
        mine = torch.cat(labels)
        total = mean_over_processes(torch.tensor(float(len(mine)), device=logits.device))
        places = logits[torch.arange(len(mine), device=mine.device), mine]  # (R, m, m)
        return F.binary_cross_entropy_with_logits(places, truth, reduction="sum") / (total * m * m)

    def mask_logits(self, features: Features, boxes: list[Tensor], sizes: Sequence[Size]) -> Tensor:
        """(R, K + 1, m, m) float32."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, sizes))).float()

    def counted(self, features: Tensor, proposals: int, masks: int) -> None:
        """Run the heads on so many pooled maps of no particular values, like `features` (N, C, h, w)."""
        channels = features.shape[1]
        self.box_predictor(self.box_head(features.new_empty(proposals, channels, BOX_SIDE, BOX_SIDE)))
        self.mask_predictor(self.mask_head(features.new_empty(masks, channels, MASK_SIDE, MASK_SIDE)))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation: linear layers uniform with variance 1 / fan_in, masks N(0, 2 / fan_out)."""
        for module in self.box_head.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1, generator=generator)
                nn.init.zeros_(module.bias)
        for module in [*self.mask_head.modules(), self.mask_predictor.conv5_mask]:
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                _draw_for_relu(module, generator)
        self._reset_output_layers(generator)

    def _reset_output_layers(self, generator: torch.Generator | None) -> None:
        draw_normal([self.box_predictor.cls_score], 0.01, generator)
        draw_normal([self.box_predictor.bbox_pred], 0.001, generator)
        _draw_for_relu(self.mask_predictor.mask_fcn_logits, generator)

    def reset_classes(self, num_classes: int, generator: torch.Generator | None) -> None:
        """Fresh output layers for so many classes, the background not counted."""
        boxes, masks = self.box_predictor, self.mask_predictor
        boxes.cls_score = _linear_like(boxes.cls_score, num_classes + 1)
        boxes.bbox_pred = _linear_like(boxes.bbox_pred, 4 if self.agnostic else 4 * (num_classes + 1))
        masks.mask_fcn_logits = conv_like(masks.mask_fcn_logits, num_classes + 1)
        self._reset_output_layers(generator)

    def reorder_classes(self, order: Sequence[int]) -> None:
        """Row `order[i]` of the classes becomes row i; the background stays first."""
        layers = [(self.box_predictor.cls_score, 1), (self.mask_predictor.mask_fcn_logits, 1)]
        layers += [] if self.agnostic else [(self.box_predictor.bbox_pred, 4)]
        for layer, each in layers:
            for parameter in layer.parameters():
                reordered(parameter, order, before=each, each=each)


def _pool(side: int, config: MaskRCNNConfig) -> MultiScaleRoIAlign:
    """Pooling from the backbone's strides, which torchvision would else guess from the first batch that it meets."""
    strides = config.backbone.reductions
    pool = MultiScaleRoIAlign([str(i) for i in range(len(strides))], side, sampling_ratio=2)
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = LevelMapper(round(math.log2(strides[0])), round(math.log2(strides[-1])))
    return pool


def _draw_for_relu(layer: nn.Conv2d | nn.ConvTranspose2d, generator: torch.Generator | None) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _linear_like(old: nn.Linear, width: int) -> nn.Linear:
    new = nn.Linear(old.in_features, width, device=old.weight.device, dtype=old.weight.dtype)
    return new.train(old.training)
