"""What a run writes down and remembers besides its weights: random state, the table of epochs, best and last."""

from __future__ import annotations

import csv
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from ..data.seeding import rng_state, set_rng_state
from ..errors import VanNotice
from ..files import atomic_output
from ..recipes import TrainerSpec
from ..recipes.segmentation_spec import SegmentationTrainerSpec
from .checkpoint_io import BEST
from .distributed import Talk
from .folder import TABLE
from .preemption import LastCheckpoint, Preemption

COLUMNS: tuple[str, ...] = (
    "epoch",
    "step",
    "lr",
    "train/loss",
    "val/loss",
    "val/top1",
    "val/top5",
    "val/macro_f1",
    "val/macro_precision",
    "val/macro_recall",
    "seconds",
    "images_per_s",
)


def counted_from_one(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Rows of metrics.csv whose epochs count from 1; version 0.1 counted them from 0."""
    if rows and float(rows[0]["epoch"]) == 0:
        return [{**row, "epoch": row["epoch"] + 1} for row in rows]
    return rows


def loss_of(trainer: Trainer, outputs: Any) -> Tensor:
    """The loss of a training step's images; Lightning hands it to callbacks divided by `trainer.accumulate`."""
    return outputs["loss"].detach() * trainer.accumulate_grad_batches


class ProcessState(Callback):
    """Keeps with a checkpoint what each process has of its own: random generators, buffers, the sum of its losses.

    Buffers (BatchNorm's statistics) are put back when training starts, after the strategy has made them alike;
    random generators before the next batch.
    """

    def __init__(self) -> None:
        self.rank, self.talk = 0, Talk(1)
        self.module: LightningModule | None = None
        self.losses, self.batches = torch.zeros(()), 0  # of this epoch
        self.buffers: dict[str, Any] = {}
        self.random: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.rank, self.talk, self.module = trainer.global_rank, Talk(trainer.world_size), pl_module

    def state_dict(self) -> dict[str, Any]:
        assert self.module is not None
        several = self.talk.ranks > 1  # the buffers of a single process are in the weights
        buffers = {name: buffer.cpu() for name, buffer in self.module.named_buffers()} if several else {}
        own = {"random": rng_state(), "buffers": buffers, "losses": self.losses.cpu(), "batches": self.batches}
        return {"processes": self.talk.gather(own)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = state_dict["processes"][self.rank]
        self.random, self.buffers = own["random"], own["buffers"]
        self.losses, self.batches = own["losses"], own["batches"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, buffer in pl_module.named_buffers():
            if name in self.buffers:
                buffer.copy_(self.buffers[name])
        self.buffers = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.random is not None:
            set_rng_state(self.random)
            self.random = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = loss_of(trainer, outputs).float()
        self.losses, self.batches = self.losses.to(loss.device) + loss, self.batches + 1

    def epoch_loss(self) -> float:
        """Mean over the epoch's batches of all processes; begins the next epoch."""
        every = self.talk.gather((float(self.losses), self.batches))
        self.losses, self.batches = torch.zeros(()), 0
        return sum(losses for losses, _ in every) / max(sum(batches for _, batches in every), 1)


class EpochTable(Callback):
    """metrics.csv: one row per epoch, counted from 1, kept across resumes; `rows` holds the same numbers.

    state: has the loss over an epoch that was interrupted in the middle, which Lightning's own mean has not.
    """

    def __init__(
        self, folder: Path, state: ProcessState, *, images_per_epoch: int, columns: Sequence[str] = COLUMNS
    ) -> None:
        self.path, self.images_per_epoch, self.columns = folder / TABLE, images_per_epoch, tuple(columns)
        self.state = state
        self.rows: list[dict[str, float]] = []
        self.started, self.trained_s = time.perf_counter(), 0.0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = counted_from_one([dict(row) for row in state_dict["rows"]])
        self.started = time.perf_counter() - state_dict["spent_s"]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "spent_s": time.perf_counter() - self.started}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        _log_epoch(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _log_epoch(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained_s = time.perf_counter() - self.started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["train/loss"] = self.state.epoch_loss()
        pl_module.log("train/loss_epoch", metrics["train/loss"], rank_zero_only=True)
        _log_epoch(trainer, pl_module)
        row: dict[str, float] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(time.perf_counter() - self.started, 3),
            "images_per_s": round(self.images_per_epoch / max(self.trained_s, 1e-9), 1),
        }
        self.rows.append({**{name: metrics[name] for name in self.columns if name in metrics}, **row})
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        try:
            with atomic_output(self.path, error=None) as temporary, temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.columns, restval="")
                writer.writeheader()
                writer.writerows(self.rows)
        except OSError as error:
            warnings.warn(
                f"cannot write {self.path}: {error.strerror}; its rows are in the checkpoints too",
                VanNotice,
                stacklevel=2,
            )


def _log_epoch(trainer: Trainer, pl_module: LightningModule) -> None:
    """Trackers, and the names of files in history/, count epochs from 1 too; Lightning's own count is from 0."""
    pl_module.log("epoch", float(trainer.current_epoch + 1), rank_zero_only=True)


def monitor_mode(monitor: str) -> str:
    """ "min" for losses, "max" for accuracies."""
    return "min" if monitor.endswith("loss") else "max"


def keepers(folder: Path, spec: TrainerSpec | SegmentationTrainerSpec, preemption: Preemption) -> list[Callback]:
    """Early stopping if asked for, then best.ckpt, then last.ckpt (which so knows about both)."""
    mode = monitor_mode(spec.monitor)
    callbacks: list[Callback] = []
    if spec.early_stopping is not None:
        patience: dict[str, Any] = {"patience": spec.early_stopping, "check_finite": False}  # NaN: not better, no end
        callbacks.append(EarlyStopping(spec.monitor, mode=mode, check_on_train_epoch_end=True, **patience))
    best = ModelCheckpoint(
        folder,
        Path(BEST).stem,
        monitor=spec.monitor,
        mode=mode,
        save_top_k=1,
        save_weights_only=False,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    last = LastCheckpoint(folder, preemption, every_steps=spec.checkpoint_every_steps, every_s=spec.checkpoint_every_s)
    return [*callbacks, best, last]
