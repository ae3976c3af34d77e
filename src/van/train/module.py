"""One training step, one validation step, the optimizer and its schedule: what Lightning's Trainer drives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..data.fingerprint import Fingerprint
from ..tasks.training import Objective, Training
from ..tasks.validation import Validator
from .distributed import Communicator
from .optimizer import base_lr, build_optimizer, clip_gradients
from .schedule import Schedule, build_schedule


class TrainingModule(LightningModule):
    """A network in training by a recipe.

    objective, validator: of the task, for this data. updates_per_epoch: optimizer steps in one epoch, for the schedule.
    """

    def __init__(
        self,
        model: nn.Module,
        training: Training[Any],
        *,
        objective: Objective,
        validator: Validator,
        classes: tuple[str, ...],
        updates_per_epoch: int,
    ) -> None:
        super().__init__()
        self.task_training, self.recipe, self.classes = training, training.recipe, classes
        self.contents: Mapping[str, Fingerprint] = {}  # what the data set held when the run began
        self.model, self.updates_per_epoch = model, updates_per_epoch
        self.ema: ModelEmaV3 | None = None
        if self.recipe.trainer.ema_decay is not None:
            self.ema = ModelEmaV3(model, decay=self.recipe.trainer.ema_decay, use_warmup=True)
            self.ema.requires_grad_(False)
        self.objective, self.validator = objective, validator
        self.processes = Communicator(1)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated and exported: the average when there is one."""
        return self.model if self.ema is None else self.ema.module

    def setup(self, stage: str) -> None:
        self.processes = Communicator(self.trainer.world_size)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.objective.losses(self.model, batch, epoch=self.current_epoch)
        loss = reduce(add, losses.values())
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=1)  # LossGuard checks it
        return loss

    def on_validation_epoch_start(self) -> None:
        self.validator.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validator.count(self.evaluated, batch)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.validator.compute(self.processes.gather).items():
            self.log(f"val/{name}", value)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if self.trainer.validating and not self.validator.batched:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.task_training)
        schedule = build_schedule(optimizer, self.recipe, self.updates_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.after_step(self.global_step)

    def on_train_epoch_start(self) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "set_epoch"):  # a stream's
            data.set_epoch(self.current_epoch)
        schedule: Schedule = self.lr_schedulers()  # type: ignore[assignment]
        schedule.before_epoch(self.current_epoch)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.log("lr", self._lr(), on_step=True, on_epoch=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["van_recipe"] = self.recipe.to_dict()
        checkpoint["van_classes"] = list(self.classes)
        checkpoint["van_data"] = self.contents

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        clip_gradients(self.model, self.task_training)

    def _lr(self) -> float:
        optimizer: Any = self.optimizers()
        return base_lr(optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer)
