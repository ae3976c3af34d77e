"""What a data set held when a run began, small enough for a checkpoint: files and a digest of their names per class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

# class (or "images" where there is no class per image) -> [number of files, digest of their names in order]
Fingerprint = dict[str, list[Any]]

# The group of what is said about the images; its entries are one per image.
ANNOTATIONS = "annotations"
SHOWN = 5


def fingerprint(files: Iterable[tuple[str, str]]) -> Fingerprint:
    """Of (class, name) of every file in the order in which it is numbered; names count from the data set's folder."""
    digests: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for group, name in files:
        if group not in digests:
            digests[group], counts[group] = hashlib.blake2b(digest_size=8), 0
        digests[group].update(name.encode("utf-8", "surrogateescape") + b"\0")
        counts[group] += 1
    return {group: [counts[group], digest.hexdigest()] for group, digest in digests.items()}


def differences(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """In words, by part ("train", "val") and class: "train: 'cat' has 40 images, had 42"."""
    found = []
    for part in before:
        for group in dict.fromkeys((*before[part], *now.get(part, {}))):
            had, has = (each.get(group, [0, ""]) for each in (before[part], now.get(part, {})))
            if group == ANNOTATIONS:
                found += [f"{part}: other annotations than before"] * (had != has)
            elif had[0] != has[0]:
                found.append(f"{part}: {group!r} has {has[0]} images, had {had[0]}")
            elif had[1] != has[1]:
                found.append(f"{part}: {group!r} has other images than before")
    return found


def some(found: list[str]) -> str:
    """The first differences."""
    return "; ".join(found[:SHOWN]) + (f"; … ({len(found)} in all)" if len(found) > SHOWN else "")
