"""The layers of an exported graph that int8 computes: convolutions and linear layers.

All else stays in floating point: the stem, whose three channels gain nothing, the gate, GELU, LayerNorm, softmax and
the Hamburger's iterations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch


def weights_of(program: torch.export.ExportedProgram) -> dict[str, np.ndarray]:
    """The weights that int8 may take by the layer that holds them, in the network's order, the stem left out."""
    held = ((name, value) for name, value in program.state_dict.items() if _is_quantizable(name, value))
    _stem, *rest = held
    return {name.removesuffix(".weight"): value.detach().numpy() for name, value in rest}


def _is_quantizable(name: str, value: torch.Tensor) -> bool:
    return name.endswith(".weight") and value.ndim in (2, 4)


def nodes_by_layer(weights: Mapping[str, np.ndarray], found: Iterable[tuple[str, np.ndarray]]) -> dict[str, str]:
    """layer -> node, for nodes of a graph (name, weight) whose weight is a layer's, as it is or transposed."""
    digests = {_digest(weight): layer for layer, weight in weights.items()}
    layers = {}
    for node, weight in found:
        layer = digests.get(_digest(weight)) or (digests.get(_digest(weight.T)) if weight.ndim == 2 else None)
        if layer is not None:
            layers[layer] = node
    return layers


def _digest(weight: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    import hashlib

    return weight.shape, hashlib.sha256(np.ascontiguousarray(weight).tobytes()).digest()
