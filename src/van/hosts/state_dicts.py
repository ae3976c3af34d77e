"""Weights of any published format, as a host hands them over, under this package's keys."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import FORMATS, Checkpoint, Content, module_of
from ..errors import CheckpointError, VanNotice
from ..nn import Backbone
from ..nn.layers import LayerNorm2d

OURS = "backbone.stages."


def is_foreign(state: Mapping[str, Any]) -> bool:
    """Whether no key of the state dict is one of ours."""
    return bool(state) and not any(str(key).startswith(OURS) for key in state)


def read_state(state: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint in a state dict of any published format, bare or as the training code wrapped it.

    Raises CheckpointError for keys that no format has, or that miss some.
    """
    content = Content(path=Path("the state dict"), container="torch", tree=_arrays(state))
    for name in FORMATS:
        module = module_of(name)
        if module.detect(content):
            return module.read(content, ema=False, known={}).as_classifier()
    shown = ", ".join(str(key) for key in list(state)[:5])
    raise CheckpointError(f"the state dict holds no Visual Attention Network; its first of {len(state)} keys: {shown}")


def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The checkpoint's arrays as tensors, without a copy where the memory allows it."""
    return {key: torch.from_numpy(np.require(array, requirements="W")) for key, array in checkpoint.arrays.items()}


def use_epsilon_of(backbone: Backbone, checkpoint: Checkpoint, *, epsilon: bool = True) -> None:
    """Give the backbone the LayerNorm epsilon that its new weights were trained with; warns about what changed.

    epsilon: False where the network was made with an epsilon that somebody chose for these weights.
    """
    ours, theirs = backbone.config, checkpoint.backbone
    for note in checkpoint.notes:
        warnings.warn(note, VanNotice, stacklevel=3)
    if epsilon and ours.layer_norm_eps != theirs.layer_norm_eps:
        recorded = checkpoint.origins.get("layer_norm_eps") == "metadata"
        source = "the weights' own file says" if recorded else f"in the {checkpoint.format} code that they come from"
        warnings.warn(
            f"LayerNorm's epsilon is now {theirs.layer_norm_eps:g}, as {source}; it was {ours.layer_norm_eps:g}",
            VanNotice,
            stacklevel=3,
        )
        for module in backbone.modules():
            if isinstance(module, LayerNorm2d):
                module.eps = theirs.layer_norm_eps
        backbone.config = ours.with_options(layer_norm_eps=theirs.layer_norm_eps)
    if ours.strides != theirs.strides:
        warnings.warn(
            f"these weights were trained with strides {theirs.strides}, the network has {ours.strides}; "
            f"create it with strides={theirs.strides} for the same numbers",
            VanNotice,
            stacklevel=3,
        )


def _arrays(tree: Any) -> Any:
    """The tree with its tensors as arrays; bfloat16, which numpy lacks, is widened."""
    if isinstance(tree, Tensor):
        tensor = tree.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(tree, Mapping):
        return {key: _arrays(value) for key, value in tree.items()}
    return tree
