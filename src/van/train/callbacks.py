"""What a run writes down and remembers besides its weights: random state, the table of epochs, best and last."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from ..data.seeding import rng_state, set_rng_state
from ..recipes import TrainerSpec
from ..recipes.segmentation_spec import PixelTrainerSpec

BEST, LAST = "best.ckpt", "last.ckpt"
TABLE = "metrics.csv"
COLUMNS: tuple[str, ...] = (
    "epoch",
    "step",
    "lr",
    "train/loss",
    "val/loss",
    "val/top1",
    "val/top5",
    "seconds",
    "images_per_s",
)


class RngState(Callback):
    """Saves the state of all random generators with a checkpoint and puts it back before the next batch."""

    def __init__(self) -> None:
        self.pending: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return rng_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pending = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.pending is not None:
            set_rng_state(self.pending)
            self.pending = None


class EpochTable(Callback):
    """metrics.csv: one row per epoch, kept across resumes; `rows` holds the same numbers."""

    def __init__(self, folder: Path, *, images_per_epoch: int, columns: Sequence[str] = COLUMNS) -> None:
        self.path, self.images_per_epoch, self.columns = folder / TABLE, images_per_epoch, tuple(columns)
        self.rows: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained_s = time.perf_counter() - self.started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "seconds": round(time.perf_counter() - self.started, 3),
            "images_per_s": round(self.images_per_epoch / max(self.trained_s, 1e-9), 1),
        }
        self.rows.append({**{name: metrics[name] for name in self.columns if name in metrics}, **row})
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(self.path)


def monitor_mode(monitor: str) -> str:
    """ "min" for losses, "max" for accuracies."""
    return "min" if monitor.endswith("loss") else "max"


def keepers(folder: Path, spec: TrainerSpec | PixelTrainerSpec) -> list[Callback]:
    """Early stopping if asked for, then best.ckpt, then last.ckpt (which so knows about the best)."""
    mode = monitor_mode(spec.monitor)
    callbacks: list[Callback] = []
    if spec.early_stopping is not None:
        callbacks.append(
            EarlyStopping(spec.monitor, mode=mode, patience=spec.early_stopping, check_on_train_epoch_end=True)
        )
    callbacks.append(_checkpoint(folder, BEST, monitor=spec.monitor, mode=mode))
    callbacks.append(_checkpoint(folder, LAST))
    return callbacks


def _checkpoint(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder,
        Path(name).stem,
        save_top_k=1,
        save_weights_only=False,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        auto_insert_metric_name=False,
        **options,
    )
