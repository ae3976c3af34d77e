"""When a run is written down: each epoch, between them, and when the machine is about to be taken away."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from ..errors import PreemptedError
from .checkpoint_io import LAST
from .distributed import Talk

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# The end of an epoch, with its validation, is worth a checkpoint of its own when the last one is older than this.
FRESH_S = 10.0


class Preemption:
    """Whether SIGTERM or SIGUSR1 has asked this process to stop, from before the data is looked at until the end.

    Data workers take the handlers over, and so live on when a scheduler signals every process of a job.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self.before = {number: signal.getsignal(number) for number in SIGNALS} if _in_main_thread() else {}
        self.listen()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals (again), which only the main thread can."""
        for number in self.before:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
        self.talk: Talk | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.talk = Talk(trainer.world_size)

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
        assert self.talk is not None
        self.agreed, due, old = self.talk.any_before(self.preemption.asked, due, age >= FRESH_S)
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
        assert self.talk is not None
        if self.talk.any(self.preemption.asked)[0]:
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
