"""What the doctor concludes about a folder of labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .class_folder_statistics import ClassFolderStatistics, ImageRead
from .duplicates import groups
from .report import Check, Finding, Level, some, worst_first

TINY = 32  # pixels: the stride of the last stage
IMBALANCE = 10  # times as many images in the largest class as in the smallest
Splits = Mapping[str, ClassFolderStatistics]
# What training changes of an image.
_MODES: tuple[tuple[Level, str, Callable[[ImageRead], bool]], ...] = (
    ("warning", "16 bits (the upper 8 are used)", lambda image: image.mode.startswith(("I", "F"))),
    ("warning", "CMYK (converted without a colour profile)", lambda image: image.mode == "CMYK"),
    ("note", "a palette", lambda image: image.mode == "P"),
    ("note", "transparency (it is dropped)", lambda image: image.transparent),
)


def findings(splits: Splits) -> tuple[Finding, ...]:
    """All conclusions, the worst first."""
    found: list[Check] = []
    for split, statistics in splits.items():
        found += [(level, f"{split}: {text}") for level, text in _of_split(statistics)]
    return worst_first([*found, *_classes(splits), *_copies(splits)])


def _of_split(found: ClassFolderStatistics) -> Iterator[Check]:
    empty = [name for name, count in zip(found.classes, found.per_class, strict=True) if not count]
    if found.unreadable:
        yield "error", f"{len(found.unreadable)} file(s) cannot be read: {found.unreadable[0].trouble}"
    if empty:
        yield "error", f"{len(empty)} class(es) have no image: {_named(empty)}; add images or remove the folders"
    if found.only_folders:
        names = _named(found.only_folders)
        yield "error", f"{len(found.only_folders)} class(es) hold folders and no image of their own: {names}"
    filled = [count for count in found.per_class if count]
    if not found.classes:
        yield "error", "there are no class folders"
    elif len(found.classes) < 2:
        yield "error", f"there is one class, {found.classes[0]!r}; training needs two"
    elif filled and max(filled) >= IMBALANCE * min(filled):
        largest, smallest = (found.classes[found.per_class.index(end(filled))] for end in (max, min))
        yield (
            "warning",
            f"the largest class, {largest} ({max(filled)} images), has {max(filled) / min(filled):.0f} times as many "
            f"as the smallest, {smallest} ({min(filled)}): see loss.class_weights balanced and data.sampling balanced",
        )
    yield from _pictures(found)
    if found.others:
        yield "note", f"{found.others} file(s) are no images and are left out, e.g. {found.first_other}"
    if found.seen < found.total:
        yield "note", f"{found.seen} of {found.total} images were looked at"


def _pictures(found: ClassFolderStatistics) -> Iterator[Check]:
    """Sizes and modes that training changes or that say little."""
    tiny = [each for each in found.readable if min(each.size) < TINY]
    if tiny:
        yield "warning", f"{len(tiny)} image(s) are narrower than {TINY} pixels: {_named([each.path for each in tiny])}"
    for level, what, applies in _MODES:
        if images := [each for each in found.readable if applies(each)]:
            yield level, f"{len(images)} image(s) have {what}: {_named([each.path for each in images])}"


def _classes(splits: Splits) -> Iterator[Check]:
    if not {"train", "val"} <= splits.keys():
        return
    train, val = (set(splits[split].classes) for split in ("train", "val"))
    for where, missing in (("val", train - val), ("train", val - train)):
        if missing:
            yield "error", f"{where} lacks {len(missing)} class(es) of the other part: {_named(sorted(missing))}"


def _copies(splits: Splits) -> Iterator[Check]:
    """The same bytes twice: across splits a score is not of held-out images, across classes a label is wrong."""
    duplicates = groups(splits)
    label = {each.path: found.classes[each.label] for found in splits.values() for each in found.images}
    across = [group for group in duplicates if len({split for split, _ in group}) > 1]
    torn = [group for group in duplicates if len({label[path] for _, path in group}) > 1]
    within = [group for group in duplicates if len({split for split, _ in group}) < len(group) and group not in torn]
    if across:
        yield "error", f"{len(across)} image(s) are in train and in val: {_pair(across[0])}; remove them from one"
    if torn:
        yield "error", f"{len(torn)} image(s) are in several classes: {_pair(torn[0])}; keep the right one"
    if within:
        yield "warning", f"{len(within)} image(s) are there more than once in one part: {_pair(within[0])}"


def _pair(group: Sequence[tuple[str, str]]) -> str:
    return " = ".join(path for _, path in group[:2])


def _named(names: Sequence[str]) -> str:
    return some([Path(name).name for name in names], shown=5)
