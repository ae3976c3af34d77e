"""Data sets that are read in one order, through timm's readers.

The order is drawn from (seed, epoch) and cut among the processes and workers; what a worker gets follows from these
alone, so that a run that was interrupted goes on with the same images as long as it keeps its number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from typing import Any

from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import ConfigError
from .fingerprint import Fingerprint

Decoded = Callable[[Any, Any], tuple[Image.Image, Any]]

PASS_STRIDE = 1_000_003  # between the numbers of a stream's passes within one epoch


class StreamData:
    """One part of a data set that is read in order.

    reader: timm's; count: images; classes: names in label order.
    decoded: what an image and its target as the reader gives them are.
    """

    def __init__(self, reader: Any, classes: tuple[str, ...], source: str, *, decoded: Decoded) -> None:
        self.reader, self.classes, self.source, self.decoded = reader, classes, source, decoded
        self.count = int(reader.num_samples)

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> Fingerprint:
        """How many images there are; their names show only when they are read."""
        return {"images": [self.count, ""]}

    def images(self) -> Iterator[tuple[str, Image.Image, Any]]:
        """Every image once, in the order of the stream: a name, which is its number, the image and its target."""
        whole = StreamSet(self, _pair, seed=0, training=False, batch_size=1, workers=1)
        for number, (image, target) in enumerate(whole, 1):
            yield f"number {number}", image, target

    def check_workers(self, workers: int) -> None:
        """Raise ConfigError when some of `workers`, over all processes, would have no shard to read."""
        info = getattr(self.reader, "split_info", None)
        if info is not None and len(info.filenames) < workers:
            raise ConfigError(
                f"{self.source} has {len(info.filenames)} shard(s) for {workers} worker(s) of all devices; use fewer "
                "trainer.workers, or more and smaller shards"
            )


class StreamSet(IterableDataset[Any]):
    """A process's share of a stream, as what `example` makes of an image, its target and its key.

    training: shuffled, as many images in every worker, the key (epoch, process, worker, place); else every image of the
    stream once over all processes. `set_epoch` chooses the order.
    epoch_batches: batches of an epoch of this process in training; None: what the stream has, rounded up to whole
    batches in every worker. A shorter stream is run through again, in another order.
    """

    def __init__(
        self,
        data: StreamData,
        example: Callable[[Image.Image, Any, tuple[int, ...]], Any],
        *,
        seed: int,
        training: bool,
        batch_size: int,
        workers: int,
        epoch_batches: int | None = None,
    ) -> None:
        from timm.data.readers.shared_count import SharedCount

        self.data, self.example, self.seed, self.training = data, example, seed, training
        self.batch_size, self.workers, self.epoch_batches = batch_size, max(1, workers), epoch_batches
        self.rank, self.world_size = 0, 1
        self.epoch = SharedCount()  # shared with workers that live from epoch to epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch.value = epoch

    def __len__(self) -> int:
        if not self.training:
            return -(-(len(self.data) - self.rank) // self.world_size)
        if self.epoch_batches is not None:
            return self.epoch_batches * self.batch_size
        per_worker = -(-len(self.data) // (self.world_size * self.workers))
        return -(-per_worker // self.batch_size) * self.batch_size * self.workers

    def __iter__(self) -> StreamIterator:
        return StreamIterator(self)

    def stored(self, epoch: int, worker: int, workers: int) -> Iterator[tuple[Any, Any]]:
        """What a worker reads in an epoch, as the reader gives it."""
        if not self.training:
            return islice(self._passed(epoch, worker, workers), self.rank, None, self.world_size)
        if self.epoch_batches is None:
            return self._passed(epoch, worker, workers)
        share = self.epoch_batches // workers + (worker < self.epoch_batches % workers)
        passes = (self._passed(epoch, worker, workers, again=again) for again in count())
        return islice(chain.from_iterable(passes), share * self.batch_size)

    def _passed(self, epoch: int, worker: int, workers: int, *, again: int = 0) -> Iterator[tuple[Any, Any]]:
        """One pass of a worker; again: how many were before it in this epoch."""
        reader, info = self.data.reader, get_worker_info()
        world_size, rank = (self.world_size, self.rank) if self.training else (1, 0)
        reader.worker_info, reader.worker_id, reader.num_workers = info, worker, workers
        reader.dist_rank, reader.dist_num_replicas = rank, world_size
        reader.global_worker_id, reader.global_num_workers = rank * workers + worker, world_size * workers
        reader.worker_seed = _number(self.seed, epoch, rank, worker, *([again] if again else []))
        reader.set_epoch(epoch + again * PASS_STRIDE)
        reader.ds = None  # built again, so that no shuffling is left over from the last epoch
        return iter(reader)


class StreamIterator(Iterator[Any]):
    """A worker's walk through a StreamSet; its state is its place."""

    def __init__(self, images: StreamSet) -> None:
        info = get_worker_info()
        self.images, self.place, self.epoch = images, 0, images.epoch.value
        self.worker, workers = (info.id, info.num_workers) if info else (0, 1)
        self.stored = images.stored(self.epoch, self.worker, workers)

    def __next__(self) -> Any:
        image, target = self.images.data.decoded(*next(self.stored))
        key = (self.epoch, self.images.rank, self.worker, self.place)
        self.place += 1
        return self.images.example(image, target, key)

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.epoch = state_dict["epoch"]
        info = get_worker_info()
        self.stored = self.images.stored(self.epoch, self.worker, info.num_workers if info else 1)
        for self.place in range(1, state_dict["place"] + 1):  # skip what was already used
            next(self.stored)


def _pair(image: Image.Image, target: Any, key: tuple[int, ...]) -> tuple[Image.Image, Any]:
    return image, target


def _number(*parts: int) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
