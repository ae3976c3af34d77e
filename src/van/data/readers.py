"""Data sets beyond image folders, through timm's readers: tar files, WebDataset shards, Hugging Face data sets.

Tar files and downloaded Hugging Face data sets have random access, and so are like folders; see `streams` for the rest.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import ConfigError, DataError, MissingExtraError
from ..images.preprocess import read_image, upright
from ..recipes import DataSpec
from ..recipes.data_spec import BaseDataSpec
from .labelled_images import ClassificationData
from .split_folders import split_folder, split_tar
from .streams import StreamData

_EXTRA = {"wds": "webdataset", "hfds": "datasets", "hfids": "datasets"}
DEFAULT_SPLITS = {"train": "train", "val": "validation"}


class ReaderData(ClassificationData):
    """Images of one of timm's readers with random access; tar files are opened in every process."""

    def __init__(self, reader: Any, labels: list[int], classes: tuple[str, ...], source: str) -> None:
        self.reader, self.labels, self.classes, self.source = reader, tuple(labels), classes, source
        self.closed, self.process = copy.deepcopy(getattr(reader, "tar_state", None)), os.getpid()

    def load(self, index: int) -> tuple[Image.Image, int]:
        if self.process != os.getpid():  # processes that share an open file move each other's place in it
            self.process = os.getpid()
            if self.closed is not None:
                self.reader.tar_state = copy.deepcopy(self.closed)
        try:
            file, _ = self.reader[index]
            return read_image(file), self.labels[index]
        except Exception as error:  # PIL and tarfile raise nearly anything on corrupt bytes
            raise DataError(f"cannot read {self.name(index)}: {error}") from error

    def name(self, index: int) -> str:
        return f"{self.source}/{self.reader.filename(index) or index}"

    def key(self, index: int) -> str:
        return str(self.reader.filename(index) or index)


def open_reader(spec: DataSpec, split: str, *, seed: int, batch_size: int) -> ClassificationData | StreamData:
    """One part, "train" or "val", of a data set with a reader.

    Raises MissingExtraError, DataError for what cannot be read, ConfigError for labels without names.
    """
    assert spec.reader is not None
    assert spec.path is not None
    part = getattr(spec, f"{split}_split") or _default_split(spec, split)
    options: dict[str, Any] = {"input_key": spec.image_key, "target_key": spec.label_key}
    if spec.streams:
        images = getattr(spec, f"{split}_images")
        options |= {"is_training": split == "train", "batch_size": batch_size, "seed": seed, "num_samples": images}
        options |= {"sample_shuffle_size" if spec.reader == "wds" else "shuffle_size": spec.shuffle_buffer}
    reader = create_reader(spec, part, {name: value for name, value in options.items() if value is not None})
    source = f"{spec.path} ({part})"
    classes = _classes(spec, reader)
    if spec.streams:
        if split == "val" and not reader.num_samples:
            raise ConfigError(f"{source} does not say how many images it has; give data.val_images")
        return StreamData(reader, classes, source, decoded=_labelled)
    labels = list(reader.targets) if spec.reader == "tar" else [int(each) for each in reader.iter_targets()]
    return ReaderData(reader, labels, classes, source)


def _labelled(image: Image.Image, label: Any) -> tuple[Image.Image, int]:
    return upright(image), int(label)


def read_classes(path: str) -> tuple[str, ...]:
    """Names of a text file, one per line, in label order; raises DataError for no file, no names or one twice."""
    try:
        if not Path(path).is_file() and Path(path).exists():  # a FIFO or a device would never end
            raise DataError(f"cannot read data.classes {path}: it is not a regular file; expected a text file")
        names = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    except OSError as error:
        raise DataError(f"cannot read data.classes {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read data.classes {path}: it is not UTF-8; expected a text file") from error
    if len(names) < 2 or len(set(names)) != len(names):
        raise DataError(
            f"data.classes {path} has {len(names)} names, {len(set(names))} different; expected one per line"
        )
    return names


def _default_split(spec: DataSpec, split: str) -> str:
    if spec.reader != "tar":
        return DEFAULT_SPLITS[split]
    root = Path(str(spec.path))
    found = split_tar(root, split) or split_folder(root, split)
    return split if found is None else found.name.removesuffix(".tar")


def create_reader(spec: BaseDataSpec, part: str, options: dict[str, Any]) -> Any:
    """timm's reader of a part; raises MissingExtraError, DataError for what cannot be read."""
    package = _EXTRA.get(spec.reader or "")
    if package is not None:
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError.of(package, "data", f"for data.reader {spec.reader}") from error
    path = str(spec.path)
    try:
        if spec.reader == "tar":
            from timm.data.readers.reader_image_in_tar import ReaderImageInTar

            root = Path(path, f"{part}.tar")
            return ReaderImageInTar(str(root if root.is_file() else Path(path, part)), cache_tarinfo=False)
        from timm.data import readers

        root_or_none = path if spec.reader == "wds" else None
        return readers.create_reader(f"{spec.reader}/{path}", root=root_or_none, split=part, **options)
    except ConfigError:
        raise
    except Exception as error:  # every library has its own
        raise DataError(
            f"data.reader {spec.reader} cannot open {path} ({part}): {' '.join(str(error).split())}"
        ) from error


def _classes(spec: DataSpec, reader: Any) -> tuple[str, ...]:
    named: dict[str, int] = getattr(reader, "class_name_to_idx", None) or getattr(reader, "class_to_idx", None) or {}
    names = tuple(sorted(named, key=lambda name: named[name]))
    if spec.classes is not None:
        if names and spec.reader == "tar":
            raise ConfigError("data.classes has no effect on tar files, whose folders are the classes; leave it out")
        return read_classes(spec.classes)
    if not names:
        raise ConfigError(
            f"data.reader {spec.reader} does not name the classes of {spec.path}; give data.classes, a text file"
        )
    return names
