"""torchvision's region proposal network with losses that are normalised over all processes.

Shapes: N images, A anchors of an image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from ...configs.mask_rcnn import MaskRCNNConfig
from .anchors import ASPECT_RATIOS, anchor_generator
from .normalizer import mean_over_processes
from .torchvision_call import draw_normal

Features = OrderedDict[str, Tensor]
_BEFORE_SUPPRESSION = {"training": 2000, "testing": 1000}  # per level, as published
_SMOOTH = 1 / 9  # from where the box loss is linear, as torchvision has it


class RegionProposals(RegionProposalNetwork):
    """Boxes that may hold an object, from every map of the pyramid."""

    def __init__(self, config: MaskRCNNConfig) -> None:
        anchors = anchor_generator(config.smallest_anchor, sizes=(1.0,), ratios=ASPECT_RATIOS)
        super().__init__(
            anchors,
            RPNHead(config.channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=config.rpn_samples,
            positive_fraction=0.5,
            pre_nms_top_n=_BEFORE_SUPPRESSION,
            post_nms_top_n=dict.fromkeys(("training", "testing"), config.proposals),
            nms_thresh=0.7,
        )

    def propose_and_learn(
        self, batch: Any, features: Features, targets: Sequence[Any]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals of each image, (P, 4), and the losses; batch: torchvision's ImageList."""
        maps = list(features.values())
        logits, deltas = self.head(maps)
        counts = [x[0].numel() for x in logits]
        anchors = self.anchor_generator(batch, maps)
        logits, deltas = concat_box_prediction_layers(logits, deltas)
        logits, deltas = logits.float(), deltas.float()
        proposals = self.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
        kept, _ = self.filter_proposals(proposals, logits, batch.image_sizes, counts)
        labels, boxes = self.assign_targets_to_anchors(anchors, targets)
        wanted = self.box_coder.encode(boxes, anchors)
        return kept, self.compute_loss(logits, deltas, labels, wanted)

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], wanted: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Losses of the sampled anchors, divided by how many all processes have sampled."""
        sampled_positive, sampled_negative = self.fg_bg_sampler(labels)
        positive = torch.cat(sampled_positive).nonzero()[:, 0]
        sampled = torch.cat([positive, torch.cat(sampled_negative).nonzero()[:, 0]])
        total = mean_over_processes(torch.tensor(float(len(sampled)), device=objectness.device))
        truth, logits = torch.cat(labels)[sampled], objectness.flatten()[sampled]
        boxes = F.smooth_l1_loss(deltas[positive], torch.cat(list(wanted))[positive], beta=_SMOOTH, reduction="sum")
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / total,
            "loss_rpn_box_reg": boxes / total,
        }

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation: N(0, 0.01²), biases 0."""
        draw_normal(list(self.head.modules()), 0.01, generator)
