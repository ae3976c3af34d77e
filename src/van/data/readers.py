"""Data sets beyond image folders, through timm's readers: tar files, WebDataset shards, Hugging Face data sets.

Tar files and downloaded Hugging Face data sets have random access, and so are like folders. Streams have one order,
drawn from (seed, epoch) and cut among the processes and workers; what a worker sees follows from these alone, so that
an interrupted run continues with the same images as long as it keeps its number of workers.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import ConfigError, DataError, MissingExtraError
from ..images.preprocess import read_image, upright
from ..recipes import DataSpec
from .augment import Transform
from .fingerprint import Fingerprint
from .labelled_images import ClassificationData
from .seeding import seeded
from .split_folders import split_folder, split_tar

_EXTRA = {"wds": "webdataset", "hfds": "datasets", "hfids": "datasets"}
_DEFAULT_SPLITS = {"train": "train", "val": "validation"}


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


class StreamData:
    """One part of a data set that is read in order.

    reader: timm's; count: images; classes: names in label order.
    """

    def __init__(self, reader: Any, classes: tuple[str, ...], source: str) -> None:
        self.reader, self.classes, self.source = reader, classes, source
        self.count = int(reader.num_samples)

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> Fingerprint:
        """How many images there are; their names show only when they are read."""
        return {"images": [self.count, ""]}

    def check_workers(self, workers: int) -> None:
        """Raise ConfigError when some of `workers`, over all processes, would have no shard to read."""
        info = getattr(self.reader, "split_info", None)
        if info is not None and len(info.filenames) < workers:
            raise ConfigError(
                f"{self.source} has {len(info.filenames)} shard(s) for {workers} worker(s) of all devices; use fewer "
                "trainer.workers, or more and smaller shards"
            )


class StreamSet(IterableDataset[tuple[Tensor, int]]):
    """A process's share of a stream, as ((C, H, W) or splits of it, label).

    training: shuffled, as many images in every worker, augmented by (seed, epoch, process, worker, place); else
    every image of the stream once over all processes. `set_epoch` chooses the order.
    """

    def __init__(
        self, data: StreamData, transform: Transform, *, seed: int, training: bool, batch_size: int, workers: int
    ) -> None:
        from timm.data.readers.shared_count import SharedCount

        self.data, self.transform, self.seed, self.training = data, transform, seed, training
        self.batch_size, self.workers = batch_size, max(1, workers)
        self.rank, self.ranks = 0, 1
        self.epoch = SharedCount()  # shared with workers that live from epoch to epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch.value = epoch

    def __len__(self) -> int:
        if not self.training:
            return -(-(len(self.data) - self.rank) // self.ranks)
        per_worker = -(-len(self.data) // (self.ranks * self.workers))
        return -(-per_worker // self.batch_size) * self.batch_size * self.workers

    def __iter__(self) -> StreamIterator:
        return StreamIterator(self)

    def pictures(self, epoch: int, worker: int, workers: int) -> Iterator[tuple[Image.Image, int]]:
        """What a worker reads in an epoch, before any transform."""
        reader, info = self.data.reader, get_worker_info()
        ranks, rank = (self.ranks, self.rank) if self.training else (1, 0)
        reader.worker_info, reader.worker_id, reader.num_workers = info, worker, workers
        reader.dist_rank, reader.dist_num_replicas = rank, ranks
        reader.global_worker_id, reader.global_num_workers = rank * workers + worker, ranks * workers
        reader.worker_seed = _number(self.seed, epoch, rank, worker)
        reader.set_epoch(epoch)
        reader.ds = None  # built again, so that no shuffling is left over from the last epoch
        return iter(reader) if self.training else islice(iter(reader), self.rank, None, self.ranks)


class StreamIterator(Iterator[tuple[Tensor, int]]):
    """A worker's walk through a StreamSet; its state is its place."""

    def __init__(self, images: StreamSet) -> None:
        info = get_worker_info()
        self.images, self.place, self.epoch = images, 0, images.epoch.value
        self.worker, workers = (info.id, info.num_workers) if info else (0, 1)
        self.pictures = images.pictures(self.epoch, self.worker, workers)

    def __next__(self) -> tuple[Tensor, int]:
        image, label = next(self.pictures)
        key = (self.images.seed, self.epoch, self.images.rank, self.worker, self.place)
        self.place += 1
        with seeded(*key):
            return self.images.transform(upright(image)), int(label)

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.epoch = state_dict["epoch"]
        info = get_worker_info()
        self.pictures = self.images.pictures(self.epoch, self.worker, info.num_workers if info else 1)
        for self.place in range(1, state_dict["place"] + 1):  # skip what was already used
            next(self.pictures)


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
    reader = _create(spec, part, {name: value for name, value in options.items() if value is not None})
    source = f"{spec.path} ({part})"
    classes = _classes(spec, reader)
    if spec.streams:
        if split == "val" and not reader.num_samples:
            raise ConfigError(f"{source} does not say how many images it has; give data.val_images")
        return StreamData(reader, classes, source)
    labels = list(reader.targets) if spec.reader == "tar" else [int(each) for each in reader.iter_targets()]
    return ReaderData(reader, labels, classes, source)


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
        return _DEFAULT_SPLITS[split]
    root = Path(str(spec.path))
    found = split_tar(root, split) or split_folder(root, split)
    return split if found is None else found.name.removesuffix(".tar")


def _create(spec: DataSpec, part: str, options: dict[str, Any]) -> Any:
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
        from timm.data.readers import create_reader

        root_or_none = path if spec.reader == "wds" else None
        return create_reader(f"{spec.reader}/{path}", root=root_or_none, split=part, **options)
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


def _number(*parts: int) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
