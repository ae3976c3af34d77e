"""The losses of segmenters: cross-entropy with mining, Dice, Lovász-Softmax, focal; any weighted sum of them.

Shapes: N batch, K classes, H and W of the label maps, h and w of the logits, P pixels with a label.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...recipes.segmentation.loss_spec import SegmentationLossSpec

DEFAULT_MIN_KEPT = 100_000  # mmseg's
DEFAULT_GAMMA = 2.0  # of the focal loss


class PixelLoss(nn.Module):
    """Logits (N, K, h, w) and label maps (N, H, W) to a scalar; the logits are resized to the label maps.

    weights: of the classes, (K,); None: all alike.
    Source: mmseg's CrossEntropyLoss and OHEMPixelSampler; class weights do not enter the divisor, there or here.
    """

    weights: Tensor | None

    def __init__(self, spec: SegmentationLossSpec, *, ignore_index: int, weights: Tensor | None = None) -> None:
        super().__init__()
        self.spec, self.ignore_index = spec, ignore_index
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        spec, weights = self.spec, None if self.weights is None else self.weights.float()
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
        terms: list[Tensor] = []
        if spec.cross_entropy:
            terms.append(spec.cross_entropy * self._cross_entropy(logits, labels, weights))
        if spec.dice:
            terms.append(spec.dice * dice_loss(logits, labels, ignore_index=self.ignore_index, weights=weights))
        if spec.lovasz:
            terms.append(spec.lovasz * lovasz_loss(logits, labels, ignore_index=self.ignore_index, weights=weights))
        if spec.focal:
            terms.append(spec.focal * self._focal(logits, labels, weights))
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def _focal(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        spec = self.spec
        return focal_loss(
            logits,
            labels,
            ignore_index=self.ignore_index,
            gamma=DEFAULT_GAMMA if spec.focal_gamma is None else spec.focal_gamma,
            alpha=spec.focal_alpha,
            weights=weights,
        )

    def _cross_entropy(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        losses = F.cross_entropy(logits, labels, weight=weights, ignore_index=self.ignore_index, reduction="none")
        if self.spec.ohem_threshold is not None:
            losses = losses * self._hard(logits.detach(), labels)
        elif self.spec.ohem_top_k is not None:
            losses = losses * self._hardest(logits.detach(), labels, self.spec.ohem_top_k * len(labels))
        if self.spec.average == "pixels":
            return losses.mean()
        return losses.sum() / (labels != self.ignore_index).sum().clamp_min(1)

    def _hard(self, logits: Tensor, labels: Tensor) -> Tensor:
        """1 for pixels that count, 0 for easy and ignored ones: (N, H, W)."""
        known = labels != self.ignore_index
        right = logits.softmax(1).gather(1, labels.where(known, 0)[:, None])[:, 0]  # (N, H, W)
        probabilities = right[known]
        if not probabilities.numel():
            return known.float()
        kept = (self.spec.ohem_min_kept or DEFAULT_MIN_KEPT) * len(labels)
        least = probabilities.sort().values[min(kept, probabilities.numel() - 1)]
        assert self.spec.ohem_threshold is not None
        return (known & (right < least.clamp_min(self.spec.ohem_threshold))).float()

    def _hardest(self, logits: Tensor, labels: Tensor, count: int) -> Tensor:
        """1 for the `count` pixels of the batch with the largest loss, class weights apart: (N, H, W)."""
        known = labels != self.ignore_index
        losses = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none")
        chosen = losses.where(known, -1.0).flatten().topk(min(count, losses.numel())).indices
        counted = torch.zeros_like(losses).flatten()
        counted[chosen] = 1.0
        return counted.view_as(losses) * known


def dice_loss(logits: Tensor, labels: Tensor, *, ignore_index: int, weights: Tensor | None = None) -> Tensor:
    """Mean over the classes of 1 - 2 |p·y| / (|p| + |y|), taken over the batch; (N, K, H, W), (N, H, W) -> scalar.

    Ignored pixels are in no sum; a class that no label has adds 0.
    Source: Milletari et al., arXiv 1606.04797, per class.
    """
    target, known = _one_hot(logits, labels, ignore_index)
    probabilities = logits.softmax(1) * known
    both = (probabilities * target).sum((0, 2, 3))
    pixels = target.sum((0, 2, 3))
    scores = 2 * both / (probabilities.sum((0, 2, 3)) + pixels).clamp_min(1e-7)  # (K,)
    return _mean((1 - scores) * (pixels > 0), weights)


def lovasz_loss(logits: Tensor, labels: Tensor, *, ignore_index: int, weights: Tensor | None = None) -> Tensor:
    """Lovász-Softmax: mean over the classes with a label of a surrogate of 1 - IoU; (N, K, H, W), (N, H, W) -> scalar.

    Ignored pixels do not count; 0 where no pixel has a label.
    Source: Berman et al., arXiv 1705.08790, algorithm 1.
    """
    known = labels != ignore_index
    probabilities = logits.softmax(1).movedim(1, -1)[known]  # (P, K)
    values = labels[known]  # (P,)
    present = values.unique()
    if not present.numel():
        return logits.sum() * 0.0
    losses = []
    for label in present.tolist():
        belongs = values == label
        errors, order = (belongs.float() - probabilities[:, label]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(belongs[order]))
    return _mean(torch.stack(losses), None if weights is None else weights[present])


def _jaccard_steps(belongs: Tensor) -> Tensor:
    """How much 1 - IoU grows with each of the pixels (P,) that is got wrong, in this order."""
    found = belongs.long().cumsum(0)  # whole numbers: exact, and deterministic on GPUs
    others = torch.arange(1, len(belongs) + 1, device=belongs.device) - found
    total = found[-1]
    distance = 1 - (total - found).float() / (total + others).float()
    return torch.cat((distance[:1], distance[1:] - distance[:-1]))


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    gamma: float = DEFAULT_GAMMA,
    alpha: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean of (1 - p)^gamma (-ln p), p the sigmoid of the right answer, over pixels with a label and classes.

    alpha: weight of a yes, 1 - alpha that of a no; None: both 1. (N, K, H, W), (N, H, W) -> scalar.
    Source: Lin et al., arXiv 1708.02002.
    """
    target, known = _one_hot(logits, labels, ignore_index)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # -ln p
    losses = (1 - (-losses).exp()).clamp_min(0).pow(gamma) * losses * known
    if alpha is not None:
        losses = losses * (alpha * target + (1 - alpha) * (1 - target))
    return _mean(losses.sum((0, 2, 3)) / known.sum().clamp_min(1), weights)


def _one_hot(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """1 where a pixel has the class, (N, K, H, W), and 1 where it has any, (N, 1, H, W)."""
    numbers = torch.arange(logits.shape[1], device=labels.device)[:, None, None]
    return (labels[:, None] == numbers).to(logits), (labels != ignore_index)[:, None].to(logits)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Over classes (K,), by their weights where there are any; 0 where these are all 0."""
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum().clamp_min(1e-12)
