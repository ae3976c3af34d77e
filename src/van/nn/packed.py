"""Modules that keep a packed copy of their weights for the C kernel, and notice when it no longer stands for them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, contains, is_, is_not
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from .fusable import REPLACEABLE, methods, process_has_hooks, wants_gradients, why_called


class Packed(nn.Module):
    """A module that the C kernel computes in one call, from a packed copy of its weights, not calling what is inside.

    Before each call it is asked whether that makes a difference: weights that were written, replaced or moved are
    packed again; where something inside has hooks, a replaced forward or another class, the modules are called.
    A graph of torch.compile keeps the weights as they were packed last. A pickled module is packed again where it is
    read, because the layout is that of the processor.
    """

    packs_at_once = True  # False: with the first call; graphs of torch.compile use what is packed when they are made
    packs: dict[torch.dtype, Any] | None  # by the type of the products; None where the modules are called
    snapshot: Snapshot | None

    def inside(self) -> Iterable[nn.Module]:
        """The modules that one call of the kernel stands for."""
        raise NotImplementedError

    def pack(self, products: torch.dtype) -> Any:
        """The weights as the kernel reads them for products of a type; None where it does not compute this module."""
        raise NotImplementedError

    @property
    def packed(self) -> Any:
        """The weights as the kernel reads them for maps of their own type; None where the modules are called."""
        return self.packed_now(self._own_products())

    def packed_now(self, products: torch.dtype) -> Any:
        """The weights that the modules have now, for products of a type; None where the modules are called."""
        if self.snapshot is None or not self.snapshot.holds():
            self.pack_again()
        return self._packed_for(products)

    def _own_products(self) -> torch.dtype:
        return ops.product_type(next(self.parameters()))

    def pack_again(self, *_: Any) -> None:
        """Pack the weights that the modules have now, for maps of their own type; for others when they come."""
        inside = list(self.inside())
        called = any(map(why_called, inside))
        self.packs, self.snapshot = (None, None) if called else ({}, Snapshot(self, inside))
        if self.packs_at_once:
            self._packed_for(self._own_products())

    def ready(self, x: Tensor) -> Any:
        """The packed weights where the kernel serves this map and calling modules would give the same, else None."""
        if not ops.has_block_kernel(x) or process_has_hooks():
            return None
        products = ops.product_type(x)
        if torch.compiler.is_compiling():
            return None if any(map(why_called, self.inside())) else (self.packs or {}).get(products)
        snapshot = self.snapshot  # once: other threads may be packing
        if snapshot is None or not snapshot.holds():
            if wants_gradients(self.parameters()):
                return None  # it is being trained: no use in packing at every step
            self.pack_again()
        elif wants_gradients(snapshot.tensors()):
            return None
        packed = self._packed_for(products)
        return packed if packed is None or ops.accepts(packed, x) else None

    def _packed_for(self, products: torch.dtype) -> Any:
        packs = self.packs  # once, as above
        if packs is None:
            return None
        if products not in packs:
            packs[products] = self.pack(products)
        return packs[products]

    def _apply(self, fn: Any, recurse: bool = True) -> Packed:
        super()._apply(fn, recurse)
        self.pack_again()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packs": None, "snapshot": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.pack_again()


class Snapshot:
    """What a call of modules depended on when it was taken: their classes, geometry, hooks, children and tensors.

    It is compared before every call of a stage, so each question to all modules is one loop in C.
    """

    def __init__(self, root: nn.Module, inside: Iterable[nn.Module]) -> None:
        self._modules = tuple(inside)
        self._kinds = tuple(map(type, self._modules))
        self._methods = {type(m): methods(type(m)) for m in self._modules}
        self._convs = tuple(m for m in self._modules if isinstance(m, nn.Conv2d))
        self._geometry = tuple(map(_geometry, self._convs))
        self._attributes = tuple(m.__dict__ for m in self._modules)
        self._hooks = tuple(h for m in self._modules for h in (m._forward_hooks, m._forward_pre_hooks))
        self._families = tuple(m._modules for m in (root, *self._modules) if m._modules)
        self._children = tuple(chain.from_iterable(map(dict.values, self._families)))
        owners = chain.from_iterable((m._parameters, m._buffers) for m in (root, *self._modules))
        self._owners = tuple(owner for owner in owners if owner)
        self._tensors = self.tensors()
        self._versions, self._addresses = _versions(self._tensors), _addresses(self._tensors)

    def holds(self) -> bool:
        """Whether nothing has changed since."""
        if any(self._hooks) or any(any(map(contains, self._attributes, repeat(name))) for name in REPLACEABLE):
            return False
        if tuple(map(type, self._modules)) != self._kinds or any(methods(k) != m for k, m in self._methods.items()):
            return False
        if tuple(map(_geometry, self._convs)) != self._geometry:
            return False
        if not all(map(is_, chain.from_iterable(map(dict.values, self._families)), self._children)):
            return False
        tensors = self.tensors()
        return _versions(tensors) == self._versions and _addresses(tensors) == self._addresses

    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters and buffers that the modules have now."""
        values: Any = chain.from_iterable(map(dict.values, self._owners))  # type: ignore[arg-type]
        return tuple(filter(partial(is_not, None), values))


_geometry = attrgetter("stride", "padding", "dilation", "groups", "padding_mode")


def _versions(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """How often each tensor was written in place; nothing for tensors of inference_mode, which are not counted."""
    try:
        return tuple(map(attrgetter("_version"), tensors))
    except RuntimeError:
        return ()


def _addresses(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Where each tensor lies; nothing for fake tensors, which lie nowhere."""
    try:
        return tuple(map(Tensor.data_ptr, tensors))
    except RuntimeError:
        return ()
