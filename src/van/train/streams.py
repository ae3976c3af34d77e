"""The loaders of a run whose images come in the order of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from ..data.augment import TrainingTransform
from ..data.readers import StreamData, StreamSet
from ..images.preprocess import Preprocess
from ..recipes import Recipe
from ..tasks.classification.losses import join_splits
from .guards import Substituting
from .loading import workers_of


class StreamDataModule(LightningDataModule):
    """Training and validation streams of a recipe, of which every process takes its share.

    An epoch is as many images as the stream has, rounded up to whole batches in every worker. Validation sees every
    image once.
    """

    def __init__(
        self, train: StreamData, val: StreamData, *, recipe: Recipe, preprocess: Preprocess, pin_memory: bool = False
    ) -> None:
        super().__init__()
        trainer = recipe.trainer
        self.batch_size, self.pin_memory, self.prefetch = trainer.batch_size, pin_memory, recipe.data.prefetch
        self.eval_batch_size = trainer.eval_batch_size or self.batch_size
        self.accumulate, self.seed, self.devices = trainer.accumulate, trainer.seed, trainer.devices
        self.workers = workers_of(trainer.workers, embedded=False)
        train.check_workers(max(1, self.workers) * self.devices)
        share = {"seed": self.seed, "workers": self.workers}
        transform = TrainingTransform(recipe.augment, preprocess)
        self.train_set = StreamSet(train, transform, training=True, batch_size=self.batch_size, **share)
        self.val_set = StreamSet(
            val, lambda image: torch.from_numpy(preprocess(image)), training=False, batch_size=1, **share
        )
        self.train_set.ranks = self.devices
        self.images = Substituting(self.train_set, limit=0)

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last one may have fewer passes to accumulate."""
        return -(-(len(self.train_set) // self.batch_size) // self.accumulate)

    @property
    def images_per_epoch(self) -> int:
        """Training images of an epoch, over all devices."""
        return len(self.train_set) * self.devices

    @property
    def val_seen(self) -> tuple[int, int]:
        """Images that a validation looks at, and all there are."""
        return len(self.val_set.data), len(self.val_set.data)

    def probe(self) -> None:
        """Read the first image of each part; raises DataError where there is none."""
        for images in (self.train_set, self.val_set):
            next(iter(images))
            images.data.reader.ds = None

    def setup(self, stage: str) -> None:
        trainer: Any = self.trainer
        for images in (self.train_set, self.val_set):
            images.rank, images.ranks = trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(
            self.train_set,
            batch_size=self.batch_size,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            prefetch_factor=self.prefetch,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> Any:
        return DataLoader(
            self.val_set,
            batch_size=self.eval_batch_size,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            prefetch_factor=self.prefetch,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; streams have no sampler that Lightning could tell."""
        self.train_set.set_epoch(epoch)

    def names_of(self, epoch: int, batch: int) -> list[str]:
        """Where a batch of this process was: images of a stream have no names."""
        return [f"number {batch} of the batches of {self.train_set.data.source} in epoch {epoch + 1}"]

    def calibration_batches(self, epoch: int, images: int) -> Iterator[Tensor]:
        """The first `images` of this process in an epoch, as the network sees them, for BatchNorm's statistics."""
        self.set_epoch(epoch)
        loader = DataLoader(self.train_set, batch_size=self.batch_size)
        batches = (join_splits(*batch)[0] for batch in loader)
        return islice(batches, -(-images // self.batch_size))

    def state_dict(self) -> dict[str, Any]:
        # see SampledData: the first iterator of a resumed run is made before anyone knows its epoch
        trainer: Any = self.trainer
        return {"epoch": trainer.fit_loop.epoch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.set_epoch(state_dict["epoch"])
