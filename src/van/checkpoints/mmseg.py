"""mmsegmentation's segmenters with a VAN backbone: the backbone becomes a feature network, the heads are kept aside.

LayerNorm's epsilon and the strides come from the configuration in `meta`, else from the kind of head: files of
2022-03 (backbones `van_tiny` …; Ham, HamNet, Semantic FPN) have 1e-6, those of 2022-07 and of mmsegmentation 1.x
(backbone `VAN`; UperNet) 1e-5.
Sources: VAN-Segmentation at both dates; mmsegmentation 1.x `projects/van`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..preprocess import IMAGENET
from . import keys, openmmlab
from .checkpoint import Arrays, Checkpoint, Content
from .limits import beyond_original
from .python_config import at
from .reading import RECORD, Found, any_key, assemble, mostly

_KEYS = r"backbone\.(patch_embed\d+\.proj|block\d+\.\d+)\."
HEADS = r"(neck|decode_head|auxiliary_head)\."
_INNER = r"backbone\.block\d+\.\d+\.mlp\.dwconv\.dwconv\."
_NO_INNER = r"backbone\.block\d+\.\d+\.mlp\.dwconv\.(weight|bias)"
HAMNET_STRIDES = (4, 2, 1, 1)

# Kind of head -> a key that only it has.
HEAD_KEYS = {
    "hamnet": r"decode_head\.conv_cat\.",
    "light_ham": r"decode_head\.hamburger\.",
    "upernet": r"decode_head\.psp_modules\.",
    "semantic_fpn": r"decode_head\.scale_heads\.",
}


def detect(content: Content) -> bool:
    """Official keys under `backbone.`."""
    if not isinstance(content.tree, Mapping):
        return False
    state = openmmlab.state_of(content)
    return mostly({key: None for key in state if not re.match(HEADS, key)}, _KEYS)


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        openmmlab.refuse_ema(content)
    state, meta = openmmlab.state_of(content), openmmlab.meta_of(content)
    heads = {key: array for key, array in state.items() if re.match(HEADS, key)}
    version_1 = any_key(state, _NO_INNER) and not any_key(state, _INNER)
    found = Found(
        format="mmseg",
        state={key: value for key, value in state.items() if key not in heads},
        table=keys.MMSEG_1 if version_1 else keys.MMSEG,
        lineage=_lineage(head_kind(heads), version_1),
        metadata=_told(openmmlab.config_of(meta)),
        statistics=IMAGENET,
        extra={key: array for key, array in heads.items() if isinstance(array, np.ndarray)},
    )
    found.provenance = openmmlab.provenance_of(content, "mmseg", meta)
    if heads:
        found.provenance |= {"head": head_kind(heads), "head_classes": openmmlab.classes_of(meta)}
        found.notes.append(_left_out(heads))
    found.record = meta.get(RECORD)
    return assemble(found, content, known)


def head_kind(heads: Mapping[str, Any]) -> str:
    """'hamnet', 'light_ham', 'upernet', 'semantic_fpn', or 'unknown', by the keys of the decode head."""
    return next((kind for kind, pattern in HEAD_KEYS.items() if any_key(heads, pattern)), "unknown")


def _lineage(kind: str, version_1: bool) -> dict[str, Any]:
    rule: dict[str, Any] = {"layer_norm_eps": 1e-5 if kind == "upernet" or version_1 else 1e-6}
    return rule | ({"strides": HAMNET_STRIDES} if kind == "hamnet" else {})


def _told(config: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's fields in the training configuration."""
    kind = at(config, "model", "backbone", "type")
    strides = at(config, "model", "backbone", "strides")
    told: dict[str, Any] = {}
    if isinstance(kind, str) and kind.startswith("van_"):
        told["layer_norm_eps"] = 1e-6
    elif isinstance(kind, str) and kind.split(".")[-1] == "VAN":
        told["layer_norm_eps"] = 1e-5
    if isinstance(strides, list | tuple) and all(isinstance(stride, int) for stride in strides):
        told["strides"] = tuple(strides)
    return told


def _left_out(heads: Mapping[str, Any]) -> str:
    parts = sorted({key.split(".")[0] for key in heads})
    return f"{len(heads)} tensors of the segmentation heads ({', '.join(parts)}) are no part of the backbone: left out"


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; a segmenter has no classifier, so its head stays behind."""
    arrays: Arrays = {key: array for key, array in checkpoint.arrays.items() if not key.startswith("head.")}
    backbone = replace(checkpoint, config=checkpoint.config.with_options(num_classes=0), classes=None)
    openmmlab.write(backbone, path, keys.MMSEG, arrays, checkpoint.extra if checkpoint.format == "mmseg" else {})
    lost = beyond_original(checkpoint, "mmsegmentation's code", "patch_sizes")
    if checkpoint.config.num_classes:
        lost.insert(0, f"the classifier of {checkpoint.config.num_classes} classes: a segmenter's file has none")
    return lost
