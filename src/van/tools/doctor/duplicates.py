"""Images that are in a data set more than once, within a split or in several."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from itertools import combinations
from typing import Any, TypeAlias

from PIL import Image

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
