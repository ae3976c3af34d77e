"""Classify images larger than the training size: the head on every window of the last map, then pooled.

Shapes: N batch, C channels, H and W of the last map, K classes, p side of the training-time map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .classifier import Classifier


class TestTimePool(nn.Module):
    """A classifier that averages features over p x p windows, classifies each, and pools (mean + max) / 2.

    For maps of p x p and smaller there is one window, the whole map, and it computes what the classifier does.
    pool_size: p, the side of the last map at the training size (7 at 224 pixels).
    Raises ConfigError for a pool size below 1.
    Source: the test-time pooling of the timm library, used by the official validation script.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(self, model: Classifier, *, pool_size: int = 7) -> None:
        super().__init__()
        if pool_size < 1:
            raise ConfigError(f"pool_size is {pool_size}; expected the side of the last map in training, e.g. 7")
        self.model = model
        self.pool_size = pool_size

    def forward(self, images: Tensor) -> Tensor:  # (N, in_chans, H, W) -> (N, K)
        x = self.model.forward_features(images)  # (N, C, H, W)
        window = [min(self.pool_size, side) for side in x.shape[2:]]
        x = F.avg_pool2d(x, window, stride=1)  # (N, C, H - p + 1, W - p + 1)
        logits = self.model.head(x.permute(0, 2, 3, 1)).flatten(1, 2)  # (N, windows, K)
        return 0.5 * (logits.mean(1) + logits.amax(1))
