"""The torch engine.

Shapes: N batch, C image channels, H and W image sides, K classes.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import ConfigError, UnknownNameError
from ...nn import Model, is_folded
from ...nn.dtypes import in_float32
from ...nn.stand_in import StandIn

# name -> the type that autocast computes in; weights stay float32.
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Runs a torch model in inference mode: what `Model.raw` gives, or the forward of any other module.

    The model is taken over, not copied: it moves to `device`, to float32 and into eval mode.
    device: anything torch.device takes; precision: a key of PRECISIONS; channels_last: layout of all tensors.
    fast: an optimised copy, which is run in the model's place until the model is changed (see StandIn), and never to
    record gradients.
    Raises ConfigError for a device that is not there, UnknownNameError for a precision that does not exist.
    """

    runtime = "torch"

    def __init__(
        self,
        model: nn.Module,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        *,
        channels_last: bool = True,
        fast: nn.Module | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UnknownNameError.of("precision", precision, PRECISIONS)
        self.device = available_device(device)
        self.precision, self.dtype = precision, PRECISIONS[precision]
        self.channels_last = channels_last
        self.model = in_float32(model, type(model).__name__).to(device=self.device, **self._layout).eval()
        self._stand_in = None if fast is None else StandIn(self.model, fast.to(device=self.device, **self._layout))
        self.in_chans: int | None = getattr(getattr(model, "config", None), "in_chans", None)
        self._compiled: set[tuple[int, ...]] = set()
        self._compiling = threading.Lock()

    @property
    def network(self) -> nn.Module:
        """The model. Whatever is done to it shows in the outputs, whether or not a copy is run in its place."""
        return self.model

    @property
    def running(self) -> nn.Module:
        """The module that the next call runs: the model, or its optimised copy."""
        if self._stand_in is None or torch.is_grad_enabled():
            return self.model
        return self._stand_in.chosen()

    @property
    def optimized(self) -> bool:
        """Whether the next call runs a folded network."""
        with torch.no_grad():
            return is_folded(self.running)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> raw outputs by name, float32, on the host.

        Raises ConfigError for the wrong number of channels.
        """
        return {name: each.cpu().numpy() for name, each in self.run_tensors(torch.from_numpy(images)).items()}

    def run_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """As `run`; the outputs stay on the engine's device."""
        with torch.inference_mode():
            return self.outputs(images)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """As `run_tensors`, but with gradients where the caller has them recorded."""
        if images.ndim != 4 or (self.in_chans and images.shape[1] != self.in_chans):
            expected = f"(N, {self.in_chans or 'C'}, H, W)"
            raise ConfigError(f"the engine got an array of shape {tuple(images.shape)}; this model expects {expected}")
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)
        with self._alone_at_first(tuple(images.shape)), autocast:
            found = _raw(self.running)(images.to(self.device, **self._layout))
            return {name: each.float() for name, each in _named(found).items()}

    def on(self, device: str) -> TorchEngine:
        """An engine with a copy of the network on another device; raises ConfigError for one that is not there."""
        target = available_device(device)
        with torch.no_grad():
            model = self.running if target.type == "cpu" else self.model
        return TorchEngine(copy.deepcopy(model), target, self.precision, channels_last=self.channels_last)

    def of(self, part: Callable[[nn.Module], nn.Module]) -> TorchEngine:
        """An engine for a part of the network, or for a network around it, on the same device.

        part: makes it of the model, and of the optimised copy where there is one.
        """
        fast = None if self._stand_in is None else part(self._stand_in.copied)
        return TorchEngine(part(self.model), self.device, self.precision, channels_last=self.channels_last, fast=fast)

    @property
    def _layout(self) -> dict[str, Any]:
        return {"memory_format": torch.channels_last} if self.channels_last else {}

    @contextmanager
    def _alone_at_first(self, shape: tuple[int, ...]) -> Iterator[None]:
        """One caller at a time while a compiled model meets a new shape: each would compile it, up to torch's limit."""
        if self.model._compiled_call_impl is None or shape in self._compiled:
            yield
            return
        with self._compiling:
            yield
            self._compiled.add(shape)

    def __getstate__(self) -> dict[str, Any]:  # a lock stays in its process, and others' hold on the model
        state = {name: value for name, value in vars(self).items() if name not in ("_compiling", "_compiled")}
        with torch.no_grad():
            return state | {"model": self.running, "_stand_in": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._compiled, self._compiling = set(), threading.Lock()


def _raw(model: nn.Module) -> Callable[[Tensor], Any]:
    """What to call: `raw` of a Model; the module itself of another package, or compiled where raw is the forward."""
    inner = getattr(model, "_orig_mod", model)  # in torch.compile's wrapper
    if not isinstance(inner, Model) or (inner is not model and type(inner).raw is Model.raw):
        return model
    return inner.raw


def _named(found: Any) -> Mapping[str, Tensor]:
    """A network's outputs by name; raises ConfigError for what is none."""
    if isinstance(found, Tensor):
        return {"logits": found}
    if isinstance(found, Mapping) and all(isinstance(each, Tensor) for each in found.values()):
        return found
    raise ConfigError(f"the model returned {type(found).__name__}; expected a tensor, or tensors by name")


def available_device(device: str | torch.device) -> torch.device:
    """`device` as a torch.device that holds tensors here and now; raises ConfigError otherwise."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found).cpu()  # the meta device cannot
        return found
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}); try cpu or cuda") from error
