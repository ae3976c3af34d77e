"""Mask2Former's losses: queries are matched with segments, and masks are compared at points.

Paper: arXiv 2112.01527, sections 3.2 and 3.3; points: PointRend, arXiv 1912.08193, section 3.2.

Shapes: N images, L outputs (of the queries as learned, and after each layer of the decoder), Q queries, K classes,
M segments of an image, T of the batch, P points, h and w of predicted masks, H and W of true ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...configs.mask2former import Mask2FormerFields
from ...errors import DataError, MissingExtraError
from ..object_model import Target
from .normalizer import mean_over_processes

Output = tuple[Tensor, Tensor]  # class logits (N, Q, K + 1), mask logits (N, Q, h, w)


class MaskCriterion:
    """Losses of all outputs against the segments of a batch.

    draw: gives random numbers in [0, 1) of a shape, for the coordinates of points; `torch.rand` in training.
    """

    def __init__(self, config: Mask2FormerFields, draw: Callable[..., Tensor] = torch.rand) -> None:
        self.config = config
        self.draw = draw

    def __call__(self, outputs: Sequence[Output], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Weighted losses "class", "mask", "dice" of the last output, and the sums of those of the earlier ones.

        Means are taken over the queries and segments of all processes.
        Raises DataError for targets without masks.
        """
        if any("masks" not in target for target in targets):
            raise DataError("the objects have no masks, which Mask2Former learns from; use data with masks")
        outputs = [(classes.float(), masks.float()) for classes, masks in outputs]
        labels = torch.cat([target["labels"] for target in targets])  # (T,)
        truth = torch.cat([target["masks"] for target in targets])  # (T, H, W)
        matches = self.match(outputs, targets)
        c, (logits, _) = self.config, outputs[0]
        matched = len(matches[0][0])
        others = c.no_object_weight * (logits.shape[0] * logits.shape[1] - matched)
        queries = mean_over_processes(logits.new_tensor(matched + others))
        segments = mean_over_processes(logits.new_tensor(len(labels)))
        weights = (c.class_weight, c.mask_weight, c.dice_weight)
        sums: dict[str, Tensor] = {}
        for (class_logits, mask_logits), (rows, of) in zip(outputs, matches, strict=True):
            ending = "" if class_logits is outputs[-1][0] else "_auxiliary"
            found = self._class_loss(class_logits, rows, labels[of]) / queries
            mask, dice = self._mask_losses(mask_logits.flatten(0, 1)[rows], truth[of])
            for name, weight, loss in zip(
                ("class", "mask", "dice"), weights, (found, mask / segments, dice / segments), strict=True
            ):
                sums[name + ending] = sums.get(name + ending, 0) + weight * loss
        return sums

    @torch.no_grad()
    def match(self, outputs: Sequence[Output], targets: Sequence[Target]) -> list[tuple[Tensor, Tensor]]:
        """For each output the pairs of least cost: (query, of all N Q), (segment, of all T)."""
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError as error:
            raise MissingExtraError.of("scipy", "detection", "to train Mask2Former") from error
        rows: list[list[Tensor]] = [[] for _ in outputs]
        columns: list[list[Tensor]] = [[] for _ in outputs]
        first, queries = 0, outputs[0][0].shape[1]
        for i, target in enumerate(targets):
            if len(target["labels"]):
                costs = self._costs(
                    torch.stack([classes[i] for classes, _ in outputs]),
                    torch.stack([masks[i] for _, masks in outputs]),
                    target,
                ).cpu()
                for output, cost in enumerate(costs):
                    query, segment = (torch.from_numpy(index) for index in linear_sum_assignment(cost.numpy()))
                    rows[output].append(query + i * queries)
                    columns[output].append(segment + first)
            first += len(target["labels"])
        device, nothing = outputs[0][0].device, torch.zeros(0, dtype=torch.int64)
        return [
            (torch.cat([nothing, *row]).to(device), torch.cat([nothing, *column]).to(device))
            for row, column in zip(rows, columns, strict=True)
        ]

    def _costs(self, classes: Tensor, masks: Tensor, target: Target) -> Tensor:
        """(L, Q, K + 1), (L, Q, h, w) and an image's truth -> (L, Q, M)."""
        c = self.config
        points = self.draw(len(masks), c.train_points, 2, device=masks.device)
        logits = at_points(masks, points)  # (L, Q, P)
        truth = at_points(target["masks"].to(masks)[None].expand(len(masks), -1, -1, -1), points)  # (L, M, P)
        inside, outside = F.softplus(-logits) / c.train_points, F.softplus(logits) / c.train_points
        mask = inside @ truth.mT + outside @ (1 - truth).mT
        found = logits.sigmoid()
        dice = 1 - (2 * found @ truth.mT + 1) / (found.sum(-1)[..., None] + truth.sum(-1)[:, None] + 1)
        kind = -classes.softmax(-1)[..., target["labels"]]
        costs = c.class_weight * kind + c.mask_weight * mask + c.dice_weight * dice
        most = torch.finfo(costs.dtype).max  # what is no number is matched last
        return costs.nan_to_num(nan=most, posinf=most, neginf=most)

    def _class_loss(self, logits: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Sum over all queries; the last class means that a query has no segment."""
        nothing = logits.shape[-1] - 1
        weight = logits.new_ones(nothing + 1)
        weight[-1] = self.config.no_object_weight
        logits = logits.flatten(0, 1)
        truth = labels.new_full((len(logits),), nothing)
        truth[rows] = labels
        return F.cross_entropy(logits, truth, weight, reduction="sum")

    def _mask_losses(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """(R, h, w) and (R, H, W) of matched pairs -> binary cross-entropy, dice loss: sums over the pairs."""
        logits, truth = logits[:, None], truth[:, None].to(logits)
        with torch.no_grad():
            points = self._points(logits)
            truth = at_points(truth, points)[:, 0]  # (R, P)
        logits = at_points(logits, points)[:, 0]
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1).sum()
        found = logits.sigmoid()
        dice = 1 - (2 * (found * truth).sum(1) + 1) / (found.sum(1) + truth.sum(1) + 1)
        return entropy, dice.sum()

    def _points(self, logits: Tensor) -> Tensor:
        """Points to compare masks (R, 1, h, w) at: (R, P, 2), most of them where the prediction is least sure."""
        c = self.config
        drawn = self.draw(len(logits), int(c.train_points * c.oversample_ratio), 2, device=logits.device)
        unsure = int(c.train_points * c.importance_ratio)
        chosen = at_points(logits, drawn)[:, 0].abs().topk(unsure, dim=1, largest=False).indices
        points = drawn.gather(1, chosen[..., None].expand(-1, -1, 2))
        if unsure == c.train_points:
            return points
        rest = self.draw(len(logits), c.train_points - unsure, 2, device=logits.device)
        return torch.cat([points, rest], 1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps (B, C, H, W) at points (B, P, 2), x and y from 0 to 1, bilinear, 0 outside: (B, C, P)."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]
