"""The official classification checkpoints, as timm saves them, and those of the 22K code.

Layouts: `{epoch, arch, state_dict, optimizer, version, args, metric[, state_dict_ema]}`, a bare state dict, or
`{model[, model_ema], …}`. LayerNorm's epsilon is 1e-6.
Sources: VAN-Classification (timm 0.4.12 CheckpointSaver); its ImageNet-22K branch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..images.preprocess import IMAGENET, OFFICIAL
from . import keys
from .checkpoint import Checkpoint, Content
from .limits import beyond_original, extra_tensors
from .reading import RECORD, ParsedCheckpoint, assemble, describe, majority_match, states_of

STATES, AVERAGED = ("state_dict", "model"), ("state_dict_ema", "model_ema")
_KEYS = r"(patch_embed|block|norm)\d+\."
LINEAGE = {"layer_norm_eps": 1e-6}


def detect(content: Content) -> bool:
    """Official keys, bare or under one of the entries that hold a state."""
    return any(majority_match(state, _KEYS) for state in states_of(content.tree, *STATES, *AVERAGED).values())


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    entry, state = _choose(content, ema)
    found = ParsedCheckpoint(format="official", state=state, table=keys.OFFICIAL, lineage=LINEAGE)
    found.statistics = IMAGENET if entry in ("model", "model_ema") else OFFICIAL
    found.provenance = _provenance(content, entry)
    found.record = content.tree.get(RECORD) if entry else None
    return assemble(found, content, known)


def _choose(content: Content, ema: bool) -> tuple[str, Mapping[str, Any]]:
    states = states_of(content.tree, *STATES, *AVERAGED)
    wanted = AVERAGED if ema else STATES
    for entry in wanted:
        if entry in states:
            return entry, states[entry]
    if ema:
        raise CheckpointError(f"{content.path} has none of {', '.join(AVERAGED)}: no averaged weights; leave ema out")
    if "" in states:
        return "", states[""]
    raise CheckpointError(f"{content.path} holds averaged weights only ({', '.join(states)}); load them with ema")


def _provenance(content: Content, entry: str) -> dict[str, Any]:
    stated: dict[str, Any] = {"source": content.path.name, "format": "official"}
    if not entry:
        return stated
    stated["entry"] = entry
    for name in ("arch", "epoch", "metric"):
        value = content.tree.get(name)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, str | int | float):
            stated[name] = value
    return stated


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; our record rides along under `van`, which the official code ignores."""
    from . import torch_pickle

    state = OrderedDict((keys.OFFICIAL.foreign(key), array) for key, array in checkpoint.arrays.items())
    tree = {"epoch": 0, "arch": checkpoint.name, "state_dict": state, "version": 2, RECORD: describe(checkpoint)}
    torch_pickle.write(path, tree)
    return beyond_original(
        checkpoint, "the official code", "patch_sizes", "strides", layer_norm_eps=1e-6
    ) + extra_tensors(checkpoint)
