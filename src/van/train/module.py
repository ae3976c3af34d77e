"""One training step, one validation step, the optimizer and its schedule: what Lightning's Trainer drives.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ..data.fingerprint import Fingerprint
from ..recipes import Recipe
from ..tasks.classification.accuracy import accuracy
from ..tasks.classification.losses import Criterion, build_mixup, build_teacher, join_splits
from .optimizer import base_lr, build_optimizer, build_schedule, clip_gradients


class ClassificationModule(LightningModule):
    """A classifier in training by a recipe.

    model: (N, C, H, W) -> (N, K) logits; updates_per_epoch: optimizer steps in one epoch, for the schedule.
    weights: of the classes in the loss, (K,); None: all alike.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        classes: tuple[str, ...],
        updates_per_epoch: int,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.contents: dict[str, Fingerprint] = {}  # what the data set held when the run began
        self.model, self.recipe, self.updates_per_epoch = model, recipe, updates_per_epoch
        self.ema: ModelEmaV3 | None = None
        if recipe.trainer.ema_decay is not None:
            self.ema = ModelEmaV3(model, decay=recipe.trainer.ema_decay, use_warmup=True)
            self.ema.requires_grad_(False)
        self.mixup = build_mixup(recipe, len(classes))
        self.criterion = Criterion(recipe, weights)
        self.teacher = build_teacher(recipe, model, classes)
        self.accuracy = accuracy(len(classes), prefix="val/")
        self.val_loss = MeanMetric()  # Lightning's own mean is wrong where processes have different numbers of images

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are validated and exported: the average when there is one."""
        return self.model if self.ema is None else self.ema.module

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = join_splits(batch[0], batch[1])  # (N, C, H, W), (N,)
        images, targets = self._layout(images), labels
        if self.mixup is not None:
            off = self.recipe.augment.mix_off_epoch
            self.mixup.mixup_enabled = off is None or self.current_epoch < off
            images, targets = self.mixup(images, labels)  # targets (N, K)
        logits = self.model(images)  # (N, K)
        loss = self.criterion(logits, targets)
        if self.teacher is not None:
            loss = torch.lerp(loss, self.teacher.loss(images, logits), self.teacher.weight)
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=len(labels))  # LossWatch looks at it
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = self._layout(batch[0]), batch[1]
        logits = self.evaluated(images).float()  # (N, K)
        self.accuracy.update(logits, labels)
        self.val_loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.log("val/loss", self.val_loss, on_epoch=True, batch_size=len(labels))
        self.log_dict(self.accuracy, on_epoch=True, batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.recipe)
        scheduler = build_schedule(optimizer, self.recipe, self.updates_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(self.global_step)  # does nothing for a schedule per epoch

    def on_train_epoch_start(self) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "set_epoch"):  # a stream's
            data.set_epoch(self.current_epoch)
        schedule: Any = self.lr_schedulers()
        schedule.step(self.current_epoch)  # does nothing for a schedule per step

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

    def _layout(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.trainer.channels_last else images

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        clip_gradients(self.model, self.recipe.optim)

    def _lr(self) -> float:
        optimizer: Any = self.optimizers()
        return base_lr(optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer)
