"""The loaders of a run whose images come in the order of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from ..data.streams import StreamData, StreamSet
from ..nn import Model
from ..tasks.training import Training
from ..tasks.validation import Validator
from .batch_norm import images_of
from .guards import Substituting
from .loading import Reading, validation_loader


class StreamDataModule(LightningDataModule):
    """Training and validation streams of a recipe, of which every process takes its share.

    An epoch is as many images as the stream has, rounded up to whole batches in every worker, or as many as the recipe
    counts between two validations. Validation uses every image once.
    """

    def __init__(
        self,
        training: Training[Any],
        train: StreamData,
        val: StreamData,
        *,
        network: Model,
        validator: Validator,
        pin_memory: bool,
    ) -> None:
        super().__init__()
        recipe, spec = training.recipe, training.recipe.trainer
        self.batch_size, self.eval_batch_size = spec.batch_size, spec.eval_batch_size or spec.batch_size
        self.collate, self.validator = training.collate, validator
        self.reading = Reading(recipe, pin_memory=pin_memory)
        train.check_workers(max(1, self.reading.workers) * spec.devices)
        share: dict[str, Any] = {"seed": spec.seed, "workers": self.reading.workers}
        self.train_set = StreamSet(
            train,
            training.example(train, network),
            training=True,
            batch_size=self.batch_size,
            epoch_batches=recipe.batches_per_epoch,
            **share,
        )
        self.val_set = StreamSet(val, StreamExample(validator, val.source), training=False, batch_size=1, **share)
        self.val_counted = len(val), len(val)
        self.train_set.world_size = spec.devices
        self.images = Substituting(self.train_set, limit=0)
        self.updates_per_epoch = -(-(len(self.train_set) // self.batch_size) // spec.accumulate)
        self.images_per_epoch = len(self.train_set) * spec.devices

    def probe(self) -> None:
        """Read the first image of each part; raises DataError where there is none."""
        for images in (self.train_set, self.val_set):
            next(iter(images))
            images.data.reader.ds = None

    def setup(self, stage: str) -> None:
        trainer: Any = self.trainer
        for images in (self.train_set, self.val_set):
            images.rank, images.world_size = trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> Any:
        return StatefulDataLoader(
            self.train_set,
            batch_size=self.batch_size,
            drop_last=True,
            collate_fn=self.collate,
            **self.reading.options(),
        )

    def val_dataloader(self) -> Any:
        return validation_loader(self.val_set, self.validator, self.eval_batch_size, self.reading)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; streams have no sampler that Lightning could give it to."""
        self.train_set.set_epoch(epoch)

    def names_of(self, epoch: int, batch: int) -> list[str]:
        """Where a batch of this process was: images of a stream have no names."""
        return [f"number {batch} of the batches of {self.train_set.data.source} in epoch {epoch + 1}"]

    def calibration_batches(self, epoch: int, images: int) -> Iterator[Tensor]:
        """The first `images` of this process in an epoch, as the network gets them, for BatchNorm's statistics."""
        self.set_epoch(epoch)
        loader = DataLoader(self.train_set, batch_size=self.batch_size, collate_fn=self.collate)
        return islice((images_of(batch) for batch in loader), -(-images // self.batch_size))

    def state_dict(self) -> dict[str, Any]:
        # see SampledDataModule: the first iterator of a resumed run is made before anyone knows its epoch
        trainer: Any = self.trainer
        return {"epoch": trainer.fit_loop.epoch_progress.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.set_epoch(state_dict["epoch"])


class StreamExample:
    """An example of validation, which in a stream has a number for a name."""

    def __init__(self, validator: Validator, source: str) -> None:
        self.validator, self.source = validator, source

    def __call__(self, image: Image.Image, target: Any, key: tuple[int, ...]) -> Any:
        return self.validator.example(image, target, f"number {key[-1] + 1} of {self.source}")
