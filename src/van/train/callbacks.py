"""What a run writes down and remembers besides its weights: random state and the table of epochs."""

from __future__ import annotations

import csv
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ..data.seeding import rng_state, set_rng_state
from ..errors import VanNotice
from ..files import atomic_output
from .distributed import Communicator
from .folder import TABLE

# Of metrics.csv, around the scores of the task's validation.
BEFORE_SCORES, AFTER_SCORES = ("epoch", "step", "lr", "train/loss"), ("seconds", "images_per_s")


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
        self.rank, self.processes = 0, Communicator(1)
        self.module: LightningModule | None = None
        self.losses, self.batches = torch.zeros(()), 0  # of this epoch
        self.buffers: dict[str, Any] = {}
        self.random: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.rank, self.processes, self.module = trainer.global_rank, Communicator(trainer.world_size), pl_module

    def state_dict(self) -> dict[str, Any]:
        assert self.module is not None
        several = self.processes.world_size > 1  # the buffers of a single process are in the weights
        buffers = {name: buffer.cpu() for name, buffer in self.module.named_buffers()} if several else {}
        own = {"random": rng_state(), "buffers": buffers, "losses": self.losses.cpu(), "batches": self.batches}
        return {"processes": self.processes.gather(own)}

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
        every = self.processes.gather((float(self.losses), self.batches))
        self.losses, self.batches = torch.zeros(()), 0
        return sum(losses for losses, _ in every) / max(sum(batches for _, batches in every), 1)


class EpochTable(Callback):
    """metrics.csv: one row per epoch, counted from 1, kept across resumes; `rows` holds the same numbers.

    state: has the loss over an epoch that was interrupted in the middle, which Lightning's own mean has not.
    scores: of the task's validation, in order.
    """

    def __init__(self, folder: Path, state: ProcessState, *, images_per_epoch: int, scores: Sequence[str]) -> None:
        self.path, self.images_per_epoch = folder / TABLE, images_per_epoch
        self.columns = (*BEFORE_SCORES, *scores, *AFTER_SCORES)
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
