"""What the doctor concludes about a data set of objects or of panoptic segments from its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .duplicates import copy_findings
from .object_statistics import ObjectStatistics
from .report import Check, Finding, Level, some, worst_first

Splits = Mapping[str, ObjectStatistics]
IMBALANCE = 100  # times as many objects of the most frequent class as of the rarest
# Kind of trouble -> how bad it is, and what it is, before the first example.
TROUBLES: Mapping[str, tuple[Level, str]] = {
    "missing_image": ("error", "image(s) do not exist"),
    "unreadable": ("error", "image(s) or map(s) cannot be used"),
    "malformed": ("error", "record(s) are malformed and were passed over"),
    "unknown_category": ("error", "annotation(s) are of an unknown category"),
    "unknown_image": ("error", "annotation(s) are of an unknown image"),
    "duplicate_image": ("error", "image id(s) are given twice"),
    "duplicate_id": ("error", "id(s) of annotations are given more than once"),
    "outside": ("error", "box(es) are outside their image"),
    "bad_mask": ("error", "mask(s) cannot be decoded"),
    "without_map": ("error", "image(s) have no segments"),
    "mismatched": ("error", "map(s) differ from their image in size"),
    "unlisted": ("error", "map(s) hold segments that the JSON file has not"),
    "absent": ("error", "map(s) lack segments that the JSON file has"),
    "areas": ("warning", "segment(s) have another area in the JSON file than in the map"),
    "degenerate": ("warning", "box(es) have no width or no height, and are left out of training"),
    "empty_mask": ("warning", "mask(s) have no pixel (a polygon on a line?), and are left out of training"),
    "beyond": ("warning", "box(es) reach beyond their image, and are cut in training"),
    "beside": ("warning", "box(es) do not fit their mask"),
    "repeated": ("warning", "object(s) are annotated twice"),
    "fractions": ("warning", "image(s) have boxes within their first pixel, as fractions are; expected pixels"),
}


def findings(
    splits: Splits, *, closed: Mapping[str, str], missing: Sequence[str] = (), drawn: bool = False
) -> tuple[Finding, ...]:
    """All conclusions, the worst first. closed: splits that could not be opened, and why; missing: not there at all.

    drawn: whether the validation part is a drawn one.
    """
    found: list[Check] = [("error", f"{split}: {reason}") for split, reason in closed.items()]
    for split, statistics in splits.items():
        found += [(level, f"{split}: {text}") for level, text in _of_split(statistics)]
    for what in dict.fromkeys(each.what for each in splits.values()):
        alike = {split: each for split, each in splits.items() if each.what == what}
        found += _classes(alike)
        found += copy_findings(alike)
    found += [("note", f"there is no {split} part, which van train needs") for split in missing]
    if drawn:
        found.append(("note", "there is no validation part: a share of the images is drawn for it (val_fraction)"))
    return worst_first(found)


def _of_split(found: ObjectStatistics) -> Iterator[Check]:
    for kind, (level, what) in TROUBLES.items():
        if count := found.troubles[kind]:
            yield level, f"{count} {what}: {found.examples[kind][0]}"
    if found.seen and not found.total_count:
        yield "error", f"no image has {found.what}; training needs some"
    elif found.empty:
        yield "note", f"{found.empty} of {found.seen} images have no {found.what}"
    if found.crowds:
        yield "note", f"{found.crowds} of {found.total_count} {found.what} are crowds, which training leaves out"
    yield from _balance(found)
    if found.void:
        share = found.void / found.seen
        yield (
            "warning" if share > 0.5 else "note",
            f"{share:.1%} of the pixels are in no segment and do not count",
        )
    if found.seen < found.total:
        yield "note", f"{found.seen} of {found.total} images were looked at; what is absent may be in the others"


def _balance(found: ObjectStatistics) -> Iterator[Check]:
    there = found.counts[found.counts > 0]
    if len(there) and there.max() >= IMBALANCE * there.min():
        most = found.classes[int(found.counts.argmax())]
        least = found.classes[int(np.flatnonzero(found.counts == there.min())[0])]
        yield (
            "warning",
            f"{most} ({there.max()} {found.what}) is {there.max() / there.min():.0f} times as frequent as {least} "
            f"({there.min()}): scores of the rare classes will be low and uncertain",
        )


def _classes(splits: Splits) -> Iterator[Check]:
    """Classes that differ between the parts, or do not occur."""
    names = {split: each.classes for split, each in splits.items()}
    if len(set(names.values())) > 1:
        (one, first), (two, second) = list(names.items())[:2]
        differing = sorted(set(first) ^ set(second)) or [
            f"{a} / {b}" for a, b in zip(first, second, strict=True) if a != b
        ]
        yield "error", f"{one} and {two} have different categories: {some(differing, shown=5)}; give both the same list"
        return
    absent = {split: set(np.flatnonzero(each.counts == 0).tolist()) for split, each in splits.items() if each.seen}
    classes = next(iter(names.values()))
    everywhere = set.intersection(*absent.values()) if absent else set[int]()
    if everywhere:
        yield "warning", f"{len(everywhere)} class(es) occur nowhere: {_named(everywhere, classes)}"
    for split, others in absent.items():
        if rest := others - everywhere:
            level: Level = "note" if split.endswith("val") else "warning"
            yield level, f"{split}: {len(rest)} class(es) of the other part do not occur: {_named(rest, classes)}"


def _named(labels: set[int], classes: Sequence[str]) -> str:
    return some([classes[label] for label in sorted(labels)], shown=10)
