"""Which way a data set lies on disk, and so which checks apply to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from ...data.object_data import described_labels, holds_panoptic, layout_name
from ...data.segmentation import is_label_maps
from ...data.split_folders import folder_names
from ...errors import ConfigError, DataError
from ...files import why_no_path
from .class_folders import ClassFolders, is_class_folders
from .contact_sheet import draw
from .label_maps import LabelMaps
from .object_sheet import draw as draw_objects
from .objects import ObjectFiles
from .report import Report
from .walk import OpenedData, walk

Draw: TypeAlias = Callable[[Any], Image.Image]


@dataclass(frozen=True)
class Layout:
    """A way in which data sets lie on disk.

    open: (data, splits or None for all) -> what can be read; draw: the contact sheet of a report, where there is one.
    """

    open: Callable[[str | Path, Sequence[str] | None], OpenedData]
    draw: Draw | None = None


LABEL_MAPS = Layout(LabelMaps, draw)
OBJECTS = Layout(ObjectFiles, draw_objects)
CLASS_FOLDERS = Layout(ClassFolders)


def layout_of(data: str | Path) -> Layout:
    """The layout of a data set: a folder, a dataset.yaml or data.yaml, a JSON file, or 'scenes'.

    Raises DataError for what can be no data set.
    """
    if described_labels(data):
        return OBJECTS
    if is_label_maps(data):
        return LABEL_MAPS
    if not why_no_path(data) and (layout_name(data) or holds_panoptic(data)):
        return OBJECTS
    _check_folder(data)
    return CLASS_FOLDERS if is_class_folders(data) else LABEL_MAPS  # which says what it looked for


def _check_folder(data: str | Path) -> None:
    root = Path(data)
    found = why_no_path(data) or ("" if root.is_dir() else "is a file" if root.exists() else "does not exist")
    if not found and not folder_names(root):
        found = "holds no folders"
    if found:
        raise DataError(
            f"{str(data)!r} {found}; expected a folder with a folder per class, with train/ and val/ of them, or with "
            "label maps in a published layout; a dataset.yaml; COCO's or YOLO's files; or 'scenes'"
        )


def examine(
    data: str | Path,
    splits: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report[Any]:
    """Read every image of a data set, or `limit` per split spread evenly over it, with its label map if it has one.

    splits: "train" and "val", all that the data set has by default; progress: called with (images done, in all).
    Broken files, wrong sizes, unknown values, and a split that cannot be opened beside one that can, are findings.
    Raises DataError or ConfigError when the data set cannot be opened at all, ConfigError for a limit below 1.
    """
    return walk(layout_of(data).open(data, splits), limit=limit, progress=progress)


def contact_sheet_of(data: str | Path) -> Draw:
    """What draws the contact sheet of a data set's report; raises ConfigError for a layout that has none."""
    sheet = layout_of(data).draw
    if sheet is None:
        raise ConfigError("--sheet draws label maps and objects; a folder of labelled images has none: leave it out")
    return sheet
