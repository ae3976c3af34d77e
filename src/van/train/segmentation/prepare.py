"""Everything that can be wrong with a segmentation run, found before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...configs.segmenter import SIZE_DIVISORS
from ...data.segmentation import SegmentationData, open_segmentation
from ...errors import ConfigError, DataError
from ...images.preprocess import IMAGENET, Preprocess
from ...nn.segmenter import Segmenter
from ...recipes import SegmentationRecipe
from ...recipes.segmentation_spec import SegmentationDataSpec
from ...tasks.segmentation.views import RECORDED, Inference
from ..network import laid_out
from ..prepare import check_resume, fit_devices, pick_device, tell_lr
from .datamodule import SegmentationDataModule
from .module import SegmentationModule
from .network import build_segmenter
from .optimizer import build_pixel_optimizer


@dataclass(frozen=True, kw_only=True)
class SegmentationJob:
    """A run that is ready to start; resume: the checkpoint to continue from."""

    recipe: SegmentationRecipe
    network: Segmenter
    preprocess: Preprocess
    inference: Inference
    module: SegmentationModule
    data: SegmentationDataModule
    device: str
    resume: str | None


def prepare_segmentation(recipe: SegmentationRecipe) -> SegmentationJob:
    """Data, network, optimizer and resume file of a recipe, each checked; nothing is written.

    Raises DataError, ConfigError, CheckpointError.
    """
    device = pick_device(recipe.trainer.device, recipe.trainer.precision)
    recipe = fit_devices(recipe, device)
    train, val = open_pictures(recipe.data)
    _check_weights(recipe, train)
    contents = {"train": train.fingerprint(), "val": val.fingerprint()}
    resume = check_resume(recipe, train.classes, contents)
    network = build_segmenter(recipe.model, train.classes, train.palette, seed=recipe.trainer.seed)
    preprocess = _preprocess(network, recipe)
    inference = inference_of(recipe.data, preprocess, method=network.config.method)
    data = SegmentationDataModule(
        train, val, recipe=recipe, preprocess=preprocess, pin_memory=device.startswith("cuda")
    )
    data.images[0, 0], val.load(0)  # an unreadable first image or mask shows here
    network = laid_out(network, device, channels_last=recipe.trainer.channels_last)
    module = SegmentationModule(
        network, recipe, inference=inference, classes=train.classes, ignore_index=train.ignore_index
    )
    module.contents = contents
    build_pixel_optimizer(network, recipe)  # raises for options it cannot have
    tell_lr(recipe)
    if recipe.trainer.compile:
        network.backbone.compile()  # the heads are called by methods of their own
    return SegmentationJob(
        recipe=recipe,
        network=network,
        preprocess=preprocess,
        inference=inference,
        module=module,
        data=data,
        device=device,
        resume=resume,
    )


def inference_of(data: SegmentationDataSpec, preprocess: Preprocess, *, method: str) -> Inference:
    """How validation, and later `van eval`, looks at a picture; what the recipe leaves open is the method's own."""
    divisor = SIZE_DIVISORS[method] if data.size_divisor is None else data.size_divisor
    views: dict[str, Any] = {name: getattr(data, name) for name in RECORDED} | {"size_divisor": divisor}
    return Inference(**views, mean=preprocess.mean, std=preprocess.std)


def open_pictures(spec: SegmentationDataSpec) -> tuple[SegmentationData, SegmentationData]:
    """Training and validation pictures of a recipe; raises ConfigError, DataError."""
    if spec.path is None:
        raise ConfigError("no data: give --data (data.path), a data set of label maps, its dataset.yaml, or 'scenes'")
    options: dict[str, Any] = {"val_fraction": spec.val_fraction}
    options |= {"seed": spec.split_seed} if spec.split_seed is not None else {}
    options |= {"scene_size": spec.scene_size} if spec.scene_size is not None else {}
    train, val = (open_segmentation(spec.path, split, **options) for split in ("train", "val"))
    if not len(train) or not len(val):
        raise DataError(
            f"{spec.path} has {len(train)} training and {len(val)} validation images; expected some of each"
        )
    return train, val


def _check_weights(recipe: SegmentationRecipe, data: SegmentationData) -> None:
    weights = recipe.loss.class_weights
    if weights is not None and len(weights) != len(data.classes):
        raise ConfigError(
            f"loss.class_weights has {len(weights)} entries, the data {len(data.classes)} classes; give one each "
            "(van doctor suggests some)"
        )


def _preprocess(network: Segmenter, recipe: SegmentationRecipe) -> Preprocess:
    own: Preprocess = network.preprocess or IMAGENET
    changes = {"mean": recipe.data.mean, "std": recipe.data.std, "size": recipe.augment.crop}
    preprocess = own.with_overrides(**changes)
    if preprocess.channels != network.config.backbone.in_chans:
        raise ConfigError(
            f"the network takes {network.config.backbone.in_chans} channel(s), data.mean and data.std have "
            f"{preprocess.channels} entries; give as many"
        )
    network.preprocess = preprocess
    return preprocess
