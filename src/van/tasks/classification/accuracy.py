"""Scores of a classifier while training, by torchmetrics: exact over batches of any size and over processes.

Shapes: N batch, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import MissingExtraError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def accuracy(num_classes: int, *, prefix: str = "") -> MetricCollection:
    """top1 and, with more than five classes, top5 of (N, K) logits and (N,) labels, in percent of all images.

    macro_precision, macro_recall, macro_f1: means over the classes that occur, in percent.
    """
    try:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import (
            MulticlassAccuracy,
            MulticlassF1Score,
            MulticlassPrecision,
            MulticlassRecall,
        )
    except ImportError as error:
        raise MissingExtraError.of("torchmetrics", "train", "for accuracy while training") from error

    def percent(kind: Any, average: str, top_k: int = 1) -> Any:
        class Percent(kind):
            def compute(self) -> Any:
                return 100 * super().compute()

        return Percent(num_classes, top_k=top_k, average=average, validate_args=False)

    ks = (1, 5) if num_classes > 5 else (1,)
    metrics: dict[str, Any] = {f"top{k}": percent(MulticlassAccuracy, "micro", k) for k in ks}
    macro = {"precision": MulticlassPrecision, "recall": MulticlassRecall, "f1": MulticlassF1Score}
    metrics |= {f"macro_{name}": percent(kind, "macro") for name, kind in macro.items()}
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
