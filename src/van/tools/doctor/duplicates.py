"""The same picture met twice: within a split, and in several, where training sees what validation is to judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import combinations

from PIL import Image

from .split_statistics import Part

SHOWN = 3  # pairs named in words


def digest(picture: Image.Image) -> bytes:
    """The same for pictures of the same size and pixels, whatever their files are called and how they are packed."""
    size = f"{picture.width} {picture.height} ".encode()
    return blake2b(size + picture.tobytes(), digest_size=16).digest()


def within(part: Part) -> list[tuple[str, str]]:
    """Pictures of a split that were met before, each after the one it equals."""
    return [(names[0], name) for names in part.pictures.values() for name in names[1:]]


def across(parts: Mapping[str, Part]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Pairs of splits -> the pictures that both have, by their names in each."""
    shared = {}
    for one, two in combinations(parts, 2):
        ours, theirs = parts[one].pictures, parts[two].pictures
        if both := [(ours[key][0], name) for key in ours if key in theirs for name in theirs[key]]:
            shared[one, two] = both
    return shared


def in_words(parts: Mapping[str, Part]) -> Iterator[tuple[str, str]]:
    """Level and text of what was found."""
    for (one, two), pairs in across(parts).items():
        yield (
            "warning",
            f"{len(pairs)} image(s) of {two} are in {one} too ({_named(pairs)}), so scores on {two} are too good: take "
            "them out of one of the two",
        )
    for split, part in parts.items():
        if pairs := within(part):
            yield "note", f"{split}: {len(pairs)} image(s) are there more than once: {_named(pairs)}"


def _named(pairs: list[tuple[str, str]]) -> str:
    more = ", …" if len(pairs) > SHOWN else ""
    return ", ".join(f"{name} = {other}" for other, name in pairs[:SHOWN]) + more
