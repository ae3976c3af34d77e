"""Operations of any network, counted while it runs once: torch's FLOP counter, and what it lacks for published tables.

| quantity | what is counted |
|---|---|
| `macs` | multiply-adds of convolutions and linear layers, no bias |
| `matmul` | multiply-adds of matrix products |
| `bias` | output elements of convolutions with a bias |
| `batch_norm`, `layer_norm`, `group_norm` | elements that are normalised |
| `relu`, `multiply`, `bilinear` | elements written by a ReLU, a multiplication, a bilinear resize |
| `pooled`, `pool_input` | elements that average pooling writes and reads |

On the meta device nothing is computed and no memory is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

Convention: TypeAlias = Mapping[str, int]  # quantity -> what one of it counts as

aten = torch.ops.aten
_TOTAL = "Global"  # what torch's counter calls the sum over everything


def _written(*_: Any, out_shape: Any, **__: Any) -> int:
    """Elements of an operator's first output."""
    return math.prod(out_shape if isinstance(out_shape, torch.Size) else out_shape[0])


def _nothing(*_: Any, **__: Any) -> int:
    return 0


def _read(input_shape: Sequence[int], *_: Any, **__: Any) -> int:
    return math.prod(input_shape)


def _biased(_input: Any, _weight: Any, bias: Any = None, *_: Any, out_shape: Any, **__: Any) -> int:
    return 0 if bias is None else _written(out_shape=out_shape)


# Operator -> quantity. torch has formulas for products, two operations per multiply-add; the rest are elements.
_PRODUCTS = dict.fromkeys(flop_registry, "matmul") | {aten.convolution: "macs", aten.addmm: "macs"}
_ELEMENTS = {
    aten.native_batch_norm: "batch_norm",
    aten._native_batch_norm_legit_no_training: "batch_norm",
    aten.native_layer_norm: "layer_norm",
    aten.native_group_norm: "group_norm",
    aten.relu: "relu",
    aten.relu_: "relu",
    aten.mul: "multiply",
    aten.upsample_bilinear2d: "bilinear",
    aten.mean: "pooled",
    aten._adaptive_avg_pool2d: "pooled",
}
# Operators that the counter would take apart into arithmetic of indices, were they not named.
_UNCOUNTED = (aten.upsample_nearest2d.default, aten.upsample_nearest2d.vec)
# The counter keeps one number per operator; those that add to a second quantity are counted by a second one.
_SECOND: dict[Any, tuple[str, Callable[..., int]]] = {
    aten.convolution: ("bias", _biased),
    aten.mean: ("pool_input", _read),
    aten._adaptive_avg_pool2d: ("pool_input", _read),
}


@dataclass(frozen=True)
class Operations:
    """Quantities of a network's run, in total and by the name of each module (its own modules included)."""

    total: Counter[str]
    by_module: Mapping[str, Counter[str]]

    def in_convention(self, convention: Convention) -> int:
        """Operations as a published table counts them."""
        return sum(self.total[quantity] * weight for quantity, weight in convention.items())


def count_operations(model: nn.Module, *inputs: Tensor) -> Operations:
    """Run a network once and count what its operators do; it is left in the mode that it is in."""
    first = _counter(dict.fromkeys(_ELEMENTS, _written))
    second = _counter({operator: rule for operator, (_, rule) in _SECOND.items()})
    with torch.no_grad(), first, second:
        model(*inputs)
    counts, more = first.get_flop_counts(), second.get_flop_counts()
    found = {name: _quantities(counts[name]) + _second_quantities(more.get(name, {})) for name in counts}
    total = found.pop(_TOTAL, Counter())
    return Operations(total, {_own_name(name): quantities for name, quantities in found.items()})


def _counter(rules: Mapping[Any, Callable[..., int]]) -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={**rules, **dict.fromkeys(_UNCOUNTED, _nothing)})


def _own_name(name: str) -> str:
    """The counter's name of a module without the class of the root, which is ""."""
    return name.partition(".")[2]


def _quantities(counts: Mapping[Any, int]) -> Counter[str]:
    quantities: Counter[str] = Counter()
    for operator, count in counts.items():
        if operator in _ELEMENTS:
            quantities[_ELEMENTS[operator]] += count
        else:
            quantities[_PRODUCTS[operator]] += count // 2
    return quantities


def _second_quantities(counts: Mapping[Any, int]) -> Counter[str]:
    quantities: Counter[str] = Counter()
    for operator, (quantity, _) in _SECOND.items():
        quantities[quantity] += counts.get(operator, 0)
    return quantities
