"""The loaders of a run: seeded by (epoch, index), resumable in the middle of an epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from ..data import ClassificationData
from ..data.augment import TrainingTransform
from ..data.dataset import EpochSampler, EvaluationSet, TrainingSet
from ..preprocess import Preprocess
from ..recipes import Recipe
from .batch_norm import calibration_loader
from .ranks import RankShare
from .watch import Substituting

MAX_WORKERS = 8
MAX_UNREADABLE = 10


class ClassificationDataModule(LightningDataModule):
    """Training and validation images of a recipe, of which every process takes its share.

    Training drops the incomplete last batch, validation keeps it and sees every image once.
    """

    def __init__(
        self,
        train: ClassificationData,
        val: ClassificationData,
        *,
        recipe: Recipe,
        preprocess: Preprocess,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size, self.pin_memory = recipe.trainer.batch_size, pin_memory
        self.eval_batch_size = recipe.trainer.eval_batch_size or self.batch_size
        self.accumulate, self.seed = recipe.trainer.accumulate, recipe.trainer.seed
        self.workers, self.prefetch = workers_of(recipe), recipe.data.prefetch
        self.train_set = TrainingSet(train, TrainingTransform(recipe.augment, preprocess), seed=self.seed)
        limit = recipe.trainer.max_unreadable
        self.images = Substituting(self.train_set, limit=MAX_UNREADABLE if limit is None else limit)
        self.val_set = EvaluationSet(val, preprocess)
        self.devices = recipe.trainer.devices
        self.sampler = RankShare(EpochSampler(len(train), seed=self.seed, repeats=recipe.augment.repeats))

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last one may have fewer passes to accumulate."""
        return -(-(len(self.train_set) // self.devices // self.batch_size) // self.accumulate)

    @property
    def images_per_epoch(self) -> int:
        """Training images of an epoch, over all devices."""
        batch = self.batch_size * self.devices
        return len(self.train_set) // self.devices // self.batch_size * batch

    def setup(self, stage: str) -> None:
        trainer: Any = self.trainer
        self.sampler.rank, self.sampler.ranks = trainer.global_rank, trainer.world_size

    def probe(self) -> None:
        """Read the first image of each part: a wrong transform or an unreadable file shows here."""
        self.images[0, 0], self.val_set[0]

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(
            self.images,
            batch_size=self.batch_size,
            sampler=self.sampler,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            prefetch_factor=self.prefetch,
            generator=self._generator(),
        )

    def val_dataloader(self) -> Any:
        # every image once: without the copies of DistributedSampler, which would count twice
        mine = range(self.sampler.rank, len(self.val_set), self.sampler.ranks)
        return DataLoader(
            self.val_set,
            sampler=mine,
            batch_size=self.eval_batch_size,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            prefetch_factor=self.prefetch,
            generator=self._generator(),
        )

    def names_of(self, epoch: int, batch: int) -> list[str]:
        """What the images of a batch of this process are called."""
        self.sampler.set_epoch(epoch)
        first = batch * self.batch_size
        keys = islice(iter(self.sampler), first, first + self.batch_size)
        return [self.train_set.data.name(key[1]) for key in keys]

    def calibration_batches(self, epoch: int, images: int) -> Iterator[Tensor]:
        """The first `images` of this process in an epoch, as the network sees them, for BatchNorm's statistics."""
        self.sampler.set_epoch(epoch)
        return calibration_loader(
            self.images, self.sampler, images=images, batch_size=self.batch_size, workers=self.workers
        )

    def state_dict(self) -> dict[str, Any]:
        # Lightning makes the first iterator of a resumed run before it tells the sampler its epoch; `processed` is the
        # epoch to go on with, at the end of an epoch the next one already.
        trainer: Any = self.trainer
        return {"epoch": trainer.fit_loop.epoch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sampler.set_epoch(state_dict["epoch"])

    def _generator(self) -> torch.Generator:
        """Without one of their own, loaders draw worker seeds from the global generator, between training steps."""
        return torch.Generator().manual_seed(self.seed)


def workers_of(recipe: Recipe) -> int:
    """Processes that read images, per device."""
    if recipe.trainer.workers is not None:
        return recipe.trainer.workers
    return 0 if recipe.data.path == "digits" else min(MAX_WORKERS, os.cpu_count() or 1)
