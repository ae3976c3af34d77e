"""What recipes of both Mask2Formers can set of the network."""

from __future__ import annotations

from dataclasses import dataclass

from .model_spec import ObjectModelSpec


@dataclass(frozen=True, kw_only=True)
class Mask2FormerSpec(ObjectModelSpec):
    """Fields as in configs.mask2former.Mask2FormerFields; None keeps what the model or the checkpoint has."""

    queries: int | None = None
    hidden_size: int | None = None
    mask_size: int | None = None
    heads: int | None = None
    encoder_layers: int | None = None
    encoder_feed_forward: int | None = None
    decoder_layers: int | None = None
    feed_forward: int | None = None
    class_weight: float | None = None
    mask_weight: float | None = None
    dice_weight: float | None = None
    no_object_weight: float | None = None
    train_points: int | None = None
    oversample_ratio: float | None = None
    importance_ratio: float | None = None
