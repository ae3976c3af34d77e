"""What the doctor concludes from the figures: findings in words, remedies, class weights.

K classes; labels 0 … K - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...data.masks import MaskRule
from .duplicates import in_words
from .split_statistics import Part

LEVELS = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One conclusion: level "error" (training or evaluation would break), "warning" or "note"."""

    level: str
    text: str


def findings(
    parts: Mapping[str, Part],
    classes: Sequence[str],
    rule: MaskRule | None,
    *,
    closed: Mapping[str, str],
    missing: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """All conclusions, the worst first. closed: splits that could not be opened, and why; missing: not there at all."""
    found = [Finding("error", f"{split}: {reason}") for split, reason in closed.items()]
    for split, part in parts.items():
        found += [Finding(level, f"{split}: {text}") for level, text in _of_part(part)]
    if rule is not None:
        used = {value for part in parts.values() for value in part.stored}
        found += [Finding("warning", text) for text in numbering(used, rule, classes)]
    found += [Finding(level, text) for level, text in _absences(parts, classes)]
    found += [Finding("note", f"there is no {split} part, which van train needs") for split in missing]
    found += [Finding(level, text) for level, text in in_words(parts)]
    return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def class_weights(part: Part) -> dict[str, tuple[float, ...]]:
    """Suggested weights of the loss, (K,) each; 1 for classes that do not occur.

    median_frequency: median(f) / f, where f is a class's share of the pixels of the images that hold it.
    inverse_log: 1 / ln(1.02 + p), where p is its share of all pixels: 1.4 … 50.
    Source: Eigen and Fergus, arXiv 1411.4734; ENet, arXiv 1606.02147.
    """
    occurs = part.pixels > 0
    if not occurs.any():
        return {"median_frequency": (1.0,) * part.classes, "inverse_log": (1.0,) * part.classes}
    frequency = part.pixels / part.image_pixels.clip(1)
    median = np.where(occurs, np.median(frequency[occurs]) / frequency.clip(1e-12), 1)
    inverse = np.where(occurs, 1 / np.log(1.02 + part.pixels / part.labelled), 1)
    return {
        "median_frequency": tuple(median.round(4).tolist()),
        "inverse_log": tuple(inverse.round(4).tolist()),
    }


def numbering(used: set[int], rule: MaskRule, classes: Sequence[str]) -> list[str]:
    """What the stored values say about how classes are counted: off by one, black-and-white masks."""
    count, labels = rule.num_classes, used - {rule.ignore_index}
    if rule.values is not None or not used:
        return []
    if labels <= {0} and 255 in used and rule.ignore_index == 255:
        return [
            "masks hold 0 and 255 only, as black-and-white masks do, and 255 counts as no label; if it means a class, "
            "add values: {0: 0, 255: 1} to the dataset.yaml"
        ]
    if not labels:
        return []
    if rule.reduce_zero_label:
        if 0 in labels and count not in labels and max(labels) == count - 1:
            return [
                f"values run from 0 to {count - 1}, and value {count} ({classes[-1]}) never occurs; if masks count "
                f"from 0, every label is off by one: set reduce_zero_label: false"
            ]
        return []
    if max(labels) == count and 0 not in labels:
        return [f"values run from 1 to {count} and 0 is never used: masks count from 1, set reduce_zero_label: true"]
    if max(labels) == count:
        return [
            f"values run from 0 to {count}, one more than the {count} names: name the missing class (the background, "
            f"as class 0?), or set reduce_zero_label: true if 0 means no label"
        ]
    if 0 not in labels:
        return [
            f"value 0 ({classes[0]}) never occurs; if masks count from 1, every label is off by one: "
            f"set reduce_zero_label: true"
        ]
    return []


def _of_part(part: Part) -> Iterator[tuple[str, str]]:
    """Level and text of everything about one split."""
    if part.unreadable:
        yield "error", f"{part.unreadable} file(s) cannot be read: {part.examples['unreadable'][0]}"
    if part.without_mask:
        yield "error", f"{part.without_mask} image(s) have no mask: {_first(part, 'without_mask')}"
    if part.without_image:
        yield "error", f"{part.without_image} mask(s) have no image: {_first(part, 'without_image')}"
    if part.mismatched:
        yield "error", f"{part.mismatched} mask(s) differ from their image in size: {part.examples['mismatched'][0]}"
    for value, unknown in sorted(part.unknown.items(), key=lambda item: -item[1].pixels)[:5]:
        where = f"{unknown.pixels} pixel(s) of {unknown.files} mask(s), first in {unknown.first}"
        yield "error", f"{value} is no class: {where}"
    if len(part.unknown) > 5:
        yield "error", f"{len(part.unknown)} stored values in all are no class"
    if part.disputed:
        yield (
            "warning",
            f"{part.disputed} palette image(s) have colours that name other classes than their indices, e.g. "
            f"{part.examples['disputed'][0]}; indices are used: set by_color: true if the colours are right",
        )
    if part.unlabelled:
        yield "warning", f"{part.unlabelled} image(s) have no labelled pixel: {_first(part, 'unlabelled')}"
    everything = part.labelled + part.ignored
    if part.ignored:
        share = part.ignored / everything
        yield "warning" if share > 0.5 else "note", f"{share:.1%} of the pixels have no label and do not count"
    if part.seen < part.total:
        yield "note", f"{part.seen} of {part.total} images were looked at; what is absent may be in the others"


def _absences(parts: Mapping[str, Part], classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Classes that do not occur, and where that matters."""
    absent = {split: set(np.flatnonzero(part.images == 0).tolist()) for split, part in parts.items()}
    everywhere = set.intersection(*absent.values())
    if everywhere:
        yield "warning", f"{len(everywhere)} class(es) occur nowhere: {_names(everywhere, classes)}"
    untaught = absent.get("train", set()) - everywhere
    if untaught:
        yield "warning", f"{len(untaught)} class(es) are in val but not in train: {_names(untaught, classes)}"
    untested = absent.get("val", set()) - everywhere
    if untested and "train" in absent:
        yield (
            "note",
            f"{len(untested)} class(es) are in train but not in val, which the mean IoU leaves out: "
            f"{_names(untested, classes)}",
        )


def _first(part: Part, kind: str) -> str:
    names = part.examples[kind][:3]
    return ", ".join(names) + (", …" if getattr(part, kind) > len(names) else "")


def _names(labels: set[int], classes: Sequence[str]) -> str:
    shown = ", ".join(f"{label} {classes[label]}" for label in sorted(labels)[:10])
    return shown + (", …" if len(labels) > 10 else "")
