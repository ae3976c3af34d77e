"""mmclassification and mmpretrain classifiers; LayerNorm's epsilon is 1e-5 unless the configuration says otherwise.

Source: mmpretrain's van.py and its saving code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import keys, openmmlab
from .checkpoint import Checkpoint, Content
from .limits import beyond_original, extra_tensors
from .python_config import at
from .reading import RECORD, ParsedCheckpoint, any_key, assemble, majority_match

_KEYS = r"(backbone\.)?(patch_embed\d+\.projection|blocks\d+\.\d+)\."
LINEAGE = {"layer_norm_eps": 1e-5}


def detect(content: Content) -> bool:
    """Keys with `projection` or `blocksN`, also without `backbone.` before them."""
    return isinstance(content.tree, Mapping) and majority_match(openmmlab.state_of(content), _KEYS)


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        openmmlab.refuse_ema(content)
    state, meta = openmmlab.state_of(content), openmmlab.meta_of(content)
    if not any_key(state, r"backbone\."):  # a backbone taken out of its classifier
        state = {f"backbone.{key}": value for key, value in state.items()}
    found = ParsedCheckpoint(format="mmpretrain", state=state, table=keys.MMPRETRAIN, lineage=LINEAGE)
    epsilon = at(openmmlab.config_of(meta), "model", "backbone", "norm_cfg", "eps")
    if isinstance(epsilon, float):
        found.metadata["layer_norm_eps"] = epsilon
    found.classes = openmmlab.classes_of(meta)
    found.provenance = openmmlab.provenance_of(content, "mmpretrain", meta)
    found.record = meta.get(RECORD)
    return assemble(found, content, known)


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; our record rides along in `meta`."""
    openmmlab.write(checkpoint, path, keys.MMPRETRAIN, checkpoint.arrays, {})
    return beyond_original(checkpoint, "mmpretrain's code", "strides", layer_norm_eps=1e-5) + extra_tensors(checkpoint)
