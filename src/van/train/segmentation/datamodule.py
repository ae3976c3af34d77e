"""The loaders of a segmentation run: seeded by (pass, index), resumable in the middle of a period."""

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

from ...data.joint import JointTrainingSet, JointTransform
from ...data.segmentation import SegmentationData
from ...data.stream import PeriodSampler, PictureSet, spread
from ...preprocess import Preprocess
from ...recipes import SegmentationRecipe
from ..batch_norm import calibration_loader

MAX_WORKERS = 8


class SegmentationDataModule(LightningDataModule):
    """Augmented crops of an endless stream for training, whole pictures for validation; each device has its share."""

    def __init__(
        self,
        train: SegmentationData,
        val: SegmentationData,
        *,
        recipe: SegmentationRecipe,
        preprocess: Preprocess,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        spec, augment = recipe.trainer, recipe.augment
        self.batch_size, self.pin_memory, self.seed = spec.batch_size, pin_memory, spec.seed
        self.images_per_epoch = spec.val_every * recipe.global_batch
        self.workers = _workers(recipe)
        transform = JointTransform(
            preprocess=preprocess,
            crop=augment.crop,
            base=recipe.data.resize,
            scale=augment.scale,
            max_class_share=augment.max_class_share,
            flip=augment.flip,
            photometric=augment.photometric,
            ignore_index=train.ignore_index,
        )
        self.train_set = JointTrainingSet(train, transform, seed=spec.seed)
        self.val, self.val_images = val, recipe.data.val_images
        self.sampler = PeriodSampler(len(train), period=self.images_per_epoch, seed=spec.seed)

    def setup(self, stage: str) -> None:
        trainer: Any = self.trainer
        self.sampler.rank, self.sampler.ranks = trainer.global_rank, trainer.world_size

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
        mine = spread(len(self.val), self.val_images)[self.sampler.rank :: self.sampler.ranks]
        return DataLoader(
            PictureSet(self.val, mine),
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            generator=self._generator(),
        )

    def names_of(self, epoch: int, batch: int) -> list[str]:
        """What the images of a batch of this process are called; `epoch` is a period."""
        self.sampler.set_epoch(epoch)
        first = batch * self.batch_size
        keys = islice(iter(self.sampler), first, first + self.batch_size)
        return [self.train_set.data.name(key[1]) for key in keys]

    def calibration_batches(self, epoch: int, images: int) -> Iterator[Tensor]:
        """The first `images` of this process in a period, as the network sees them, for BatchNorm's statistics."""
        self.sampler.set_epoch(epoch)
        return calibration_loader(
            self.train_set, self.sampler, images=images, batch_size=self.batch_size, workers=self.workers
        )

    def state_dict(self) -> dict[str, Any]:
        # see ClassificationDataModule: the first iterator of a resumed run is made before the sampler has its period
        trainer: Any = self.trainer
        return {"epoch": trainer.fit_loop.epoch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sampler.set_epoch(state_dict["epoch"])

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _workers(recipe: SegmentationRecipe) -> int:
    if recipe.trainer.workers is not None:
        return recipe.trainer.workers
    return 0 if recipe.data.path == "scenes" else min(MAX_WORKERS, os.cpu_count() or 1)
