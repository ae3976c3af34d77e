"""The losses of D-FINE: every layer's outputs against the true boxes, and against the last layer's.

transformers' own criterion (5.17 … 5.24) pairs the outputs of one layer with the distributions of the next and leaves
the last layer without its localisation loss; this one is the paper's.
Source: arXiv 2410.13842, section 4 (distribution refinement, self-distillation over the union of all matchings);
varifocal loss: arXiv 2008.13367; matching: arXiv 2005.12872. Weights and costs are those of the official configuration.

Shapes: N images, Q queries, K classes, B bins + 1, T true boxes of all images, L decoder layers, S outputs: the decoder
layers', the first layer's own box, the encoder's proposals. M pairs of a query and a true box.
Boxes are centre x, y, width, height in 0 … 1 of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import MissingExtraError
from .boxes import overlap, to_corners
from .normalizer import mean_over_processes

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = {"vfl": 1.0, "box": 5.0, "giou": 2.0, "fgl": 0.15, "ddf": 1.5}
CLASS_COST, BOX_COST, GIOU_COST = 2.0, 5.0, 2.0
_FOCAL_ALPHA, _VARIFOCAL_ALPHA, _GAMMA = 0.25, 0.75, 2.0
_TEMPERATURE = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The true boxes of a batch, image after image. boxes: (T, 4); labels: (T,) from 0; images: (T,) their image."""

    boxes: Tensor
    labels: Tensor
    images: Tensor

    @property
    def counts(self) -> list[int]:
        """True boxes of each image, up to the last with any."""
        return torch.bincount(self.images, minlength=1).tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What the layers give for one set of queries.

    logits: (S, N, Q, K) and boxes: (S, N, Q, 4), the decoder layers' first, the last of them at L - 1.
    corners: (L, N, Q, 4, B) logits of the distributions over the four sides' offsets.
    references: (N, Q, 4), the boxes that the offsets refer to.
    """

    logits: Tensor
    boxes: Tensor
    corners: Tensor
    references: Tensor

    @property
    def queries(self) -> int:
        """Queries of all images."""
        return self.logits.shape[1] * self.logits.shape[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Queries and the true boxes they answer for. images, queries, truths: (M,) indices."""

    images: Tensor
    queries: Tensor
    truths: Tensor

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True, kw_only=True, eq=False)
class Offsets:
    """How distributions stand for offsets. values: (B,) ascending, of the bins; scale: of sizes, relative to them.

    An offset of v moves a side outwards by v * size / scale from where it is half a size from the centre.
    """

    values: Tensor
    scale: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Noisy:
    """The predictions for noisy copies of the true boxes, whose pairs are known. groups: copies of each box."""

    predictions: Predictions
    pairs: Pairs
    groups: int


def dfine_losses(found: Predictions, truth: Truth, offsets: Offsets, noisy: Noisy | None = None) -> dict[str, Tensor]:
    """Weighted losses by name, summed over layers, normalised by the numbers of pairs in all processes."""
    each = match(found, truth)
    union = _union(each, found)
    # all processes join in one reduction, also those whose images have no boxes and so no noisy copies
    rest = 0 if noisy is None else noisy.predictions.queries - len(noisy.pairs)
    numbers = [len(truth.labels), len(union), found.queries - len(union), rest]
    boxes, pairs, others, rests = mean_over_processes(truth.boxes.new_tensor(numbers)).unbind()
    balance = pairs.sqrt() / (pairs.sqrt() + others.sqrt())  # weight of matched queries in the distillation
    losses = {"vfl": _varifocal(found, truth, each) / boxes}
    losses |= _localised(found, truth, offsets, union, pairs, others, balance)
    if noisy is not None:
        copies, seen = boxes * noisy.groups, noisy.predictions
        extra = {"vfl": _varifocal(seen, truth, [noisy.pairs] * len(seen.logits)) / copies}
        extra |= _localised(seen, truth, offsets, noisy.pairs, copies, rests, balance)
        losses |= {f"denoising_{name}": value for name, value in extra.items()}
    return {name: value * WEIGHTS[name.removeprefix("denoising_")] for name, value in losses.items()}


@torch.no_grad()
def match(found: Predictions, truth: Truth) -> list[Pairs]:
    """For each of the S outputs the cheapest pairing of queries and true boxes within each image."""
    counts = truth.counts
    cost = _costs(found, truth).cpu()  # (S, Q, T)
    assign = _linear_sum_assignment()
    result = []
    for one in cost:
        rows, columns, start = [], [], 0
        for count in counts:
            row, column = assign(one[:, start : start + count].numpy())
            rows.append(torch.as_tensor(row))
            columns.append(torch.as_tensor(column) + start)
            start += count
        truths = torch.cat(columns).to(truth.labels.device)
        result.append(Pairs(images=truth.images[truths], queries=torch.cat(rows).to(truths.device), truths=truths))
    return result


def _costs(found: Predictions, truth: Truth) -> Tensor:
    """(S, Q, T): what it costs each query to answer for each true box of its image."""
    chance = found.logits[:, truth.images, :, truth.labels].sigmoid()  # (T, S, Q)
    missed = _FOCAL_ALPHA * (1 - chance) ** _GAMMA * -(chance + 1e-8).log()
    invented = (1 - _FOCAL_ALPHA) * chance**_GAMMA * -(1 - chance + 1e-8).log()
    boxes = found.boxes[:, truth.images].movedim(1, 0)  # (T, S, Q, 4)
    true = truth.boxes[:, None, None]
    distance = (boxes - true).abs().sum(-1)
    _, giou = overlap(to_corners(boxes), to_corners(true))
    cost = CLASS_COST * (missed - invented) + BOX_COST * distance - GIOU_COST * giou
    return cost.nan_to_num(nan=1e9, posinf=1e9, neginf=1e9).movedim(0, -1)


def _union(each: Sequence[Pairs], found: Predictions) -> Pairs:
    """The pairs of all outputs together; a query with several true boxes keeps the one that most outputs gave it."""
    queries = found.logits.shape[2]
    truths = torch.cat([pairs.truths for pairs in each])
    images = torch.cat([pairs.images for pairs in each])
    rows = images * queries + torch.cat([pairs.queries for pairs in each])
    most = max(int(truths.max()) + 1, 1) if len(truths) else 1
    keys, counts = torch.unique(rows * most + truths, return_counts=True)
    keys = keys[torch.argsort(counts, descending=True, stable=True)]
    keys = keys[torch.argsort(keys // most, stable=True)]
    rows = keys // most
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    rows, truths = rows[first], (keys % most)[first]
    return Pairs(images=rows // queries, queries=rows % queries, truths=truths)


def _varifocal(found: Predictions, truth: Truth, each: Sequence[Pairs]) -> Tensor:
    """Binary cross entropy towards the IoU of the paired box, for the class of that box; a sum."""
    target = torch.zeros_like(found.logits)
    positive = torch.zeros_like(found.logits, dtype=torch.bool)
    for one, (pairs, boxes) in enumerate(zip(each, found.boxes.detach(), strict=True)):
        iou, _ = overlap(to_corners(boxes[pairs.images, pairs.queries]), to_corners(truth.boxes[pairs.truths]))
        places = (one, pairs.images, pairs.queries, truth.labels[pairs.truths])
        target[places], positive[places] = iou, True
    weight = torch.where(positive, target, _VARIFOCAL_ALPHA * found.logits.detach().sigmoid() ** _GAMMA)
    return F.binary_cross_entropy_with_logits(found.logits, target, weight, reduction="sum")


def _localised(
    found: Predictions, truth: Truth, offsets: Offsets, pairs: Pairs, count: Tensor, others: Tensor, balance: Tensor
) -> dict[str, Tensor]:
    """The losses of boxes and of distributions. count, others: numbers of queries with and without a true box."""
    true = truth.boxes[pairs.truths]  # (M, 4)
    boxes = found.boxes[:, pairs.images, pairs.queries]  # (S, M, 4)
    iou, giou = overlap(to_corners(boxes), to_corners(true))
    layers = len(found.corners)
    quality = iou[:layers].detach()  # (L, M)
    corners = found.corners[:, pairs.images, pairs.queries]  # (L, M, 4, B)
    left, share = _targets(found.references[pairs.images, pairs.queries], true, offsets)
    log = corners.log_softmax(-1)
    sides = log.gather(-1, torch.stack([left, left + 1], -1).expand(*log.shape[:-1], 2))
    fine = -(sides[..., 0] * (1 - share) + sides[..., 1] * share)  # (L, M, 4)
    return {
        "box": (boxes - true).abs().sum() / count,
        "giou": (1 - giou).sum() / count,
        "fgl": (fine * quality[..., None]).sum() / count,
        "ddf": _distilled(found, pairs, quality, count, others, balance),
    }


def _targets(references: Tensor, true: Tensor, offsets: Offsets) -> tuple[Tensor, Tensor]:
    """The bin at the left of each side's true offset, and the share of the bin at its right: two of (M, 4)."""
    size = references[:, 2:] / offsets.scale
    corners = to_corners(true)
    outwards = torch.cat([references[:, :2] - corners[:, :2], corners[:, 2:] - references[:, :2]], -1)
    distance = outwards / (torch.cat([size, size], -1) + 1e-16) - offsets.scale / 2
    values = offsets.values
    distance = distance.clamp(values[0], values[-1]).contiguous()
    left = (torch.searchsorted(values, distance, right=True) - 1).clamp(0, len(values) - 2)
    return left, (distance - values[left]) / (values[left + 1] - values[left])


def _distilled(
    found: Predictions, pairs: Pairs, quality: Tensor, count: Tensor, others: Tensor, balance: Tensor
) -> Tensor:
    """How far the distributions of the earlier layers are from the last one's, where that is sure or right."""
    if len(found.corners) == 1:
        return found.corners.sum() * 0
    teacher = (found.corners[-1].detach() / _TEMPERATURE).softmax(-1)
    student = (found.corners[:-1] / _TEMPERATURE).log_softmax(-1)
    distance = _TEMPERATURE**2 * F.kl_div(student, teacher.expand_as(student), reduction="none").sum(-1).mean(-1)
    weight = found.logits[len(found.corners) - 1].detach().sigmoid().amax(-1).expand_as(distance)
    weight = weight * (1 - balance) / others  # (L - 1, N, Q)
    weight[:, pairs.images, pairs.queries] = quality[:-1] * balance / count
    return (distance * weight).sum()


def _linear_sum_assignment() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError.of("scipy", "detection", "for the losses of detectors") from error
    return linear_sum_assignment
