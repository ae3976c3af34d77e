"""Masks as COCO stores them: run lengths of the columns, compressed to ASCII.

What comes from files is checked before the mask functions see it: they compute areas and boxes of nonsense.

Shapes: K masks, H, W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

import numpy as np

from ..errors import DataError, MissingExtraError

MAX_SIDE = 2**16
# Digits of five bits that a run below 2**31 and its sign take.
_MOST_DIGITS = 7
_EXPECTED = 'expected {"size": [height, width], "counts": …}'


@dataclass(frozen=True)
class Rle:
    """A mask. size: (H, W) in pixels; counts: COCO's compressed run lengths.

    `read` makes one of what a file holds, and checks it; the constructor trusts its caller.
    """

    size: tuple[int, int]
    counts: bytes

    @classmethod
    def read(cls, value: object, size: tuple[int, int] | None = None) -> Rle:
        """Of JSON's `{"size": [H, W], "counts": …}`, compressed (a text) or not (a list of run lengths).

        size: (H, W) that it must have. Raises DataError for anything that is no mask of that size.
        """
        if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
            _refuse(f"{value!r:.60} is no run-length encoding; {_EXPECTED}")
        found = _checked_size(value["size"])
        if size is not None and found != tuple(size):
            _refuse(f"the mask has {found[0]} x {found[1]} pixels, its image {size[0]} x {size[1]} (height x width)")
        counts = value["counts"]
        if isinstance(counts, Sequence) and not isinstance(counts, str | bytes):
            runs = _run_lengths(counts)
            _check_runs(runs, found)
            made = _mask_functions().frPyObjects({"size": list(found), "counts": runs.tolist()}, *found)
            return cls(found, made["counts"])
        if not isinstance(counts, str | bytes):
            _refuse(f"its counts are {counts!r:.40}; expected a text or a list of run lengths")
        try:
            content = counts.encode("ascii") if isinstance(counts, str) else counts
        except UnicodeEncodeError:
            _refuse("its counts hold characters outside ASCII; the annotation is damaged")
        _check_runs(_decompressed(content), found)
        return cls(found, content)

    def to_json(self) -> dict[str, object]:
        """As result files have it: `{"size": [H, W], "counts": text}`."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}


def encode(masks: np.ndarray) -> list[Rle]:
    """(K, H, W), of which all but 0 belongs to the mask, -> K encoded masks."""
    if not len(masks):
        return []
    height, width = _checked_size(masks.shape[1:])
    columns = np.asfortranarray((masks != 0).astype(np.uint8).transpose(1, 2, 0))
    return [Rle((height, width), each["counts"]) for each in _mask_functions().encode(columns)]


def decode(rles: Sequence[Rle], size: tuple[int, int]) -> np.ndarray:
    """K encoded masks of `size`, (H, W), -> (K, H, W) uint8, 0 and 1."""
    if not rles:
        return np.zeros((0, *size), np.uint8)
    return np.ascontiguousarray(_mask_functions().decode(_plain(rles)).transpose(2, 0, 1))


def areas(rles: Sequence[Rle]) -> np.ndarray:
    """Pixels of each mask, (K,) int64."""
    return _mask_functions().area(_plain(rles)).astype(np.int64) if rles else np.zeros(0, np.int64)


def boxes(rles: Sequence[Rle]) -> np.ndarray:
    """Left, top, right, bottom around each mask, right and bottom excluded, (K, 4) float32; zeros for empty ones."""
    if not rles:
        return np.zeros((0, 4), np.float32)
    found = _mask_functions().toBbox(_plain(rles)).reshape(-1, 4)
    return np.concatenate((found[:, :2], found[:, :2] + found[:, 2:]), 1).astype(np.float32)


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Rle:
    """The union of polygons, x, y, x, y, … in pixels, filled as COCO fills them; size: (H, W).

    Raises DataError for polygons of fewer than three points, odd lengths, and coordinates that are no pixels.
    """
    functions = _mask_functions()
    checked = [_checked_polygon(polygon) for polygon in polygons]
    if not checked:
        _refuse("a segmentation without polygons; expected at least one")
    height, width = _checked_size(size)
    merged = functions.merge(functions.frPyObjects(checked, height, width), 0)
    return Rle((height, width), merged["counts"])


def read_segmentation(value: object, size: tuple[int, int]) -> Rle:
    """An annotation's `segmentation`, polygons or run lengths, as a mask of `size`; raises DataError as both do."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return from_polygons(value, size)
    return Rle.read(value, size)


def _plain(rles: Sequence[Rle]) -> list[dict[str, object]]:
    return [{"size": list(each.size), "counts": each.counts} for each in rles]


def _checked_size(value: object) -> tuple[int, int]:
    sides = [side for side in value if type(side) is int] if isinstance(value, Sequence) else []
    if len(sides) != 2 or len(sides) != len(value) or not all(1 <= side <= MAX_SIDE for side in sides):  # type: ignore[arg-type]
        _refuse(f"the mask's size is {value!r:.60}; expected [height, width], 1 to {MAX_SIDE:,} pixels")
    return sides[0], sides[1]


def _checked_polygon(polygon: object) -> list[float]:
    try:
        numbers = np.asarray(polygon)
    except ValueError:  # lists of different lengths in it
        numbers = np.zeros((0, 0))
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iuf"):
        _refuse(f"a polygon is {polygon!r:.60}; expected a list of numbers x, y, x, y, …")
    if len(numbers) < 6 or len(numbers) % 2:
        _refuse(f"a polygon has {len(numbers)} numbers; expected x, y of at least three points")
    if not (np.abs(numbers) <= MAX_SIDE).all():
        wrong = numbers[~(np.abs(numbers) <= MAX_SIDE)][0]
        _refuse(f"a polygon reaches {wrong:g}; expected pixels, at most {MAX_SIDE:,}")
    return numbers.astype(np.float64).tolist()


def _run_lengths(counts: Sequence[object]) -> np.ndarray:
    for run in counts:
        if not isinstance(run, int) or isinstance(run, bool) or not 0 <= run <= MAX_SIDE**2:
            _refuse(f"a run length is {run!r:.40}; expected whole numbers from 0")
    return np.array(counts, np.int64)


def _decompressed(counts: bytes) -> np.ndarray:
    """Run lengths of compressed counts: digits of five bits, a sixth says that more follow, characters from "0".

    From the fourth on, the difference to the run two before is stored. Source: COCO's mask functions (rleToString).
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not codes.size:
        _refuse("its counts are empty; the annotation is damaged")
    if codes.min() < 0 or codes.max() > 63:
        _refuse("its counts hold characters that compressed run lengths do not have; the annotation is damaged")
    ends = np.flatnonzero(codes & 32 == 0)
    if not ends.size or ends[-1] != len(codes) - 1:
        _refuse("its counts end within a number; the annotation is damaged")
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > _MOST_DIGITS:
        _refuse("its counts hold a number beyond any image; the annotation is damaged")
    place = np.arange(len(codes)) - np.repeat(starts, digits)
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= (codes[ends] & 16 != 0).astype(np.int64) << (5 * digits)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


def _check_runs(runs: np.ndarray, size: tuple[int, int]) -> None:
    if (runs < 0).any():
        _refuse("it has a run of negative length; the annotation is damaged")
    if (total := int(runs.sum())) != size[0] * size[1]:
        _refuse(f"its runs cover {total:,} pixels, the mask of {size[0]} x {size[1]} has {size[0] * size[1]:,}")


def _refuse(reason: str) -> NoReturn:
    raise DataError(reason)


def _mask_functions() -> ModuleType:
    try:
        from faster_coco_eval import mask
    except ImportError as error:
        raise MissingExtraError.of("faster-coco-eval", "detection", "for masks in COCO's format") from error
    return mask
