"""What the doctor concludes about a folder of labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import LEVELS, Finding

if TYPE_CHECKING:
    from .images import ImagePart

TINY = 32  # pixels: the stride of the last stage
IMBALANCE = 10  # times as many images in the largest class as in the smallest
Duplicates = Sequence[Sequence[tuple[str, str]]]


def image_findings(parts: Mapping[str, ImagePart], duplicates: Duplicates) -> tuple[Finding, ...]:
    """All conclusions, the worst first."""
    found = [Finding(level, f"{split}: {text}") for split, part in parts.items() for level, text in _of_part(part)]
    found += [Finding(level, text) for level, text in (*_classes(parts), *_copies(parts, duplicates))]
    return tuple(sorted(found, key=lambda finding: LEVELS.index(finding.level)))


def _of_part(part: ImagePart) -> Iterator[tuple[str, str]]:
    empty = [name for name, count in zip(part.classes, part.total, strict=True) if not count]
    if part.unreadable:
        yield "error", f"{len(part.unreadable)} file(s) cannot be read: {part.unreadable[0].trouble}"
    if empty:
        yield "error", f"{len(empty)} class(es) have no image: {_some(empty)}; add images or remove the folders"
    if part.only_folders:
        names = _some(part.only_folders)
        yield "error", f"{len(part.only_folders)} class(es) hold folders and no image of their own: {names}"
    filled = [count for count in part.total if count]
    if not part.classes:
        yield "error", "there are no class folders"
    elif len(part.classes) < 2:
        yield "error", f"there is one class, {part.classes[0]!r}; training needs two"
    elif filled and max(filled) >= IMBALANCE * min(filled):
        largest, smallest = (part.classes[part.total.index(end(filled))] for end in (max, min))
        yield (
            "warning",
            f"the largest class, {largest} ({max(filled)} images), has {max(filled) / min(filled):.0f} times as many "
            f"as the smallest, {smallest} ({min(filled)}): see loss.class_weights balanced and data.sampling balanced",
        )
    yield from _pictures(part)
    if part.others:
        yield "note", f"{part.others} file(s) are no images and are left out, e.g. {part.first_other}"
    if len(part.looked) < sum(part.total):
        yield "note", f"{len(part.looked)} of {sum(part.total)} images were looked at"


def _pictures(part: ImagePart) -> Iterator[tuple[str, str]]:
    """Sizes and modes that training changes or that say little."""
    tiny = [each for each in part.readable if min(each.size) < TINY]
    if tiny:
        yield "warning", f"{len(tiny)} image(s) are narrower than {TINY} pixels: {_some([each.path for each in tiny])}"
    kinds = {
        "16 bits (the upper 8 are used)": [each for each in part.readable if each.mode.startswith(("I", "F"))],
        "CMYK (converted without a colour profile)": [each for each in part.readable if each.mode == "CMYK"],
        "a palette": [each for each in part.readable if each.mode == "P"],
        "transparency (it is dropped)": [each for each in part.readable if each.transparent],
    }
    for what, images in kinds.items():
        if images:
            level = "warning" if what.startswith(("16", "CMYK")) else "note"
            yield level, f"{len(images)} image(s) have {what}: {_some([each.path for each in images])}"


def _classes(parts: Mapping[str, ImagePart]) -> Iterator[tuple[str, str]]:
    if not {"train", "val"} <= parts.keys():
        return
    train, val = (set(parts[split].classes) for split in ("train", "val"))
    for where, missing in (("val", train - val), ("train", val - train)):
        if missing:
            yield "error", f"{where} lacks {len(missing)} class(es) of the other part: {_some(sorted(missing))}"


def _copies(parts: Mapping[str, ImagePart], duplicates: Duplicates) -> Iterator[tuple[str, str]]:
    """The same bytes twice: across the parts a score is not of held-out images, across classes a label is wrong."""
    across = [group for group in duplicates if len({split for split, _ in group}) > 1]
    label = {each.path: part.classes[each.label] for part in parts.values() for each in part.looked}
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


def _some(names: Sequence[str]) -> str:
    return ", ".join(Path(name).name for name in names[:5]) + (", …" if len(names) > 5 else "")
