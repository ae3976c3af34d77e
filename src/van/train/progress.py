"""What a person sees of a run: a bar over all epochs with its ETA, and a line per epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .callbacks import EpochTable, loss_of

EVERY_STEPS = 10  # reading the loss waits for the device


class ProgressCallback(Callback):
    """A line per epoch on stderr and, on a terminal, a bar of all steps above which the lines scroll by.

    scores: what a line shows of the validation, "val/top1" -> "top1 {:.2f}%".
    style: "bar", "lines", "none", or "auto" (a bar on a terminal, else lines).
    """

    def __init__(
        self, table: EpochTable, scores: Mapping[str, str], *, style: str = "auto", console: Console | None = None
    ) -> None:
        self.table, self.scores = table, scores
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.style = ("bar" if self.console.is_terminal else "lines") if style == "auto" else style
        self.bar: Progress | None = None
        self.task: Any = None
        self.first_epoch, self.started = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.first_epoch, self.started = trainer.current_epoch, time.perf_counter()
        if self.style != "bar" or not trainer.is_global_zero:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[loss]}"))
        self.bar = Progress(*columns, *times, console=self.console, transient=True)
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 0)
        done = int(trainer.num_training_batches) * trainer.current_epoch
        self.task = self.bar.add_task("starting", total=total, completed=done, loss="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is None:
            return
        batches = int(trainer.num_training_batches)
        self.bar.update(
            self.task,
            completed=trainer.current_epoch * batches + batch_idx + 1,
            description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
        )
        if batch_idx % EVERY_STEPS == 0:
            self.bar.update(self.task, loss=f"loss {float(loss_of(trainer, outputs)):.3f}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.style != "none" and trainer.is_global_zero:
            self.console.print(self._line(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _line(self, trainer: Trainer) -> str:
        row, epochs = self.table.rows[-1], trainer.max_epochs or 0
        done = trainer.current_epoch + 1
        left = (time.perf_counter() - self.started) / (done - self.first_epoch) * (epochs - done)
        parts = [f"epoch {done:>{len(str(epochs))}}/{epochs}", f"loss {row['train/loss']:.4f}"]
        parts += [text.format(row[name]) for name, text in self.scores.items() if name in row]
        parts += [*_partly(trainer), f"lr {row['lr']:.2e}"]
        parts += [f"{row['images_per_s']:.0f} images/s", f"ETA {int(left) // 60}:{int(left) % 60:02d}"]
        return "  ".join(parts)


def _partly(trainer: Trainer) -> list[str]:
    """How many images the validation used, where these are not all."""
    used, there = getattr(getattr(trainer, "datamodule", None), "val_counted", (0, 0))
    return [f"on {used} of {there} images"] if used < there else []
