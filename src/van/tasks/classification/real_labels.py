"""Labels that say everything that is in an image: ImageNet-ReaL and files like it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import DataError
from ...files import read_json, why_no_file

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


class RealLabels:
    """The right classes of every ImageNet validation image, from a JSON list of label lists in file order.

    targets: per class of the data set, its evaluated position or None; columns: the model's index of each evaluated
    position. Labels are classes of the data set when it has them all, else indices of the model.
    Raises DataError for a file of another form.
    Source: Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159; the file `real.json` beside it.
    """

    def __init__(self, path: str | Path, targets: Sequence[int | None], columns: Sequence[int]) -> None:
        self.path = Path(path)
        self._labels = _read(self.path)
        whole = max((label for labels in self._labels for label in labels), default=0) < len(targets)
        self._position = dict(enumerate(targets)) if whole else {c: i for i, c in enumerate(columns)}

    def of(self, name: str) -> frozenset[int]:
        """Evaluated positions of the right classes of an image, empty when it has none.

        name: its path; raises DataError when it is not called like a validation image of ImageNet.
        """
        match = _NUMBER.search(Path(name).name)
        if not match or not 1 <= int(match[1]) <= len(self._labels):
            raise DataError(
                f"{self.path.name} has no labels for {name}; expected files ILSVRC2012_val_00000001 … "
                f"{len(self._labels):08d}"
            )
        positions = (self._position.get(label) for label in self._labels[int(match[1]) - 1])
        return frozenset(position for position in positions if position is not None)


def _read(path: Path) -> list[list[int]]:
    if reason := why_no_file(path):
        raise DataError(f"cannot read {path}: it {reason}")
    try:
        labels = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    whole = isinstance(labels, list) and all(
        isinstance(entry, list) and all(type(label) is int and label >= 0 for label in entry) for entry in labels
    )
    if not whole:
        raise DataError(f"{path} holds no real labels; expected a JSON list with one list of class indices per image")
    return labels
