"""Classification accuracy while training, by torchmetrics: exact over batches of any size.

Shapes: N batch, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def accuracy(num_classes: int, *, prefix: str = "") -> MetricCollection:
    """top1 and, with more than five classes, top5 of (N, K) logits and (N,) labels, in percent of all images."""
    try:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy
    except ImportError as error:
        raise MissingExtraError.of("torchmetrics", "train", "for accuracy while training") from error

    class Percent(MulticlassAccuracy):
        def compute(self) -> Any:
            return 100 * super().compute()

    ks = (1, 5) if num_classes > 5 else (1,)
    metrics: dict[str, Any] = {
        f"top{k}": Percent(num_classes, top_k=k, average="micro", validate_args=False) for k in ks
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
