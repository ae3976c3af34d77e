"""Classify images larger than the training size: the head on every window of the last map, then pooled.

Shapes: N batch, C channels, H and W of the last map, K classes, p side of the training-time map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .classifier import Classifier


class TestTimePool(nn.Module):
    """A classifier that averages features over p x p windows, classifies each, and pools (mean + max) / 2.

    For maps of p x p and smaller it computes exactly what the classifier does.
    Source: the test-time pooling of the timm library, used by the official validation script.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(self, model: Classifier, pool_size: int = 7) -> None:
        super().__init__()
        self.model = model
        self.pool_size = pool_size

    def forward(self, images: Tensor) -> Tensor:  # (N, in_chans, H, W) -> (N, K)
        x = self.model.forward_features(images)  # (N, C, H, W)
        if min(x.shape[2:]) <= self.pool_size:
            return self.model.forward_head(x)
        x = F.avg_pool2d(x, self.pool_size, stride=1)  # (N, C, H - p + 1, W - p + 1)
        logits = self.model.head(x.permute(0, 2, 3, 1)).flatten(1, 2)  # (N, windows, K)
        return 0.5 * (logits.mean(1) + logits.amax(1))
