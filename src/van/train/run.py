"""`run(recipe)`: from a recipe to a folder with a trained model, on pytorch-lightning's Trainer."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy

from ..data.seeding import seeded
from ..errors import DataError, LostProcessError, PreemptedError, VanError, VanNotice
from ..recipes import BaseRecipe
from .batch_norm import BatchNormPolicy, sync_on_cpu
from .callbacks import EpochTable, ProcessState
from .checkpoint_callbacks import checkpoint_callbacks
from .checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO
from .distributed import is_first, is_lost_contact, is_lost_worker, process_info, shared_folder
from .export import export, provenance_of
from .folder import RECIPE, has_finished, known_folder, open_folder, write_environment, write_recipe
from .guards import LossGuard, UnreadableImageGuard
from .image_check import check_run
from .lock import RunLock
from .preemption import Preemption
from .prepare import PreparedRun, prepare
from .progress import ProgressCallback
from .record import NetworkRecord
from .tracking import loggers

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def run(recipe: BaseRecipe) -> Path:
    """Train by a recipe and return the run's folder (see train/folder.py for what is in it).

    Deterministic for a seed on one kind of machine; global random state, threads and warnings are left as found.
    Raises DataError, ConfigError, CheckpointError before training begins for whatever can be known then; VanError when
    the loss stops being finite, CheckpointError when the disk is full, LostProcessError when another process of the
    run or one that reads its images is gone, PreemptedError after SIGTERM or SIGUSR1, KeyboardInterrupt when
    interrupted, with what to do next: best.ckpt and last.ckpt stay, to resume from.
    """
    spec, here = recipe.trainer, process_info()
    if spec.resume == "auto" and has_finished(Path(spec.out or "")):
        warnings.warn(f"the run in {spec.out} has finished; nothing to do", VanNotice, stacklevel=2)
        return Path(spec.out or "")
    chance = seeded(spec.seed, *([here.rank] if here.rank else []), cuda=True)  # drop path differs between processes
    with (
        RunLock() as lock,
        _interruption_explained(recipe, lock),
        Preemption() as preemption,
        chance,
        _threads(spec.threads),
        _quiet(),
        _determinism_restored(),
    ):
        there = known_folder(spec)
        if is_first() and there is not None and (there / RECIPE).is_file():
            lock.take(there)  # before the data are looked at, which may take long
        prepared = _prepared(recipe)
        several = prepared.recipe.trainer.devices > 1
        folder = shared_folder(lambda: open_folder(prepared.recipe, lock), several=several)
        if is_first():
            _begin(prepared, folder, preemption)
        state = ProcessState()
        columns, images = prepared.training.columns, prepared.data.images_per_epoch
        table = EpochTable(folder, state, images_per_epoch=images, scores=columns)
        trainer = _trainer(prepared, folder, state, table, preemption)
        started = time.perf_counter()
        _fit(trainer, prepared, folder)
        if is_first():
            export(prepared, folder, table, seconds=time.perf_counter() - started)
    return folder


def _begin(run: PreparedRun, folder: Path, preemption: Preemption) -> None:
    """What the first process does before training: check the images, write down what is about to happen."""
    check_run(run.recipe, run.data.images, run.data.val_set.data, folder, preemption)
    write_recipe(folder, run.recipe)
    write_environment(folder, run.device)
    if run.resume == str(folder / PREVIOUS):
        (folder / LAST).unlink(missing_ok=True)  # damaged: it must not become the previous one


@contextmanager
def _interruption_explained(recipe: BaseRecipe, lock: RunLock) -> Iterator[None]:
    """Ctrl-C at any moment ends with a message on what there is to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        if not is_first():
            raise
        folder = lock.path.parent if lock.descriptor >= 0 else known_folder(recipe.trainer)
        if folder is not None and any((folder / name).exists() for name in (LAST, PREVIOUS)):
            raise KeyboardInterrupt(f"the last checkpoint is in {folder}: go on with trainer.resume {folder}") from None
        raise KeyboardInterrupt(
            "before the first checkpoint, so there is nothing to resume: the same command starts again"
        ) from None


def _prepared(recipe: BaseRecipe) -> PreparedRun:
    """Every process prepares; the first one gives the notices of what was decided."""
    with warnings.catch_warnings():
        if not is_first():
            warnings.simplefilter("ignore", VanNotice)
        return prepare(recipe)


def _trainer(run: PreparedRun, folder: Path, state: ProcessState, table: EpochTable, preemption: Preemption) -> Trainer:
    spec = run.recipe.trainer
    kind, _, index = run.device.partition(":")
    callbacks: list[Callback] = [
        NetworkRecord(run.preprocess, provenance_of(run)),
        UnreadableImageGuard(run.data.images),
        LossGuard(),
        BatchNormPolicy(spec.batch_norm, images=spec.recalibrate_images),
        state,
        table,
        ProgressCallback(table, run.training.shown, style=spec.progress),
        *checkpoint_callbacks(folder, spec, preemption),
    ]
    return Trainer(
        accelerator=kind,
        **_processes(run, kind, int(index or 0), folder),
        precision=_PRECISION[spec.precision],  # type: ignore[arg-type]
        max_epochs=run.recipe.total_epochs,
        accumulate_grad_batches=spec.accumulate,
        gradient_clip_val=run.recipe.optim.clip_norm,
        callbacks=callbacks,
        logger=loggers(folder, run.recipe) if is_first() else False,
        log_every_n_steps=spec.log_every_steps,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=spec.deterministic or None,
    )


def _processes(run: PreparedRun, kind: str, index: int, folder: Path | None = None) -> dict[str, Any]:
    """Which devices train together, and how; a launcher's processes are all used."""
    spec, here = run.recipe.trainer, process_info()
    plugins: list[Any] = [AtomicCheckpointIO(folder)]
    if here.launcher == "slurm":
        plugins.append(SLURMEnvironment(auto_requeue=False))  # the job's script decides by the exit code
    if spec.devices == 1:
        return {"devices": [index] if kind == "cuda" and not here.launcher else 1, "plugins": plugins}
    sync = spec.batch_norm == "sync"
    if sync and kind == "cpu":
        sync_on_cpu(run.module.model)
    # Statistics of BatchNorm are this package's business; DDP would make them the first process's at every step.
    strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    together = {"strategy": strategy, "sync_batchnorm": sync and kind != "cpu"}
    return {"devices": spec.devices // here.nodes, "num_nodes": here.nodes, "plugins": plugins, **together}


def _fit(trainer: Trainer, run: PreparedRun, folder: Path) -> None:
    try:
        with _first_error():
            trainer.fit(run.module, datamodule=run.data, ckpt_path=run.resume, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    except PreemptedError:
        if not is_first() and process_info().launcher is None:
            raise SystemExit(0) from None  # the process that started this one has the message
        raise
    except DataError as error:  # from a data worker it arrives wrapped in a traceback
        last = str(error).strip().splitlines()[-1]
        raise DataError(last.removeprefix("van.errors.DataError: ")) from error
    except torch.OutOfMemoryError as error:
        raise VanError(
            f"out of memory on {run.device} at trainer.batch_size {run.data.batch_size}; use a smaller one with more "
            "trainer.accumulate, model.grad_checkpointing true, or trainer.precision bf16"
        ) from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        if is_lost_worker(error):
            raise LostProcessError(
                f"a process that reads images ended ({reason}); where memory is short use fewer trainer.workers; go on "
                f"from the last checkpoint with trainer.resume {folder}"
            ) from error
        if trainer.world_size == 1 or not is_lost_contact(error):
            raise
        raise LostProcessError(
            f"process {trainer.global_rank} of {trainer.world_size} lost contact with another one at step "
            f"{trainer.global_step} ({reason}); go on from the last checkpoint with "
            f"trainer.resume {folder}, which torchrun --max-restarts does with trainer.resume auto"
        ) from error


@contextmanager
def _first_error() -> Iterator[None]:
    """Lightning's clearing up fails too where the first loader could not start, and hides why."""
    try:
        yield
    except RuntimeError as error:
        if "iter(combined_loader)" not in str(error) or error.__context__ is None:
            raise
        raise error.__context__ from None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _determinism_restored() -> Iterator[None]:
    """Lightning's `deterministic` sets a flag of the whole process."""
    before, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = cudnn


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and hints; our own notices and everybody else's warnings pass."""
    roots = ("pytorch_lightning", "lightning_fabric")
    names = [*roots, *(f"{root}.utilities.rank_zero" for root in roots)]
    before: dict[str, Any] = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in ("pytorch_lightning", "lightning_fabric", "torchdata", "torch.utils.data"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of depthwise weights: the same memory
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
