"""Everything that can be wrong with a run, found before it begins."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..data import ClassificationData
from ..data.fingerprint import Fingerprint, differences, some
from ..data.readers import StreamData
from ..errors import ConfigError, DataError, VanNotice
from ..images.preprocess import Preprocess
from ..nn import Classifier
from ..recipes import AnyRecipe, Recipe, SegmentationRecipe, TrackSpec, recipe_of
from ..tasks.classification.losses import class_weights
from .checkpoint_io import read_last
from .datamodule import ClassificationDataModule
from .distributed import place
from .folder import resume_source
from .module import ClassificationModule
from .network import build_network, laid_out, resolve_preprocess
from .optimizer import build_optimizer
from .sources import Images, open_images
from .streams import StreamDataModule

# What a resumed run may change without becoming another run.
_FREE = (
    "resume", "out", "workers", "device", "threads", "progress", "log_every_steps", "eval_batch_size",
    "checkpoint_every_steps", "checkpoint_every_s", "max_unreadable", "resume_with_changed_data",
)  # fmt: skip
_FREE_DATA = (
    "data.path", "data.index", "data.prefetch", "data.check",
    *(f"track.{item.name}" for item in fields(TrackSpec)),
)  # fmt: skip
FREE_ON_RESUME = frozenset((*_FREE_DATA, *(f"trainer.{name}" for name in _FREE)))

Fitted = TypeVar("Fitted", Recipe, SegmentationRecipe)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that is ready to start; resume: the checkpoint to continue from."""

    recipe: Recipe
    network: Classifier
    preprocess: Preprocess
    module: ClassificationModule
    data: ClassificationDataModule | StreamDataModule
    device: str
    resume: str | None


def prepare(recipe: Recipe) -> Job:
    """Data, network, optimizer and resume file of a recipe, each checked; nothing is written.

    Raises DataError, ConfigError, CheckpointError.
    """
    device = pick_device(recipe.trainer.device, recipe.trainer.precision)
    recipe = fit_devices(recipe, device)
    train, val = open_images(recipe)
    recipe = _fit_warmup(_fit_batch(recipe, len(train)))
    _check_share(recipe, len(val))
    contents = {"train": train.fingerprint(), "val": val.fingerprint()}
    resume = check_resume(recipe, train.classes, contents)
    network = build_network(recipe.model, train.classes, seed=recipe.trainer.seed)
    preprocess = resolve_preprocess(network, recipe.data)
    network.preprocess = preprocess
    _check_map(recipe, network, preprocess)
    data = _data_module(train, val, recipe=recipe, preprocess=preprocess, pin_memory=device.startswith("cuda"))
    data.probe()
    network = laid_out(network, device, channels_last=recipe.trainer.channels_last)
    module = ClassificationModule(
        network,
        recipe,
        classes=train.classes,
        updates_per_epoch=data.updates_per_epoch,
        weights=_class_weights(recipe, train),
    )
    module.contents = contents
    build_optimizer(network, recipe)  # raises for options it cannot have
    tell_lr(recipe)
    if recipe.trainer.compile:
        network.compile()
    return Job(
        recipe=recipe,
        network=network,
        preprocess=preprocess,
        module=module,
        data=data,
        device=device,
        resume=resume,
    )


def pick_device(name: str, precision: str) -> str:
    """The device a recipe means, checked; raises ConfigError when it is not there or cannot do the precision."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not (index.isascii() and index.isdigit()))):
        raise ConfigError(f"trainer.device is {name!r}; expected auto, cpu, cuda, cuda:N or mps")
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= available:
        raise ConfigError(
            f"trainer.device is {name!r}, but there are {available} {kind} device(s) here; use auto or cpu"
        )
    if precision == "fp16" and kind == "cpu":
        raise ConfigError("trainer.precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    return name


def _data_module(train: Images, val: Images, **options: Any) -> ClassificationDataModule | StreamDataModule:
    if isinstance(train, StreamData) and isinstance(val, StreamData):
        return StreamDataModule(train, val, **options)
    assert isinstance(train, ClassificationData)
    assert isinstance(val, ClassificationData)
    return ClassificationDataModule(train, val, **options)


def fit_devices(recipe: Fitted, device: str) -> Fitted:
    """The recipe on the devices there are: accumulation changes, and the global batch stays where that is possible.

    A launcher's processes are all used; without one, a recipe for more devices than there are takes those.
    Raises ConfigError when fewer devices cannot share the batch.
    """
    spec, here = recipe.trainer, place()
    there = here.ranks if here.launcher else min(spec.devices, _devices_here(spec, device))
    if there == spec.devices:
        return recipe
    passes = spec.accumulate * spec.devices
    if not passes % there:
        accumulate, batch = passes // there, f"the batch of {recipe.global_batch} images is kept"
    elif here.launcher:
        accumulate = spec.accumulate
        batch = f"the batch of {recipe.global_batch} images becomes {there * spec.batch_size * accumulate}"
    else:
        raise ConfigError(
            f"trainer.devices is {spec.devices}, there are {there}, which cannot share {passes} passes evenly; set "
            "trainer.devices, batch_size and accumulate"
        )
    warnings.warn(
        f"trainer.devices {spec.devices} becomes {there} and trainer.accumulate {accumulate}: there are {there} "
        f"here; {batch}, BatchNorm sees {_seen_together(spec, there)} at a time",
        VanNotice,
        stacklevel=4,
    )
    return recipe.with_options(**{"trainer.devices": there, "trainer.accumulate": accumulate})


def _devices_here(spec: Any, device: str) -> int:
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return 1 if index else torch.cuda.device_count()
    # processes on one CPU only get in each other's way, unless that is asked for
    return spec.devices if kind == "cpu" and spec.device == "cpu" else 1


def _seen_together(spec: Any, devices: int) -> int:
    return spec.batch_size * (devices if spec.batch_norm == "sync" else 1)


def _check_share(recipe: Recipe, val_images: int) -> None:
    devices = recipe.trainer.devices
    if val_images < devices:
        raise DataError(f"{recipe.data.path} has {val_images} validation image(s) for {devices} devices; use fewer")


def _fit_batch(recipe: Recipe, images: int) -> Recipe:
    """A smaller batch for a data set that does not fill one."""
    size, devices = recipe.trainer.batch_size, recipe.trainer.devices
    images //= devices
    if images >= size:
        return recipe
    if images < 1:
        raise DataError(f"{recipe.data.path} has fewer training images than there are devices, {devices}; use fewer")
    fitting = images - images % 2 if recipe.augment.mixes else images
    warnings.warn(
        f"trainer.batch_size {size} becomes {fitting}: there are {images} training images per device",
        VanNotice,
        stacklevel=4,
    )
    return recipe.with_options(**{"trainer.batch_size": fitting})


def _fit_warmup(recipe: Recipe) -> Recipe:
    """A shorter warm-up for a run that would otherwise be nothing else."""
    before, epochs = recipe.schedule.warmup_epochs, recipe.trainer.epochs
    if not before or before < epochs:
        return recipe
    after = epochs // 2 if recipe.schedule.per == "epoch" else epochs / 2
    warnings.warn(
        f"schedule.warmup_epochs {before:g} becomes {after:g}: trainer.epochs is {epochs}", VanNotice, stacklevel=4
    )
    return recipe.with_options(**{"schedule.warmup_epochs": after})


def _class_weights(recipe: Recipe, train: Images) -> Tensor | None:
    if recipe.loss.class_weights == "balanced" and isinstance(train, StreamData):
        raise ConfigError(
            f"loss.class_weights balanced counts the labels before training, and data.reader {recipe.data.reader} has "
            "them in a stream; give the numbers"
        )
    return class_weights(recipe.loss, () if isinstance(train, StreamData) else train.labels, train.classes)


def _check_map(recipe: Recipe, network: Classifier, preprocess: Preprocess) -> None:
    """BatchNorm cannot train on one value per channel."""
    total = network.config.reductions[-1]
    positions = math.ceil(preprocess.size[0] / total) * math.ceil(preprocess.size[1] / total)
    if recipe.trainer.batch_size * positions < 2:
        raise ConfigError(
            f"trainer.batch_size is 1 and images of {preprocess.size} leave one position in the last stage, too "
            "little for BatchNorm; use a batch of at least 2"
        )


def tell_lr(recipe: AnyRecipe) -> None:
    """Say so when the learning rate is scaled to another batch."""
    spec, batch = recipe.optim, recipe.global_batch
    if spec.lr_batch is not None and spec.lr_batch != batch:
        devices = f" x {recipe.trainer.devices} devices" if recipe.trainer.devices > 1 else ""
        warnings.warn(
            f"learning rate {spec.lr:g} for a batch of {spec.lr_batch} becomes {spec.scaled_lr(batch):g} for "
            f"{batch} ({recipe.trainer.batch_size} images x {recipe.trainer.accumulate} accumulated{devices}): linear "
            "scaling; optim.lr_batch null switches it off",
            VanNotice,
            stacklevel=4,
        )


def check_resume(recipe: AnyRecipe, classes: tuple[str, ...], contents: Mapping[str, Fingerprint]) -> str | None:
    """The file to resume from, once it is one and belongs to this recipe, these classes and these images."""
    source = resume_source(recipe.trainer)
    if source is None:
        return None
    path, state = read_last(source)
    if tuple(state["van_classes"]) != classes:
        known = {*state["van_classes"]}
        gone, new = sorted(known - {*classes}), sorted({*classes} - known)
        parts = [f"{word} {', '.join(names[:5])}" for word, names in (("without", gone), ("new:", new)) if names]
        raise ConfigError(
            f"{path} was trained on other classes than those of {recipe.data.path} "
            f"({'; '.join(parts) or 'other order'}); resume with its data"
        )
    before = _flat(recipe_of(state["van_recipe"]).to_dict())
    now = _flat(recipe.to_dict())
    changed = [
        f"{name} ({before[name]!r} before, {value!r} now)"
        for name, value in now.items()
        if value != before[name] and name not in FREE_ON_RESUME
    ]
    if changed:
        raise ConfigError(
            f"{path} belongs to a run with other settings: {', '.join(changed)}; resume with the same, or start a new "
            "run from its weights"
        )
    _check_contents(path, state.get("van_data") or {}, contents, going_on=recipe.trainer.resume_with_changed_data)
    return str(path)


def _check_contents(
    path: Path, before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint], *, going_on: bool
) -> None:
    """Images are drawn by their number, so a run on other files is not the run that was interrupted."""
    found = differences(before, now)
    if found and not going_on:
        raise DataError(
            f"the data set has changed since {path} was written ({some(found)}), so the run cannot be continued "
            "exactly; bring the files back, or go on all the same with trainer.resume_with_changed_data true"
        )
    if found:
        warnings.warn(
            f"the data set has changed since {path} was written ({some(found)}): the run goes on with what is "
            "there now",
            VanNotice,
            stacklevel=5,
        )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted names, the recipe's own name left out."""
    return {
        f"{section}.{key}": value
        for section, group in values.items()
        if isinstance(group, dict)
        for key, value in group.items()
    }
