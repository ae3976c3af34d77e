"""Images that are in a data set more than once, within a split or in several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Any, TypeAlias

from PIL import Image

from .report import Check, some
from .split_statistics import SplitStatistics

Splits: TypeAlias = Mapping[str, SplitStatistics[Any]]


def within(statistics: SplitStatistics[Any]) -> list[tuple[str, str]]:
    """Images of a split that it has already, each after the one that it equals."""
    return [(names[0], name) for names in statistics.copies.values() for name in names[1:]]


def across(splits: Splits) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Pairs of splits -> the images that both have, by their names in each."""
    shared = {}
    for one, two in combinations(splits, 2):
        ours, theirs = splits[one].copies, splits[two].copies
        if both := [(ours[key][0], name) for key in ours if key in theirs for name in theirs[key]]:
            shared[one, two] = both
    return shared


def groups(splits: Splits) -> list[list[tuple[str, str]]]:
    """(split, name) of the images that are the same, two or more to a group."""
    found: dict[bytes, list[tuple[str, str]]] = {}
    for split, statistics in splits.items():
        for digest, names in statistics.copies.items():
            found.setdefault(digest, []).extend((split, name) for name in names)
    return [group for group in found.values() if len(group) > 1]


def digest_of(image: Image.Image) -> bytes:
    """The same for images of the same size and pixels, whatever their files are called and how they are packed."""
    size = f"{image.width} {image.height} ".encode()
    return blake2b(size + image.tobytes(), digest_size=16).digest()


def copy_findings(splits: Splits) -> Iterator[Check]:
    """Images met twice: within a split, and in several, where training has what validation is to judge."""
    for (one, two), pairs in across(splits).items():
        yield (
            "warning",
            f"{len(pairs)} image(s) of {two} are in {one} too ({_pairs(pairs)}), so scores on {two} are too good: take "
            "them out of one of the two",
        )
    for split, statistics in splits.items():
        if pairs := within(statistics):
            yield "note", f"{split}: {len(pairs)} image(s) are there more than once: {_pairs(pairs)}"


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return some([f"{name} = {other}" for other, name in pairs])
