"""The torch engine, and what every engine looks like.

Shapes: N batch, C image channels, H and W image sides, K classes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ...errors import ConfigError, UnknownNameError
from ...nn.dtypes import in_float32

# name -> the type that autocast computes in; weights stay float32.
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """Anything that runs a classifier."""

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> {"logits": (N, K) float32}."""


class TorchEngine:
    """Runs a torch model in inference mode, channels last; logits come back as float32 on the host.

    The model is taken over, not copied: it moves to `device`, to float32 and into eval mode.
    device: anything torch.device takes; precision: a key of PRECISIONS.
    Raises ConfigError for a device that is not there, UnknownNameError for a precision that does not exist.
    """

    def __init__(self, model: nn.Module, device: str | torch.device = "cpu", precision: str = "fp32") -> None:
        if precision not in PRECISIONS:
            raise UnknownNameError.of("precision", precision, PRECISIONS)
        self.device = available_device(device)
        self.dtype = PRECISIONS[precision]
        placement: dict[str, Any] = {"device": self.device, "memory_format": torch.channels_last}
        self.model = in_float32(model, type(model).__name__).to(**placement).eval()
        self.in_chans: int | None = getattr(getattr(model, "config", None), "in_chans", None)
        self._compiled: set[tuple[int, ...]] = set()
        self._compiling = threading.Lock()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> {"logits": (N, K) float32}; raises ConfigError for the wrong number of channels."""
        if images.ndim != 4 or (self.in_chans and images.shape[1] != self.in_chans):
            expected = f"(N, {self.in_chans or 'C'}, H, W)"
            raise ConfigError(f"the engine got an array of shape {images.shape}; this model expects {expected}")
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)
        with self._alone_at_first(images.shape), torch.inference_mode(), autocast:
            x = torch.from_numpy(images).to(self.device, memory_format=torch.channels_last)
            logits = self.model(x)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
            shape = tuple(getattr(logits, "shape", ())) or type(logits).__name__
            raise ConfigError(f"the model returned {shape}; expected (N, K) logits, as a classifier's")
        return {"logits": logits.float().cpu().numpy()}

    @contextmanager
    def _alone_at_first(self, shape: tuple[int, ...]) -> Iterator[None]:
        """One caller at a time while a compiled model meets a new shape: each would compile it, up to torch's limit."""
        if self.model._compiled_call_impl is None or shape in self._compiled:
            yield
            return
        with self._compiling:
            yield
            self._compiled.add(shape)

    def __getstate__(self) -> dict[str, Any]:  # a lock stays in its process
        return {name: value for name, value in vars(self).items() if name not in ("_compiling", "_compiled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._compiled, self._compiling = set(), threading.Lock()


def available_device(device: str | torch.device) -> torch.device:
    """`device` as a torch.device that holds tensors here and now; raises ConfigError otherwise."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found).cpu()  # the meta device cannot
        return found
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}); try cpu or cuda") from error
