"""The loaders of a segmentation run: seeded by (pass, index), resumable in the middle of a period."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from ...data.infinite_sampler import InfiniteSampler, PictureSet, spread
from ...data.joint import JointTrainingSet, JointTransform
from ...data.segmentation import SegmentationData
from ...images.preprocess import Preprocess
from ...recipes import SegmentationRecipe
from ..loading import SampledData, workers_of


class SegmentationDataModule(SampledData):
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
        spec, augment = recipe.trainer, recipe.augment
        self.images_per_epoch = spec.val_every * recipe.global_batch
        transform = JointTransform(
            preprocess=preprocess,
            crop=augment.crop,
            base=recipe.data.resize,
            scale=augment.scale,
            max_class_share=augment.max_class_share,
            flip=augment.flip,
            vflip=augment.vflip,
            photometric=augment.photometric,
            ignore_index=train.ignore_index,
        )
        super().__init__(
            JointTrainingSet(train, transform, seed=spec.seed),
            InfiniteSampler(len(train), period=self.images_per_epoch, seed=spec.seed),
            data=train,
            batch_size=spec.batch_size,
            workers=workers_of(spec.workers, embedded=recipe.data.path == "scenes"),
            seed=spec.seed,
            pin_memory=pin_memory,
        )
        self.val, self.val_images = val, recipe.data.val_images

    @property
    def val_seen(self) -> tuple[int, int]:
        """Images that a validation looks at, and all there are."""
        return len(spread(len(self.val), self.val_images)), len(self.val)

    def val_dataloader(self) -> Any:
        mine = spread(len(self.val), self.val_images)[self.sampler.rank :: self.sampler.ranks]
        return DataLoader(PictureSet(self.val, mine), batch_size=None, **{**self.reading(), "pin_memory": False})
