"""What a training checkpoint says about its network besides the weights, so that `van.load` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from ..images.preprocess import Preprocess
from ..models import record_of


class NetworkRecord(Callback):
    """Puts our own record (configuration, classes, preprocessing, provenance) into every checkpoint, under `van`."""

    def __init__(self, preprocess: Preprocess | None, provenance: Mapping[str, Any]) -> None:
        self.preprocess, self.provenance = preprocess, dict(provenance)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        network: Any = pl_module.model
        provenance = {**self.provenance, "epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        checkpoint["van"] = record_of(network, preprocess=self.preprocess, provenance=provenance)
