"""What can be wrong with the objects or the segments of one image.

K objects; H, W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ...data.objects import Objects, Segment
from ...errors import DataError
from ...images.rle import Rle, areas, boxes

Trouble = tuple[str, str]
BEYOND = 1.0  # pixels that a box may reach over the border: rounding
LEAST_FIT = 0.5  # IoU of a box with the box around its mask


def box_troubles(objects: Objects, name: str) -> Iterator[Trouble]:
    """Boxes without extent, over the border, the same twice, and boxes that are fractions. name: of the image."""
    height, width = objects.size
    extents = objects.boxes[:, 2:] - objects.boxes[:, :2]
    seen: dict[tuple[float, ...], int] = {}
    for id_, label, box, extent in zip(objects.ids, objects.labels, objects.boxes.tolist(), extents, strict=True):
        shown = f"{name}: annotation {id_}, {[round(number, 2) for number in box]} (corners)"
        if extent.min() <= 0:
            yield "degenerate", shown
        left, top, right, bottom = box
        inside = left < width and top < height and right >= 0 and bottom >= 0
        over = max(-left, -top, right - width, bottom - height) > BEYOND
        if inside and over:
            yield "beyond", f"{shown} on {width} x {height} pixels"
        if extent.min() > 0 and (first := seen.setdefault((int(label), *box), int(id_))) != id_:
            yield "repeated", f"{shown}, as annotation {first}"
    if len(objects) and 0 < objects.boxes.max() <= 1 and min(height, width) > 1:
        yield "fractions", f"{name}: annotation {objects.ids[0]}, {[round(x, 4) for x in objects.boxes[0].tolist()]}"


def mask_troubles(objects: Objects, read: Callable[[int], Rle | None], name: str) -> Iterator[Trouble]:
    """Masks that cannot be decoded, have no pixel, or are elsewhere than their box. read: the mask of object k."""
    for place, id_ in enumerate(objects.ids.tolist()):
        try:
            mask = read(place)
        except DataError as error:
            yield "bad_mask", f"{name}: {error}"
            continue
        if mask is None:
            continue
        if not areas([mask])[0]:
            yield "empty_mask", f"{name}: annotation {id_}"
            continue
        box, around = objects.boxes[place], boxes([mask])[0]
        if (box[2:] > box[:2]).all() and not objects.crowd[place] and _fit(box, around) < LEAST_FIT:
            shown = [round(number, 2) for number in box.tolist()]
            yield "beside", f"{name}: annotation {id_}, box {shown}, mask within {around.tolist()} (corners)"


def segment_troubles(segments: Sequence[Segment], map_: np.ndarray, name: str) -> Iterator[Trouble]:
    """Segments of only one of JSON file and map, and those whose areas differ; area -1: not in the file."""
    ids, counts = np.unique(map_, return_counts=True)
    pixels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    pixels.pop(0, None)
    known = {each.id for each in segments}
    if unlisted := [id_ for id_ in pixels if id_ not in known]:
        yield "unlisted", f"{name}: {_ids(unlisted)}"
    if absent := [each.id for each in segments if each.id not in pixels]:
        yield "absent", f"{name}: {_ids(absent)}"
    for each in segments:
        if each.area >= 0 and each.id in pixels and each.area != pixels[each.id]:
            yield "areas", f"{name}: segment {each.id} has {each.area} pixels in the JSON file, {pixels[each.id]} there"


def _ids(ids: Sequence[int]) -> str:
    return f"segment {ids[0]}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")


def _fit(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes."""
    common = float(np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod())
    union = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - common
    return common / max(union, 1e-12)
