"""The loaders of a classification run: seeded by (epoch, index), resumable in the middle of an epoch."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from ..data import ClassificationData
from ..data.augment import TrainingTransform
from ..data.dataset import EpochSampler, EvaluationSet, TrainingSet
from ..images.preprocess import Preprocess
from ..recipes import Recipe
from .distributed import RankShare
from .guards import Substituting
from .loading import SampledData, workers_of

MAX_UNREADABLE = 10


class ClassificationDataModule(SampledData):
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
        spec = recipe.trainer
        self.train_set = TrainingSet(train, TrainingTransform(recipe.augment, preprocess), seed=spec.seed)
        labels = train.labels if recipe.data.sampling == "balanced" else None
        limit = MAX_UNREADABLE if spec.max_unreadable is None else spec.max_unreadable
        super().__init__(
            Substituting(self.train_set, limit=limit),
            RankShare(EpochSampler(len(train), seed=spec.seed, repeats=recipe.augment.repeats, labels=labels)),
            data=train,
            batch_size=spec.batch_size,
            workers=workers_of(spec.workers, embedded=recipe.data.path == "digits"),
            seed=spec.seed,
            prefetch=recipe.data.prefetch,
            pin_memory=pin_memory,
        )
        self.eval_batch_size, self.accumulate = spec.eval_batch_size or self.batch_size, spec.accumulate
        self.devices = spec.devices
        self.val_set = EvaluationSet(val, preprocess)

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last one may have fewer passes to accumulate."""
        return -(-(len(self.train_set) // self.devices // self.batch_size) // self.accumulate)

    @property
    def images_per_epoch(self) -> int:
        """Training images of an epoch, over all devices."""
        batch = self.batch_size * self.devices
        return len(self.train_set) // self.devices // self.batch_size * batch

    @property
    def val_seen(self) -> tuple[int, int]:
        """Images that a validation looks at, and all there are."""
        return len(self.val_set), len(self.val_set)

    def probe(self) -> None:
        """Read the first image of each part: a wrong transform or an unreadable file shows here."""
        self.images[0, 0], self.val_set[0]

    def val_dataloader(self) -> Any:
        # every image once: without the copies of DistributedSampler, which would count twice
        mine = range(self.sampler.rank, len(self.val_set), self.sampler.ranks)
        return DataLoader(self.val_set, sampler=mine, batch_size=self.eval_batch_size, **self.reading())
