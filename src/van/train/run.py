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
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from ..data.seeding import seeded
from ..errors import DataError, VanError
from ..recipes import AnyRecipe, SegmentationRecipe
from .callbacks import COLUMNS, EpochTable, RngState, keepers
from .checkpoint_io import AtomicCheckpointIO
from .export import export
from .folder import open_folder, write_environment, write_recipe
from .prepare import Job, prepare
from .progress import Sight
from .ranks import is_first, shared_folder
from .segmentation import SegmentationJob, export_segmenter, prepare_segmentation

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def run(recipe: AnyRecipe) -> Path:
    """Train by a recipe and return the run's folder (see train/folder.py for what is in it).

    Deterministic for a seed on one kind of machine; global random state, threads and warnings are left as found.
    Raises DataError, ConfigError, CheckpointError before training begins for whatever can be known then, VanError when
    the loss stops being finite, KeyboardInterrupt when interrupted (best.ckpt and last.ckpt stay, to resume from).
    """
    with seeded(recipe.trainer.seed, cuda=True), _threads(recipe.trainer.threads), _quiet(), _determinism_restored():
        job = prepare_segmentation(recipe) if isinstance(recipe, SegmentationRecipe) else prepare(recipe)
        folder = shared_folder(lambda: open_folder(recipe), several=_count(job) > 1)
        if is_first():
            write_recipe(folder, job.recipe)
            write_environment(folder, job.device)
        table = _table(job, folder)
        trainer = _trainer(job, folder, table)
        started = time.perf_counter()
        _fit(trainer, job)
        seconds = time.perf_counter() - started
        if is_first():
            _export(job, folder, table, seconds)
    return folder


def _table(job: Job | SegmentationJob, folder: Path) -> EpochTable:
    if isinstance(job, SegmentationJob):
        figures = ("val/mIoU", "val/aAcc", "val/mAcc")
        columns = [*(name for name in COLUMNS if not name.startswith("val/")), *figures]
        return EpochTable(folder, images_per_epoch=job.data.images_per_epoch, columns=columns)
    return EpochTable(folder, images_per_epoch=len(job.data.train_set) // job.data.batch_size * job.data.batch_size)


def _export(job: Job | SegmentationJob, folder: Path, table: EpochTable, seconds: float) -> None:
    if isinstance(job, SegmentationJob):
        export_segmenter(job, folder, table, seconds=seconds)
    else:
        export(job, folder, table, seconds=seconds)


def _trainer(job: Job | SegmentationJob, folder: Path, table: EpochTable) -> Trainer:
    spec = job.recipe.trainer
    kind, _, index = job.device.partition(":")
    return Trainer(
        accelerator=kind,
        **_devices(job, kind, int(index or 0)),
        precision=_PRECISION[spec.precision],  # type: ignore[arg-type]
        max_epochs=job.recipe.total_epochs,
        accumulate_grad_batches=spec.accumulate,
        gradient_clip_val=job.recipe.optim.clip_norm,
        callbacks=[RngState(), table, Sight(table, style=spec.progress), *keepers(folder, spec)],
        logger=TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False),
        log_every_n_steps=spec.log_every_steps,
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=spec.deterministic or None,
    )


def _count(job: Job | SegmentationJob) -> int:
    return job.recipe.trainer.devices if isinstance(job, SegmentationJob) else 1


def _devices(job: Job | SegmentationJob, kind: str, index: int) -> dict[str, Any]:
    """Which devices, and how they train together; only segmentation recipes ask for several."""
    count = _count(job)
    if isinstance(job, SegmentationJob) and count > 1:
        together = {"strategy": "ddp", "sync_batchnorm": job.recipe.trainer.sync_bn}
        return {"devices": count, **together}
    return {"devices": [index] if kind == "cuda" else 1}


def _fit(trainer: Trainer, job: Job | SegmentationJob) -> None:
    try:
        trainer.fit(job.module, datamodule=job.data, ckpt_path=job.resume, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    except DataError as error:  # from a data worker it arrives wrapped in a traceback
        last = str(error).strip().splitlines()[-1]
        raise DataError(last.removeprefix("van.errors.DataError: ")) from error
    except torch.OutOfMemoryError as error:
        raise VanError(
            f"out of memory on {job.device} at trainer.batch_size {job.data.batch_size}; use a smaller one with more "
            "trainer.accumulate, model.grad_checkpointing true, or trainer.precision bf16"
        ) from error


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
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
