"""The loaders of a run whose images are chosen by a sampler: seeded, shared, resumable in the middle of an epoch."""

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

from ..data.dataset import EvaluationSet, TrainingSet
from ..errors import ConfigError
from ..nn import Model
from ..recipes import BaseRecipe
from ..tasks.training import Training
from ..tasks.validation import Validator
from .batch_norm import calibration_loader
from .guards import Substituting

MAX_WORKERS, MAX_UNREADABLE = 8, 10


class SampledDataModule(LightningDataModule):
    """Training images that a sampler chooses by (seed, epoch, index), of which every process takes its share.

    Training leaves the incomplete last batch out, validation keeps it and uses every image once.
    """

    def __init__(
        self, training: Training[Any], train: Any, val: Any, *, network: Model, validator: Validator, pin_memory: bool
    ) -> None:
        super().__init__()
        recipe, spec = training.recipe, training.recipe.trainer
        limit = MAX_UNREADABLE if spec.max_unreadable is None else spec.max_unreadable
        self.images = Substituting(TrainingSet(train, training.example(train, network)), limit=limit)
        self.sampler: Any = training.sampler(train)
        self.validator, self.val_indices = validator, training.validation_indices(val)
        self.val_set = EvaluationSet(val, validator.example)
        self.collate, self.batch_size = training.collate, spec.batch_size
        self.eval_batch_size = spec.eval_batch_size or spec.batch_size
        self.reading = Reading(recipe, pin_memory=pin_memory)
        self.updates_per_epoch = recipe.updates_per_epoch(len(train))
        self.images_per_epoch = recipe.images_per_epoch(len(train))

    @property
    def val_counted(self) -> tuple[int, int]:
        """Images that a validation uses, and all there are."""
        return len(self.val_indices), len(self.val_set)

    def probe(self) -> None:
        """Read the first image of each part: a wrong transform or an unreadable file shows here."""
        self.images[0, 0], self.val_set[0]

    def setup(self, stage: str) -> None:
        trainer: Any = self.trainer
        self.sampler.rank, self.sampler.world_size = trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(
            self.images,
            batch_size=self.batch_size,
            sampler=self.sampler,
            drop_last=True,
            collate_fn=self.collate,
            **self.reading.options(),
        )

    def val_dataloader(self) -> Any:
        # every image once: without the copies of DistributedSampler, which would count twice
        mine = self.val_indices[self.sampler.rank :: self.sampler.world_size]
        return validation_loader(self.val_set, self.validator, self.eval_batch_size, self.reading, sampler=mine)

    def names_of(self, epoch: int, batch: int) -> list[str]:
        """What the images of a batch of this process are called."""
        self.sampler.set_epoch(epoch)
        first = batch * self.batch_size
        keys = islice(iter(self.sampler), first, first + self.batch_size)
        return [self.images.data.name(key[1]) for key in keys]

    def calibration_batches(self, epoch: int, images: int) -> Iterator[Tensor]:
        """The first `images` of this process in an epoch, as the network gets them, for BatchNorm's statistics."""
        self.sampler.set_epoch(epoch)
        return calibration_loader(
            self.images,
            self.sampler,
            images=images,
            batch_size=self.batch_size,
            workers=self.reading.workers,
            collate=self.collate,
        )

    def state_dict(self) -> dict[str, Any]:
        # Lightning makes the first iterator of a resumed run before it gives the sampler its epoch; `processed` is the
        # epoch to go on with, at the end of an epoch the next one already.
        trainer: Any = self.trainer
        return {"epoch": trainer.fit_loop.epoch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sampler.set_epoch(state_dict["epoch"])


class Reading:
    """How the loaders of a run read, in training and validation."""

    def __init__(self, recipe: BaseRecipe, *, pin_memory: bool) -> None:
        self.workers = workers_of(recipe.trainer.workers, embedded=recipe.data.embedded)
        self.pin_memory, self.prefetch, self.seed = pin_memory, recipe.data.prefetch, recipe.trainer.seed

    def options(self) -> dict[str, Any]:
        """Of a DataLoader."""
        return {
            "num_workers": self.workers,
            "pin_memory": self.pin_memory,
            "persistent_workers": self.workers > 0,
            "prefetch_factor": self.prefetch if self.workers else None,
            # without one of their own, loaders draw worker seeds from the global generator, between training steps
            "generator": torch.Generator().manual_seed(self.seed),
        }


def validation_loader(
    images: Any, validator: Validator, batch_size: int, reading: Reading, *, sampler: Any = None
) -> Any:
    """Batches of examples for the validator, stacked or one by one."""
    options = {**reading.options(), "sampler": sampler}
    if validator.batched:
        return DataLoader(images, batch_size=batch_size, **options)
    return DataLoader(images, batch_size=1, collate_fn=_as_they_are, **{**options, "pin_memory": False})


def workers_of(asked: int | None, *, embedded: bool) -> int:
    """Processes that read images, per device; embedded: the images are made in memory."""
    most = max(64, 16 * (os.cpu_count() or 1))
    if asked is not None and asked > most:
        raise ConfigError(f"trainer.workers is {asked}; more than {most} only get in each other's way on this machine")
    if asked is not None:
        return asked
    return 0 if embedded else min(MAX_WORKERS, os.cpu_count() or 1)


def _as_they_are(examples: list[Any]) -> list[Any]:
    return examples
