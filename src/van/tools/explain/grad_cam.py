"""Grad-CAM: where the last map speaks for a class.

Source: Selvaraju et al., arXiv 1610.02391. Its layer is the last block of the last stage, before the stage's norm, as
the authors of the network answer (VAN-Classification, issue 30): the norm after it gives every position the same size,
so that background would look as important as the object.

Shapes: N batch, C channels, h, w of the last stage's map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.backbone import Backbone


def target_layer(backbone: Backbone) -> nn.Module:
    """The last block of the last stage."""
    blocks: Any = backbone.stages[-1].blocks
    layer: nn.Module = blocks[-1]
    return layer


@contextmanager
def last_map(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Within it, a forward pass writes the target layer's output, (N, C, h, w), into the list.

    Gradients are recorded from that map on; what comes before it needs no memory for them.
    """
    found: list[Tensor] = []

    def begin(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        found.append(output.detach().requires_grad_(True))
        return found[-1]

    handle = target_layer(backbone).register_forward_hook(begin)
    try:
        with torch.no_grad():  # puts back what `begin` sets
            yield found
    finally:
        handle.remove()


def grad_cam(score: Tensor, features: Tensor) -> Tensor:
    """The map of a score, (N, h, w), not negative: channels weighted by their mean gradient."""
    (gradient,) = torch.autograd.grad(score, features, allow_unused=True)
    if gradient is None:
        return torch.zeros_like(features[:, 0], dtype=torch.float32)
    weights = gradient.float().mean((2, 3), keepdim=True)
    return (weights * features.detach().float()).sum(1).relu()
