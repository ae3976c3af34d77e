"""What stops a run, or speaks up: losses that are no numbers, images that cannot be read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError, VanError, VanNotice
from .callbacks import loss_of
from .optimizer import base_lr

# How many names of a batch an error shows.
SHOWN = 8


class LossGuard(Callback):
    """Stops the run when a loss is NaN or infinite, naming step, learning rate and the batch's files.

    A GPU's loss is read when the next step is under way: reading it earlier would make the device wait. No bad
    checkpoint is written in between, because AtomicCheckpointIO refuses weights that are not finite.
    """

    def __init__(self) -> None:
        self.last: tuple[Tensor, dict[str, Any]] | None = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check(trainer)
        where = {"epoch": trainer.current_epoch, "batch": batch_idx, "step": trainer.global_step}
        self.last = loss_of(trainer, outputs), {**where, "lr": base_lr(trainer.optimizers[0])}
        if trainer.is_last_batch or outputs["loss"].device.type == "cpu":
            self._check(trainer)

    def _check(self, trainer: Any) -> None:
        if self.last is None:
            return
        (loss, where), self.last = self.last, None
        value = float(loss)
        if math.isfinite(value):
            return
        files = trainer.datamodule.names_of(where["epoch"], where["batch"])
        shown = ", ".join(files[:SHOWN]) + (f", … ({len(files)} in all)" if len(files) > SHOWN else "")
        raise VanError(
            f"the loss is {value} at epoch {where['epoch'] + 1}, step {where['step']}, learning rate "
            f"{where['lr']:.3g}, images {shown}; lower optim.lr, set optim.clip_norm, or use trainer.precision bf16 or "
            "fp32; the checkpoints are of before"
        )


class Substituting(Dataset[Any]):
    """Another data set, `[(epoch, index, …)]`, whose next readable image stands in for one that cannot be read.

    data: what it holds. unreadable: a flag per image, shared with data workers.
    Raises DataError when none of the next images is readable either, or when nothing may be replaced (`limit` 0).
    """

    def __init__(self, dataset: Any, *, limit: int) -> None:
        self.dataset, self.data, self.limit = dataset, dataset.data, limit
        self.reported: list[int] = []  # before training
        self.unreadable = torch.zeros(len(dataset) if limit else 0, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def mark(self, unreadable: Iterable[int]) -> None:
        """These are known not to be readable, and have been reported."""
        self.reported += unreadable
        if self.limit:
            self.unreadable[self.reported] = True

    def replacement_notice(self, name: str, number: int) -> str:
        """The notice about an unreadable image."""
        return f"{name} cannot be read; another image stands in for it (number {number} of at most {self.limit})"

    def __getitem__(self, key: Any) -> Any:
        if not self.limit:
            return self.dataset[key]
        epoch, index, *rest = key
        for distance in range(self.limit + 1):
            place = (index + distance) % len(self)
            if self.unreadable[place]:
                continue
            try:
                return self.dataset[(epoch, place, *rest)]
            except DataError:
                self.unreadable[place] = True
        raise DataError(f"{self.limit + 1} images in a row cannot be read, from {self.data.name(index)} on")


class UnreadableImageGuard(Callback):
    """Reports images that could not be read and were replaced, once each, and stops the run beyond the limit."""

    state_key = "ImageWatch"  # under which checkpoints of version 0.1 hold its state

    def __init__(self, images: Substituting) -> None:
        self.images = images
        self.reported = [*images.reported]

    def state_dict(self) -> dict[str, Any]:
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reported = [*dict.fromkeys((*state_dict["reported"], *self.reported))]

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        found = self.images.unreadable
        if not found.any():
            return
        for index in found.nonzero().flatten().tolist():
            if index not in self.reported:
                self._report(index)

    def _report(self, index: int) -> None:
        self.reported.append(index)
        name, limit = self.images.data.name(index), self.images.limit
        if len(self.reported) > limit:
            raise DataError(
                f"{len(self.reported)} training images cannot be read, trainer.max_unreadable is {limit}; the last is "
                f"{name}; repair or remove them, or raise the limit"
            )
        warnings.warn(self.images.replacement_notice(name, len(self.reported)), VanNotice, stacklevel=2)
