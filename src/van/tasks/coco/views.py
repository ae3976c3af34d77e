"""How what was found in several views of an image becomes one list.

Boxes of all views go through non-maximum suppression class by class: of boxes that overlap by more than OVERLAP, the
surest stays, with the mask of its own view.

Shapes: K objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...nn.object_model import Detections

OVERLAP = 0.5


def in_image(found: Detections, seen: tuple[int, int], image: tuple[int, int], *, mirrored: bool) -> Detections:
    """What was found in a view of size `seen`, in the pixels of the image; sizes: (height, width)."""
    boxes, masks = found.boxes.float(), found.masks
    if mirrored:
        left, top, right, bottom = boxes.unbind(1)
        boxes = torch.stack((seen[1] - right, top, seen[1] - left, bottom), 1)
        masks = None if masks is None else masks.flip(-1)
    # each ratio rounded to float32, as torchvision has it
    ratios = [torch.tensor(float(a)) / torch.tensor(float(b)) for a, b in zip(image, seen, strict=True)]
    ratio = torch.stack((ratios[1], ratios[0], ratios[1], ratios[0])).to(boxes.device)
    return Detections(
        boxes=boxes * ratio,
        labels=found.labels,
        scores=found.scores.float(),
        masks=masks,
        boxed=found.boxed,
        mask_threshold=found.mask_threshold,
    )


def surest(scores: Tensor, *, threshold: float, most: int) -> Tensor:
    """Indices of at most `most` objects at or above `threshold`, the surest first."""
    order = scores.argsort(descending=True, stable=True)
    return order[scores[order] >= threshold][:most]


def kept(views: Sequence[Detections], *, threshold: float, most: int) -> list[tuple[int, int]]:
    """(view, index) of the objects that stay, the surest first."""
    scores = torch.cat([each.scores for each in views])
    sound = torch.cat([each.boxes.isfinite().all(1) for each in views])
    scores = torch.where(sound, scores, scores.new_tensor(-1.0))
    places = [(view, i) for view, each in enumerate(views) for i in range(len(each.scores))]
    order = surest(scores, threshold=threshold, most=len(scores))
    if len(views) > 1:
        boxes, labels = (torch.cat([getattr(each, name) for each in views]) for name in ("boxes", "labels"))
        order = order[suppressed(boxes[order], labels[order])]
    return [places[i] for i in order[:most].tolist()]


def suppressed(boxes: Tensor, labels: Tensor) -> Tensor:
    """Indices of the boxes that stay, of boxes (K, 4) with the surest first."""
    left_top, right_bottom = boxes[:, :2], boxes[:, 2:]
    areas = (right_bottom - left_top).clamp_min(0).prod(1)
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    chosen: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        chosen.append(i)
        shared = (torch.minimum(right_bottom, right_bottom[i]) - torch.maximum(left_top, left_top[i])).clamp_min(0)
        inside = shared.prod(1)
        alive &= (labels != labels[i]) | (inside <= OVERLAP * (areas + areas[i] - inside))
    return torch.tensor(chosen, dtype=torch.long, device=boxes.device)
