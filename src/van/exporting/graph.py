"""From a network to a program with free batch and, where it can be, free size, ready to be written in any format."""

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from ..errors import VanError
from ..nn.dtypes import require_values
from ..nn.fold import fold as folded
from ..nn.fold import is_folded
from ..nn.model import Model
from .dilation import without_dilation

INPUT, OUTPUT = "images", "logits"  # OUTPUT: of a network that gives a single one
EXAMPLE = (2, 96, 64)  # batch, H, W of the traced images: all different, none 1


class Raw(nn.Module):
    """A model whose `forward` is its `raw`.

    The model is a submodule under the noun of its configuration, so that files name weights as those of version 0.1.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.noun: str = model.config.noun
        self.add_module(self.noun, model)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        output: Tensor | dict[str, Tensor] = getattr(self, self.noun).raw(images)
        return output


def prepared(model: Model, *, fold: bool = True, dilation_free: bool = False) -> nn.Module:
    """A float32 copy on the CPU in eval mode that maps images to what `Model.raw` gives.

    fold: BatchNorm and layer scales into the convolutions (exact); a folded model stays as it is.
    dilation_free: see `dilation.without_dilation`.
    """
    require_values(model)
    network: nn.Module = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)
    if fold and not is_folded(network):
        network = folded(network)  # in float32, or halves would be rounded again
    if dilation_free:
        network = without_dilation(network)
    return network if type(model).raw is Model.raw else Raw(cast(Model, network))


def trace(network: nn.Module, in_chans: int, size: tuple[int, int] | None = None) -> torch.export.ExportedProgram:
    """The program of a prepared network: (N, in_chans, H, W) -> raw output with N, H and W free from 1 on.

    size: the only (H, W) that the program takes; N stays free. Raises VanError for a network that cannot be traced so.
    """
    free = torch.export.Dim.DYNAMIC
    batch, height, width = EXAMPLE if size is None else (EXAMPLE[0], *size)
    images = torch.zeros(batch, in_chans, height, width)
    axes = {0: free} if size is not None else {0: free, 2: free, 3: free}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, about itself
            program = torch.export.export(network, (images,), dynamic_shapes=(axes,))
    except Exception as error:  # of many types
        reason = " ".join(str(error).split())[:300]
        free_axes = "free sizes" if size is None else "a free batch"
        raise VanError(f"the network cannot be traced with {free_axes}: {reason}") from error
    for symbol in program.range_constraints:
        # Tracing takes maps of one pixel for a case of their own, because their memory layout is ambiguous. No value
        # depends on that: the graph has no branches, and the gate runs such sizes.
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
    return program


def output_names(program: torch.export.ExportedProgram) -> list[str]:
    """Names of a program's outputs, in their order."""
    spec: Any = program.call_spec.out_spec
    return list(spec.context) if spec is not None and spec.type is dict else [OUTPUT]
