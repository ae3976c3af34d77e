"""One training step and one validation step of a segmenter: what Lightning's Trainer drives.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from pytorch_lightning import LightningModule
from torch import Tensor

from ...data.fingerprint import Fingerprint
from ...nn.segmenter import Segmenter
from ...recipes import SegmentationRecipe
from ...tasks.segmentation.confusion_matrix import ConfusionMatrix
from ...tasks.segmentation.losses import PixelLoss
from ...tasks.segmentation.views import Inference, predict_mask
from ..optimizer import clip_gradients
from .optimizer import build_pixel_optimizer, build_poly


class SegmentationModule(LightningModule):
    """A segmenter in training by a recipe; validation counts pixels exactly as `van eval` does.

    inference: how validation looks at a picture. With several devices each counts its share; the sum is exact.
    """

    def __init__(
        self,
        model: Segmenter,
        recipe: SegmentationRecipe,
        *,
        inference: Inference,
        classes: tuple[str, ...],
        ignore_index: int,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.inference, self.classes = model, recipe, inference, classes
        self.contents: dict[str, Fingerprint] = {}  # what the data set held when the run began
        self.loss = PixelLoss(recipe.loss, ignore_index=ignore_index)
        self.matrix = ConfusionMatrix(model.num_classes, ignore_index=ignore_index)

    @property
    def evaluated(self) -> Segmenter:
        """The weights that are validated and exported."""
        return self.model

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch  # (N, C, H, W), (N, H, W)
        if self.recipe.trainer.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        logits, auxiliary = self.model.decode_with_auxiliary(images)
        loss = self.loss(logits, labels)
        if auxiliary is not None:
            loss = loss + self.recipe.loss.auxiliary_weight * self.loss(auxiliary, labels)
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=len(labels))  # LossWatch looks at it
        return loss

    def on_validation_epoch_start(self) -> None:
        self.matrix = ConfusionMatrix(self.matrix.num_classes, ignore_index=self.matrix.ignore_index)

    def validation_step(self, batch: tuple[int, Tensor, Tensor], batch_idx: int) -> None:
        index, pixels, labels = batch  # (H, W, 3), (H, W)
        mask = predict_mask(self.model, Image.fromarray(pixels.cpu().numpy()), self.inference)
        self.matrix.update(mask, labels.cpu().numpy(), name=f"validation image {index}")

    def on_validation_epoch_end(self) -> None:
        counts = torch.from_numpy(self.matrix.counts).to(self.device)
        total = self.trainer.strategy.reduce(counts, reduce_op="sum")
        self.matrix.counts = total.cpu().numpy() if isinstance(total, Tensor) else self.matrix.counts
        self.log_dict({f"val/{name}": value for name, value in self.matrix.means().items()})

    def configure_optimizers(self) -> Any:
        optimizer = build_pixel_optimizer(self.model, self.recipe)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": build_poly(optimizer, self.recipe), "interval": "step"},
        }

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.log("lr", self._lr(), on_step=True, on_epoch=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["van_recipe"] = self.recipe.to_dict()
        checkpoint["van_classes"] = list(self.classes)
        checkpoint["van_data"] = self.contents

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if len(batch) == 3:  # whole pictures are prepared on the CPU
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        clip_gradients(self.model, self.recipe.optim)

    def _lr(self) -> float:
        optimizer: Any = self.optimizers()
        return float(getattr(optimizer, "optimizer", optimizer).param_groups[0]["lr"])
