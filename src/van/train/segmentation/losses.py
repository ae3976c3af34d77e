"""Cross-entropy per pixel, with class weights and online hard example mining.

Shapes: N batch, K classes, H and W of the label maps, h and w of the logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...recipes.segmentation_spec import LossSpec

DEFAULT_MIN_KEPT = 100_000  # mmseg's


class PixelLoss(nn.Module):
    """Logits (N, K, h, w) and label maps (N, H, W) to a scalar; the logits are resized to the label maps.

    Source: mmseg's CrossEntropyLoss and OHEMPixelSampler; class weights do not enter the divisor, there or here.
    """

    weights: Tensor | None

    def __init__(self, spec: LossSpec, *, ignore_index: int) -> None:
        super().__init__()
        self.spec, self.ignore_index = spec, ignore_index
        weights = None if spec.class_weights is None else torch.tensor(spec.class_weights)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
        weights = None if self.weights is None else self.weights.to(logits)
        losses = F.cross_entropy(logits, labels, weight=weights, ignore_index=self.ignore_index, reduction="none")
        if self.spec.ohem_threshold is not None:
            losses = losses * self._hard(logits.detach(), labels)
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
