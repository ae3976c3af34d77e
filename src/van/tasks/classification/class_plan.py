"""Which logit a folder of images belongs to: class maps, subsets of labels, reordered class folders."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, UnknownNameError, VanNotice
from ...files import parse_json, why_no_file
from ..class_names import places

Names = tuple[str, ...]


@dataclass(frozen=True)
class ClassPlan:
    """How the labels of a data set meet the logits of a model.

    classes: names of the evaluated classes; columns: the model's logits for them, in the same order.
    targets: per label of the data set, its position in `classes`; None leaves the label's images out.
    """

    classes: Names
    columns: tuple[int, ...]
    targets: tuple[int | None, ...]

    def position(self, label: int) -> int:
        """Position in `classes` of a label of the data set whose images are not left out."""
        position = self.targets[label]
        assert position is not None
        return position

    def select(self, logits: np.ndarray) -> np.ndarray:
        """(N, all classes) -> (N, evaluated classes)."""
        whole = self.columns == tuple(range(logits.shape[1]))
        return logits if whole else logits[:, list(self.columns)]


def plan_classes(
    data_classes: Sequence[str],
    num_classes: int,
    model_classes: Sequence[str] | None = None,
    *,
    subset: Iterable[str | int] | str | Path | None = None,
    class_map: Mapping[str, str | int] | str | Path | None = None,
) -> ClassPlan:
    """Match the folders of a data set with the logits of a model.

    subset: the only classes to consider, by name or index: a sequence, a text file (one a line) or a JSON list.
    class_map: folder name -> class name or index: a mapping, a JSON object, or a text file with "folder class" lines
    (or one folder a line, in class order).
    Without either, names decide where both sides have the same ones, else the position where the counts agree.
    Raises DataError when they cannot be matched, UnknownNameError for a class that does not exist.
    """
    folders, names = tuple(data_classes), tuple(model_classes) if model_classes else None
    known = names or (folders if len(folders) == num_classes else None)
    wanted = None if subset is None else _subset(subset, known, num_classes)
    if class_map is not None:
        indices = _by_map(folders, _read_map(class_map), known, num_classes)
    else:
        indices = _by_name(folders, names, num_classes, wanted)
    columns = tuple(range(num_classes)) if wanted is None else wanted
    place = {column: position for position, column in enumerate(columns)}
    targets = tuple(place.get(index) for index in indices)
    if all(target is None for target in targets):
        raise DataError(f"none of the {len(folders)} class folders ({_some(folders)}) is in the subset of labels")
    shown = known or _names_from(folders, indices, num_classes)
    return ClassPlan(tuple(shown[column] for column in columns), columns, targets)


def _by_name(folders: Names, names: Names | None, num_classes: int, wanted: tuple[int, ...] | None) -> list[int]:
    """Model index of every folder, from the names alone."""
    if names and len(set(names)) == len(names):
        place = {name: index for index, name in enumerate(names)}
        found = places(names, folders)
        if found is not None:
            if found != tuple(range(num_classes)):
                warnings.warn(
                    "the data set has the model's classes in another order; matched by name", VanNotice, stacklevel=4
                )
            return list(found)
        if wanted is not None and set(folders) <= set(names):
            return [place[folder] for folder in folders]
        if set(folders) & set(names):
            raise DataError(_differ(folders, names))
    if len(folders) == num_classes:
        if names and folders != names:
            warnings.warn(
                f"class folders ({_some(folders, 3)}) and the model's class names ({_some(names, 3)}) differ; matched "
                "by position, give a class map if that is wrong",
                VanNotice,
                stacklevel=4,
            )
        return list(range(num_classes))
    if wanted is not None and len(folders) == len(wanted):
        warnings.warn(
            f"{len(folders)} class folders taken for the {len(wanted)} labels of the subset, in order",
            VanNotice,
            stacklevel=4,
        )
        return list(wanted)
    raise DataError(
        f"the data set has {len(folders)} classes ({_some(folders, 3)}), the model has {num_classes}"
        f"{f' ({_some(names, 3)})' if names else ''}; give a class map or a subset of labels"
    )


def _differ(folders: Names, names: Names) -> str:
    alien, absent = [f for f in folders if f not in set(names)], [n for n in names if n not in set(folders)]
    parts = [f"not in the model: {_some(alien)}"] * bool(alien) + [f"not in the data: {_some(absent)}"] * bool(absent)
    return (
        f"the data set has {len(folders)} classes, the model has {len(names)}; {'; '.join(parts)}; "
        "give a class map or a subset of labels"
    )


def _by_map(folders: Names, mapping: Mapping[str, Any], known: Names | None, num_classes: int) -> list[int]:
    missing = [folder for folder in folders if folder not in mapping]
    if missing:
        raise DataError(f"the class map lacks {len(missing)} of {len(folders)} class folders: {_some(missing)}")
    return [_index(mapping[folder], known, num_classes) for folder in folders]


def _subset(subset: Iterable[str | int] | str | Path, known: Names | None, num_classes: int) -> tuple[int, ...]:
    """Model indices of the subset, ascending."""
    items = _read_lines_or_json(Path(subset)) if isinstance(subset, str | Path) else list(subset)
    if not isinstance(items, list) or not items:
        raise DataError("the subset of labels is empty or no list; expected class names or indices, one a line")
    return tuple(sorted({_index(item, known, num_classes) for item in items}))


def _index(item: Any, known: Names | None, num_classes: int) -> int:
    """A class given by name, index, or index as text; names win (the digits are called "0" … "9")."""
    if isinstance(item, str) and known and item in known:
        return known.index(item)
    number = int(item) if isinstance(item, str) and item.isdecimal() else item
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < num_classes:
        return number
    raise UnknownNameError.of("class", str(item), known or [f"0 … {num_classes - 1}"])


def _read_map(source: Mapping[str, str | int] | str | Path) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    content = _read_lines_or_json(Path(source))
    if isinstance(content, Mapping):
        return content
    if not all(isinstance(line, str) for line in content) or not content:
        raise DataError(f"{source} is no class map; expected a JSON object or lines of 'folder class'")
    pairs = [line.split("\t") if "\t" in line else line.rsplit(None, 1) for line in content]
    if all(len(pair) == 1 for pair in pairs):
        return {line: index for index, line in enumerate(content)}
    if not all(len(pair) == 2 for pair in pairs):
        raise DataError(f"{source} is no class map; some lines have a class and some have none")
    return {folder.strip(): target.strip() for folder, target in pairs}


def _read_lines_or_json(path: Path) -> Any:
    """JSON content, or the lines of a text file without empty ones and # comments."""
    if reason := why_no_file(path):
        raise DataError(f"cannot read {path}: it {reason}")
    try:
        text = path.read_text("utf-8")
        if path.suffix.lower() == ".json":
            return parse_json(text)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _names_from(folders: Names, indices: Sequence[int], num_classes: int) -> list[str]:
    """Names for the classes of a nameless model: the first folder that maps to each, else the index."""
    names = [str(index) for index in range(num_classes)]
    for folder, index in zip(reversed(folders), reversed(indices), strict=True):
        names[index] = folder
    return names


def _some(names: Sequence[str], count: int = 10) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
