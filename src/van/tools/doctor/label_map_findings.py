"""What the doctor concludes about a segmentation data set from its figures, and the class weights it suggests.

K classes; labels 0 … K - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...data.masks import MaskRule
from .duplicates import copy_findings
from .label_map_statistics import LabelMapStatistics
from .report import Check, Finding, Level, some, worst_first

Splits = Mapping[str, LabelMapStatistics]


def findings(
    splits: Splits,
    classes: Sequence[str],
    rule: MaskRule | None,
    *,
    closed: Mapping[str, str],
    missing: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """All conclusions, the worst first. closed: splits that could not be opened, and why; missing: not there at all."""
    found: list[Check] = [("error", f"{split}: {reason}") for split, reason in closed.items()]
    for split, statistics in splits.items():
        found += [(level, f"{split}: {text}") for level, text in _of_split(statistics)]
    if rule is not None:
        used = {value for statistics in splits.values() for value in statistics.stored}
        found += [("warning", text) for text in numbering(used, rule, classes)]
    found += _absences(splits, classes)
    found += [("note", f"there is no {split} part, which van train needs") for split in missing]
    found += copy_findings(splits)
    return worst_first(found)


def class_weights(statistics: LabelMapStatistics) -> dict[str, tuple[float, ...]]:
    """Suggested weights of the loss, (K,) each; 1 for classes that do not occur.

    median_frequency: median(f) / f, where f is a class's share of the pixels of the images that hold it.
    inverse_log: 1 / ln(1.02 + p), where p is its share of all pixels: 1.4 … 50.
    Source: Eigen and Fergus, arXiv 1411.4734; ENet, arXiv 1606.02147.
    """
    occurs = statistics.pixels > 0
    if not occurs.any():
        return {"median_frequency": (1.0,) * statistics.classes, "inverse_log": (1.0,) * statistics.classes}
    frequency = statistics.pixels / statistics.image_pixels.clip(1)
    median = np.where(occurs, np.median(frequency[occurs]) / frequency.clip(1e-12), 1)
    inverse = np.where(occurs, 1 / np.log(1.02 + statistics.pixels / statistics.labelled), 1)
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


def _of_split(found: LabelMapStatistics) -> Iterator[Check]:
    """Level and text of everything about one split."""
    if found.unreadable:
        yield "error", f"{found.unreadable} file(s) cannot be read: {found.examples['unreadable'][0]}"
    if found.without_mask:
        yield "error", f"{found.without_mask} image(s) have no mask: {_first(found, 'without_mask')}"
    if found.without_image:
        yield "error", f"{found.without_image} mask(s) have no image: {_first(found, 'without_image')}"
    if found.mismatched:
        yield "error", f"{found.mismatched} mask(s) differ from their image in size: {found.examples['mismatched'][0]}"
    for value, unknown in sorted(found.unknown.items(), key=lambda item: -item[1].pixels)[:5]:
        where = f"{unknown.pixels} pixel(s) of {unknown.files} mask(s), first in {unknown.first}"
        yield "error", f"{value} is no class: {where}"
    if len(found.unknown) > 5:
        yield "error", f"{len(found.unknown)} stored values in all are no class"
    if found.disputed:
        yield (
            "warning",
            f"{found.disputed} palette image(s) have colours that name other classes than their indices, e.g. "
            f"{found.examples['disputed'][0]}; indices are used: set by_color: true if the colours are right",
        )
    if found.unlabelled:
        yield "warning", f"{found.unlabelled} image(s) have no labelled pixel: {_first(found, 'unlabelled')}"
    everything = found.labelled + found.ignored
    if found.ignored:
        share = found.ignored / everything
        level: Level = "warning" if share > 0.5 else "note"
        yield level, f"{share:.1%} of the pixels have no label and do not count"
    if found.seen < found.total:
        yield "note", f"{found.seen} of {found.total} images were looked at; what is absent may be in the others"


def _absences(splits: Splits, classes: Sequence[str]) -> Iterator[Check]:
    """Classes that do not occur, and where that matters."""
    absent = {split: set(np.flatnonzero(each.images == 0).tolist()) for split, each in splits.items()}
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


def _first(found: LabelMapStatistics, kind: str) -> str:
    return some(found.examples[kind], getattr(found, kind))


def _names(labels: set[int], classes: Sequence[str]) -> str:
    return some([f"{label} {classes[label]}" for label in sorted(labels)], shown=10)
