"""Everything that can be wrong with a run, found before it begins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..data.fingerprint import Fingerprint, differences, some
from ..data.streams import StreamData
from ..errors import ConfigError, DataError, VanNotice
from ..images.preprocess import Preprocess
from ..nn import Model
from ..recipes import BaseRecipe, TrackSpec, recipe_of
from ..tasks import task_named
from ..tasks.training import Training
from .checkpoint_io import read_last
from .distributed import process_info
from .folder import resume_source
from .loading import SampledDataModule
from .module import TrainingModule
from .network import laid_out
from .optimizer import build_optimizer
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

Fitted = TypeVar("Fitted", bound=BaseRecipe)


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that is ready to start; resume: the checkpoint to continue from."""

    recipe: BaseRecipe
    training: Training[Any]
    network: Model
    preprocess: Preprocess | None
    module: TrainingModule
    data: SampledDataModule | StreamDataModule
    device: str
    resume: str | None


def prepare(recipe: BaseRecipe) -> PreparedRun:
    """Data, network, optimizer and resume file of a recipe, each checked; nothing is written.

    Raises DataError, ConfigError, CheckpointError.
    """
    device = pick_device(recipe.trainer.device, recipe.trainer.precision)
    task = task_named(recipe.task)
    training = task.training(fit_devices(recipe, device))
    train, val = training.open_data()
    training = task.training(training.fitted(train, val))
    recipe = training.recipe
    _check_share(recipe, len(val))
    contents = {"train": train.fingerprint(), "val": val.fingerprint()}
    resume = check_resume(recipe, train.classes, contents)
    network = training.network(train)
    preprocess, validator = network.preprocess, training.validator(val, network)
    kind: Any = StreamDataModule if isinstance(train, StreamData) else SampledDataModule
    data: SampledDataModule | StreamDataModule = kind(
        training, train, val, network=network, validator=validator, pin_memory=device.startswith("cuda")
    )
    data.probe()
    network = laid_out(network, device, channels_last=recipe.trainer.channels_last)
    module = TrainingModule(
        network,
        training,
        objective=training.objective(train, network),
        validator=validator,
        classes=train.classes,
        updates_per_epoch=data.updates_per_epoch,
    )
    module.contents = contents
    build_optimizer(network, training)  # raises for options it cannot have
    announce_lr(recipe)
    if recipe.trainer.compile:
        training.compile(network)
    return PreparedRun(
        recipe=recipe,
        training=training,
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


def fit_devices(recipe: Fitted, device: str) -> Fitted:
    """The recipe on the devices there are: accumulation changes, and the global batch stays where that is possible.

    A launcher's processes are all used; without one, a recipe for more devices than there are takes those.
    Raises ConfigError when fewer devices cannot share the batch.
    """
    spec, here = recipe.trainer, process_info()
    there = here.world_size if here.launcher else min(spec.devices, _devices_here(spec, device))
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


def _check_share(recipe: BaseRecipe, val_images: int) -> None:
    devices = recipe.trainer.devices
    if val_images < devices:
        raise DataError(
            f"{recipe.data.path} has {val_images} validation image(s) for {devices} devices; set trainer.devices"
        )


def announce_lr(recipe: BaseRecipe) -> None:
    """A notice when the learning rate is scaled to another batch."""
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


def check_resume(recipe: BaseRecipe, classes: tuple[str, ...], contents: Mapping[str, Fingerprint]) -> str | None:
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
