"""The Keras engine: the same weights in `van.keras.VAN`, on whichever backend Keras has.

Shapes: N batch, C image channels, H and W image sides, K classes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, UnknownNameError

# name -> Keras's dtype policy.
POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


class KerasEngine:
    """Runs a van.keras.VAN as Keras's predict does; logits come back as float32."""

    runtime = "keras"
    network = None

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> {"logits": (N, K) float32}; raises ConfigError for the wrong number of channels."""
        in_chans = self.model.config.in_chans
        if images.ndim != 4 or images.shape[1] != in_chans:
            raise ConfigError(f"the engine got an array of shape {images.shape}; expected (N, {in_chans}, H, W)")
        if self.model.data_format == "channels_last":
            images = images.transpose(0, 2, 3, 1)
        return {"logits": np.asarray(self.model.predict_on_batch(images), np.float32)}

    def run_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """As `run`, by way of the host."""
        return {name: torch.from_numpy(each) for name, each in self.run(images.cpu().numpy()).items()}

    def on(self, device: str) -> KerasEngine:
        """Raises ConfigError: Keras places models by its backend's own settings."""
        raise ConfigError(f"device {device!r} is the torch engine's; Keras places models by its backend's own settings")


def load(source: Any, precision: str, ema: bool) -> Any:
    """The model in a checkpoint, or the given one; raises ConfigError, UnknownNameError and what `VAN` raises."""
    # Triton, which torch's networks want, ends the process when TensorFlow's LLVM is there before its own.
    with contextlib.suppress(ImportError):
        import triton.knobs  # noqa: F401
    from ...keras import VAN

    if precision not in POLICIES:
        raise UnknownNameError.of("precision", precision, POLICIES)
    if isinstance(source, str | Path):
        return VAN(weights=source, ema=ema, dtype=POLICIES[precision])
    if not isinstance(source, VAN):
        raise ConfigError(f"engine 'keras' takes a checkpoint or a van.keras.VAN, not a {type(source).__name__}")
    if ema or precision != "fp32":
        raise ConfigError("ema and precision are for checkpoints; a model in memory has its own")
    if source.classifier_activation != "linear":
        raise ConfigError(f"the model ends in {source.classifier_activation!r}; build it without classifier_activation")
    return source
