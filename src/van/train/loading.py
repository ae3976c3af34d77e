"""The training loader of every task whose images are chosen by a sampler: seeded, shared, resumable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torchdata.stateful_dataloader import StatefulDataLoader

from ..errors import ConfigError
from .batch_norm import calibration_loader

MAX_WORKERS = 8


class SampledData(LightningDataModule):
    """Images that a sampler chooses by (seed, epoch, index), of which every process takes its share.

    images: a data set of the sampler's keys, whose `data` names them; sampler: has `rank`, `ranks` and `set_epoch`.
    The incomplete last batch is left out.
    """

    def __init__(
        self,
        images: Any,
        sampler: Any,
        *,
        data: Any,
        batch_size: int,
        workers: int,
        seed: int,
        prefetch: int | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.images, self.sampler, self.data = images, sampler, data
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.prefetch, self.pin_memory = prefetch, pin_memory

    def setup(self, stage: str) -> None:
        trainer: Any = self.trainer
        self.sampler.rank, self.sampler.ranks = trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(
            self.images, batch_size=self.batch_size, sampler=self.sampler, drop_last=True, **self.reading()
        )

    def reading(self) -> dict[str, Any]:
        """How loaders of this run read, in training and validation."""
        return {
            "num_workers": self.workers,
            "pin_memory": self.pin_memory,
            "persistent_workers": self.workers > 0,
            "prefetch_factor": self.prefetch if self.workers else None,
            # without one of their own, loaders draw worker seeds from the global generator, between training steps
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def names_of(self, epoch: int, batch: int) -> list[str]:
        """What the images of a batch of this process are called."""
        self.sampler.set_epoch(epoch)
        first = batch * self.batch_size
        keys = islice(iter(self.sampler), first, first + self.batch_size)
        return [self.data.name(key[1]) for key in keys]

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


def workers_of(asked: int | None, *, embedded: bool) -> int:
    """Processes that read images, per device; embedded: the images are made in memory."""
    most = max(64, 16 * (os.cpu_count() or 1))
    if asked is not None and asked > most:
        raise ConfigError(f"trainer.workers is {asked}; more than {most} only get in each other's way on this machine")
    if asked is not None:
        return asked
    return 0 if embedded else min(MAX_WORKERS, os.cpu_count() or 1)
