"""When a run is written down: best.ckpt and history/ after a validation, last.ckpt also between them and on request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint

from ..errors import PreemptedError
from ..recipes.trainer_spec import BaseTrainerSpec
from .checkpoint_io import BEST, LAST
from .distributed import Communicator
from .preemption import Preemption

HISTORY = "history"
# The end of an epoch, with its validation, is worth a checkpoint of its own when the last one is older than this.
FRESH_S = 10.0


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt after every epoch, every `every_steps` steps, every `every_s` seconds, and before a validation.

    SIGTERM and SIGUSR1 to any process write it after the next step and raise PreemptedError in all of them. All
    processes write at the same step: what one of them asks for, they agree on first, a step later.

    Gradients are in no checkpoint, so it is written only when the optimizer has stepped. Never after the last batch
    of an epoch: Lightning would resume such a file behind the validation, not before it.
    """

    def __init__(self, folder: Path, preemption: Preemption, *, every_steps: int | None, every_s: float | None) -> None:
        self.path, self.every_steps, self.every_s = folder / LAST, every_steps, every_s
        self.preemption = preemption
        self.agreed = False  # all processes know that one of them was asked
        self.step, self.kept_step, self.kept_at = -1, -1, 0.0
        self.processes: Communicator | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.processes = Communicator(trainer.world_size)

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self.step, self.kept_at = trainer.global_step, time.monotonic()
        self.preemption.listen()  # in place of Lightning, which talks to other processes inside its handler
        trainer._signal_connector.received_sigterm = False  # it would end the run so, without a checkpoint

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *rest: Any) -> None:
        step = trainer.global_step
        if step == self.step:  # gradients are being accumulated
            return
        self.step = step
        age = time.monotonic() - self.kept_at
        due = self.every_s is not None and age >= self.every_s
        assert self.processes is not None
        self.agreed, due, old = self.processes.any_before(self.preemption.asked, due, age >= FRESH_S)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        due |= self.every_steps is not None and step % self.every_steps == 0
        if self.agreed or due or (old and self._validation_is_near(trainer)):
            self._keep(trainer)
        if self.agreed:
            self._leave()

    def on_validation_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        alone = self.preemption.asked and trainer.world_size == 1
        if (self.agreed or alone) and self.kept_step >= trainer.global_step - 1:  # little is lost, and time is short
            self._leave()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer)
        assert self.processes is not None
        if self.processes.any(self.preemption.asked)[0]:
            self._leave()

    def _validation_is_near(self, trainer: Any) -> bool:
        """Whether the next step is the last one of the epoch."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        return trainer.num_training_batches - progress.ready <= trainer.accumulate_grad_batches

    def _keep(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self.kept_step, self.kept_at = trainer.global_step, time.monotonic()

    def _leave(self) -> None:
        raise PreemptedError(
            f"asked to stop; everything up to step {self.kept_step} is in {self.path}: go on with trainer.resume "
            f"{self.path.parent}"
        )


class History(ModelCheckpoint):
    """Keeps history/; a separate class, so that its state has another key in checkpoints than that of best.ckpt."""


def _history(folder: Path, spec: BaseTrainerSpec) -> list[Callback]:
    """The best checkpoints beside best.ckpt, where some are kept."""
    if spec.history is None:
        return []
    keeper = History(
        folder / HISTORY,
        "epoch-{epoch:04d}",
        monitor=spec.monitor,
        mode=monitor_mode(spec.monitor),
        save_top_k=spec.history,
        save_weights_only=False,
        save_on_train_epoch_end=True,
        auto_insert_metric_name=False,
    )
    return [keeper]


def monitor_mode(monitor: str) -> str:
    """ "min" for losses, "max" for accuracies."""
    return "min" if monitor.endswith("loss") else "max"


def checkpoint_callbacks(folder: Path, spec: BaseTrainerSpec, preemption: Preemption) -> list[Callback]:
    """history/ and early stopping if asked for, then best.ckpt, then last.ckpt (which so knows about all)."""
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
    return [*_history(folder, spec), *callbacks, best, last]
