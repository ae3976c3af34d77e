"""The loaders of a run: seeded by (epoch, index), resumable in the middle of an epoch."""

from __future__ import annotations

import os
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from ..data import ClassificationData
from ..data.augment import TrainingTransform
from ..data.dataset import EpochSampler, EvaluationSet, TrainingSet
from ..preprocess import Preprocess
from ..recipes import Recipe

MAX_WORKERS = 8


class ClassificationDataModule(LightningDataModule):
    """Training and validation images of a recipe; training drops the incomplete last batch, validation keeps it."""

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
        self.workers = _workers(recipe)
        self.train_set = TrainingSet(train, TrainingTransform(recipe.augment, preprocess), seed=self.seed)
        self.val_set = EvaluationSet(val, preprocess)
        self.sampler = EpochSampler(len(train), seed=self.seed, repeats=recipe.augment.repeats)

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last one may have fewer passes to accumulate."""
        return -(-(len(self.train_set) // self.batch_size) // self.accumulate)

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(
            self.train_set,
            batch_size=self.batch_size,
            sampler=self.sampler,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            generator=self._generator(),
        )

    def val_dataloader(self) -> Any:
        return DataLoader(
            self.val_set,
            batch_size=self.eval_batch_size,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.workers > 0,
            generator=self._generator(),
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


def _workers(recipe: Recipe) -> int:
    if recipe.trainer.workers is not None:
        return recipe.trainer.workers
    return 0 if recipe.data.path == "digits" else min(MAX_WORKERS, os.cpu_count() or 1)
