"""Class names from outside, for checkpoints that have none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError, MissingExtraError
from ..files import parse_json, why_no_file

IMAGENET = "imagenet-1k"


def class_names(source: str | Path | Sequence[str], num_classes: int) -> tuple[str, ...]:
    """One name per class.

    source: the names in the order of the logits, a text file with one a line, a JSON list, or "imagenet-1k", whose
    names come from timm.
    Raises DataError for a file that cannot be read or another number of names, MissingExtraError without timm.
    """
    names = _imagenet() if source == IMAGENET else _read(Path(source)) if isinstance(source, str | Path) else source
    if len(names) != num_classes:
        raise DataError(f"{len(names)} class names for {num_classes} classes; expected one per class, in order")
    return tuple(names)


def _imagenet() -> list[str]:
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise MissingExtraError.of("timm", "train", "for the names of ImageNet's classes") from error
    info = ImageNetInfo(IMAGENET)
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _read(path: Path) -> list[str]:
    if reason := why_no_file(path):
        raise DataError(f"cannot read class names from {path}: it {reason}")
    try:
        text = path.read_text("utf-8")
        names = parse_json(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read class names from {path}: {' '.join(str(error).split())}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} holds no list of names; expected a JSON list of texts, or one name a line")
    return [name.strip() for name in names if name.strip()]
