"""What every model of this package offers besides its forward: configuration, metadata, a fresh start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..configs.metadata import ModelMetadata, Palette
from ..configs.model_config import ModelConfig

if TYPE_CHECKING:
    from ..images.preprocess import Preprocess

_FIELDS = ("classes", "palette", "preprocess", "provenance")


class Model(nn.Module):
    """A network with a head, its configuration and its metadata.

    metadata: what travels with the weights; `classes`, `palette`, `preprocess` and `provenance` read and write it.
    """

    metadata: ModelMetadata

    if TYPE_CHECKING:
        backbone: Any
        config: Any

    def __init__(self) -> None:
        super().__init__()
        self.metadata = ModelMetadata()

    @property
    def num_classes(self) -> int:
        """Number of classes of the output; 0 for features."""
        config: ModelConfig = self.config
        return config.num_classes

    def raw(self, images: Tensor) -> Tensor:
        """What is run, exported and compared: (N, C, H, W) -> the head's output before anything is resized."""
        return self(images)

    def compared(self, images: Tensor) -> Any:
        """What `van.optimize` compares: tensors, from which rounding makes no leap."""
        return self(images)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Published initialisation of the whole network."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int, generator: torch.Generator | None = None) -> None:
        """Fresh output layers for `num_classes`; the rest of the network stays, names of the classes do not."""
        raise NotImplementedError

    def reorder_classes(self, order: Sequence[int]) -> None:
        """Row `order[i]` of the output layers becomes row i: the same output in another order."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See Backbone.set_grad_checkpointing."""
        self.backbone.set_grad_checkpointing(enable)

    def freeze_backbone(self) -> None:
        """Train everything but the backbone."""
        self.backbone.freeze()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """`metadata.classes`."""
        return self.metadata.classes

    @classes.setter
    def classes(self, value: Sequence[str] | None) -> None:
        self.metadata = replace(self.metadata, classes=None if value is None else tuple(value))

    @property
    def palette(self) -> Palette | None:
        """`metadata.palette`."""
        return self.metadata.palette

    @palette.setter
    def palette(self, value: Palette | None) -> None:
        self.metadata = replace(self.metadata, palette=value)

    @property
    def preprocess(self) -> Preprocess | None:
        """`metadata.preprocess`."""
        return self.metadata.preprocess

    @preprocess.setter
    def preprocess(self, value: Preprocess | None) -> None:
        self.metadata = replace(self.metadata, preprocess=value)

    @property
    def provenance(self) -> dict[str, Any]:
        """`metadata.provenance`."""
        return self.metadata.provenance

    @provenance.setter
    def provenance(self, value: dict[str, Any] | None) -> None:
        self.metadata = replace(self.metadata, provenance=value or {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Models that were pickled by version 0.1 had the fields of their metadata as attributes of their own."""
        older = {name: state[name] for name in _FIELDS if name in state}
        if "metadata" not in state:
            known = {name: value for name, value in older.items() if value is not None}
            state = {name: value for name, value in state.items() if name not in older}
            state["metadata"] = ModelMetadata(**known)
        super().__setstate__(state)
