"""Segmentations of a whole data set in one block of bytes, as exactly as their file had them; decoded one by one.

Polygons with up to two decimals, as COCO's, take four bytes per coordinate: hundredths. Everything else that numbers
can be takes eight, and what is no list of polygons (run lengths, damaged records) stays JSON.
"""

from __future__ import annotations

import json
from itertools import chain

import numpy as np

_HUNDREDTHS, _FLOATS, _JSON = b"p", b"f", b"j"
_LARGEST = 2**31 - 1


def pack(segmentation: object) -> bytes:
    """A record's `segmentation`; b"" for none."""
    if segmentation is None or segmentation == []:
        return b""
    polygons = _packed_polygons(segmentation) if isinstance(segmentation, list) else None
    return _JSON + json.dumps(segmentation).encode() if polygons is None else polygons


def unpack(packed: bytes) -> object:
    """What was packed; polygons with their numbers as floats."""
    kind, content = packed[:1], packed[1:]
    if kind == _JSON:
        return json.loads(content)
    count = int(np.frombuffer(content, np.uint32, 1)[0])
    lengths = np.frombuffer(content, np.uint32, count, offset=4)
    rest = content[4 + 4 * count :]
    # a quotient of whole numbers is rounded as the decimal text was
    values = np.frombuffer(rest, np.int32) / 100 if kind == _HUNDREDTHS else np.frombuffer(rest, np.float64)
    return [part.tolist() for part in np.split(values, np.cumsum(lengths)[:-1])]


def _packed_polygons(polygons: list[object]) -> bytes | None:
    """None for anything but lists of numbers."""
    if not all(type(polygon) is list for polygon in polygons):
        return None
    flat: list[object] = list(chain.from_iterable(polygons))  # type: ignore[arg-type]
    if not set(map(type, flat)) <= {float, int}:
        return None
    try:
        numbers = np.array(flat, np.float64)
    except OverflowError:
        return None
    lengths = np.array([len(polygons), *map(len, polygons)], np.uint32)  # type: ignore[arg-type]
    whole = np.rint(numbers * 100)
    # comparisons are false of NaN
    if numbers.size and (whole / 100 == numbers).all() and np.abs(whole).max() <= _LARGEST:
        return _HUNDREDTHS + lengths.tobytes() + whole.astype(np.int32).tobytes()
    return _FLOATS + lengths.tobytes() + numbers.tobytes()
