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
from ..recipes import AnyRecipe, SegmentationRecipe
from ..recipes.segmentation_spec import MONITORS
from .batch_norm import BatchNormPolicy, sync_on_cpu
from .callbacks import COLUMNS, EpochTable, ProcessState, keepers
from .checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO
from .datamodule import ClassificationDataModule
from .distributed import is_first, is_lost_contact, is_lost_worker, place, shared_folder
from .export import export, provenance_of
from .folder import RECIPE, has_finished, known_folder, open_folder, write_environment, write_recipe
from .guards import ImageWatch, LossWatch
from .image_check import check_run
from .lock import RunLock
from .preemption import Preemption
from .prepare import Job, prepare
from .progress import Sight
from .record import NetworkRecord
from .segmentation import SegmentationJob, export_segmenter, prepare_segmentation, provenance_of_segmenter
from .tracking import history, loggers

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def run(recipe: AnyRecipe) -> Path:
    """Train by a recipe and return the run's folder (see train/folder.py for what is in it).

    Deterministic for a seed on one kind of machine; global random state, threads and warnings are left as found.
    Raises DataError, ConfigError, CheckpointError before training begins for whatever can be known then; VanError when
    the loss stops being finite, CheckpointError when the disk is full, LostProcessError when another process of the
    run or one that reads its images is gone, PreemptedError after SIGTERM or SIGUSR1, KeyboardInterrupt when
    interrupted, with what to do next: best.ckpt and last.ckpt stay, to resume from.
    """
    spec, here = recipe.trainer, place()
    if spec.resume == "auto" and has_finished(Path(spec.out or "")):
        warnings.warn(f"the run in {spec.out} has finished; nothing to do", VanNotice, stacklevel=2)
        return Path(spec.out or "")
    chance = seeded(spec.seed, *([here.rank] if here.rank else []), cuda=True)  # drop path differs between processes
    with (
        RunLock() as lock,
        _what_stays(recipe, lock),
        Preemption() as preemption,
        chance,
        _threads(spec.threads),
        _quiet(),
        _determinism_restored(),
    ):
        there = known_folder(spec)
        if is_first() and there is not None and (there / RECIPE).is_file():
            lock.take(there)  # before the data are looked at, which may take long
        job = _prepared(recipe)
        folder = shared_folder(lambda: open_folder(job.recipe, lock), several=job.recipe.trainer.devices > 1)
        if is_first():
            _begin(job, folder, preemption)
        state = ProcessState()
        table = _table(job, folder, state)
        trainer = _trainer(job, folder, state, table, preemption)
        started = time.perf_counter()
        _fit(trainer, job, folder)
        seconds = time.perf_counter() - started
        if is_first():
            _export(job, folder, table, seconds)
    return folder


def _begin(job: Job | SegmentationJob, folder: Path, preemption: Preemption) -> None:
    """What the first process does before training: look at the images, write down what is about to happen."""
    if isinstance(job, Job) and isinstance(job.data, ClassificationDataModule):
        check_run(job.recipe, job.data.images, job.data.val_set.data, folder, preemption)
    write_recipe(folder, job.recipe)
    write_environment(folder, job.device)
    if job.resume == str(folder / PREVIOUS):
        (folder / LAST).unlink(missing_ok=True)  # damaged: it must not become the previous one


@contextmanager
def _what_stays(recipe: AnyRecipe, lock: RunLock) -> Iterator[None]:
    """Ctrl-C at any moment ends with a word on what there is to go on from."""
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


def _prepared(recipe: AnyRecipe) -> Job | SegmentationJob:
    """Every process prepares; the first one tells what was decided."""
    with warnings.catch_warnings():
        if not is_first():
            warnings.simplefilter("ignore", VanNotice)
        return prepare_segmentation(recipe) if isinstance(recipe, SegmentationRecipe) else prepare(recipe)


def _table(job: Job | SegmentationJob, folder: Path, state: ProcessState) -> EpochTable:
    columns = [*COLUMNS]
    if isinstance(job, SegmentationJob):
        columns = [*(name for name in COLUMNS if not name.startswith("val/")), *MONITORS]
    return EpochTable(folder, state, images_per_epoch=job.data.images_per_epoch, columns=columns)


def _export(job: Job | SegmentationJob, folder: Path, table: EpochTable, seconds: float) -> None:
    if isinstance(job, SegmentationJob):
        export_segmenter(job, folder, table, seconds=seconds)
    else:
        export(job, folder, table, seconds=seconds)


def _trainer(
    job: Job | SegmentationJob, folder: Path, state: ProcessState, table: EpochTable, preemption: Preemption
) -> Trainer:
    spec = job.recipe.trainer
    kind, _, index = job.device.partition(":")
    kept = [*history(folder, spec), *keepers(folder, spec, preemption)]
    return Trainer(
        accelerator=kind,
        **_processes(job, kind, int(index or 0), folder),
        precision=_PRECISION[spec.precision],  # type: ignore[arg-type]
        max_epochs=job.recipe.total_epochs,
        accumulate_grad_batches=spec.accumulate,
        gradient_clip_val=job.recipe.optim.clip_norm,
        callbacks=[_record(job), *_watches(job), state, table, Sight(table, style=spec.progress), *kept],
        logger=loggers(folder, job.recipe) if is_first() else False,
        log_every_n_steps=spec.log_every_steps,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=spec.deterministic or None,
    )


def _record(job: Job | SegmentationJob) -> NetworkRecord:
    known = provenance_of_segmenter(job) if isinstance(job, SegmentationJob) else provenance_of(job)
    return NetworkRecord(job.preprocess, known)


def _watches(job: Job | SegmentationJob) -> list[Callback]:
    spec = job.recipe.trainer
    watches = [LossWatch(), BatchNormPolicy(spec.batch_norm, images=spec.recalibrate_images)]
    return watches if isinstance(job, SegmentationJob) else [ImageWatch(job.data.images), *watches]


def _processes(job: Job | SegmentationJob, kind: str, index: int, folder: Path | None = None) -> dict[str, Any]:
    """Which devices train together, and how; a launcher's processes are all used."""
    spec, here = job.recipe.trainer, place()
    plugins: list[Any] = [AtomicCheckpointIO(folder)]
    if here.launcher == "slurm":
        plugins.append(SLURMEnvironment(auto_requeue=False))  # the job's script decides by the exit code
    if spec.devices == 1:
        return {"devices": [index] if kind == "cuda" and not here.launcher else 1, "plugins": plugins}
    sync = spec.batch_norm == "sync"
    if sync and kind == "cpu":
        sync_on_cpu(job.module.model)
    # Statistics of BatchNorm are this package's business; DDP would make them the first process's at every step.
    strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    together = {"strategy": strategy, "sync_batchnorm": sync and kind != "cpu"}
    return {"devices": spec.devices // here.nodes, "num_nodes": here.nodes, "plugins": plugins, **together}


def _fit(trainer: Trainer, job: Job | SegmentationJob, folder: Path) -> None:
    try:
        with _first_error():
            trainer.fit(job.module, datamodule=job.data, ckpt_path=job.resume, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    except PreemptedError:
        if not is_first() and place().launcher is None:
            raise SystemExit(0) from None  # the process that started this one tells
        raise
    except DataError as error:  # from a data worker it arrives wrapped in a traceback
        last = str(error).strip().splitlines()[-1]
        raise DataError(last.removeprefix("van.errors.DataError: ")) from error
    except torch.OutOfMemoryError as error:
        raise VanError(
            f"out of memory on {job.device} at trainer.batch_size {job.data.batch_size}; use a smaller one with more "
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
