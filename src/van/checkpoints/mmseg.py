"""mmsegmentation's segmenters with a VAN backbone, or their backbone alone where the head is not supported.

LayerNorm's epsilon and the strides come from the configuration in `meta`, else from the kind of head: files of
2022-03 (backbones `van_tiny` …; Ham, HamNet, Semantic FPN) have 1e-6, those of 2022-07 and of mmsegmentation 1.x
(backbone `VAN`; UperNet) 1e-5. The rank of a Hamburger is `MD_R` of that configuration; see `head_layout.config_of`.
mmsegmentation 1.x also published the backbones that its segmenters start from: the same keys without `backbone.`.
Sources: VAN-Segmentation at both dates; mmsegmentation 1.x `projects/van`, and files that it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..images.preprocess import IMAGENET
from . import head_keys, keys, openmmlab
from .checkpoint import Arrays, Checkpoint, Content
from .limits import beyond_original
from .python_config import at
from .reading import RECORD, ParsedCheckpoint, any_key, assemble, majority_match

_KEYS = r"backbone\.(patch_embed\d+\.proj|block\d+\.\d+)\."
HEADS = r"(neck|decode_head|auxiliary_head)\."
_BACKBONE_KEYS = r"(patch_embed\d+\.proj|block\d+\.\d+)\."
_INNER = r"(backbone\.)?block\d+\.\d+\.mlp\.dwconv\.dwconv\."
_NO_INNER = r"(backbone\.)?block\d+\.\d+\.mlp\.dwconv\.(weight|bias)"
HAMNET_STRIDES = (4, 2, 1, 1)

# Key of the provenance for the generation of the file's keys, in which it is written again.
GENERATION, VERSION_1, BACKBONE_1 = "key_generation", "mmseg 1.x", "mmseg 1.x backbone"
LAYOUTS = {VERSION_1: "mmsegmentation 1.x projects/van", BACKBONE_1: "mmsegmentation 1.x projects/van, a backbone file"}


def detect(content: Content) -> bool:
    """Official keys under `backbone.`, or those of a backbone file."""
    if not isinstance(content.tree, Mapping):
        return False
    state = openmmlab.state_of(content)
    return majority_match({key: None for key in state if not re.match(HEADS, key)}, _KEYS) or _is_backbone(state)


def _is_backbone(state: Mapping[str, Any]) -> bool:
    """Whether the keys are those of a backbone file, which differ from the official ones in a level alone."""
    return majority_match(state, _BACKBONE_KEYS) and _is_version_1(state)


def _is_version_1(state: Mapping[str, Any]) -> bool:
    return any_key(state, _NO_INNER) and not any_key(state, _INNER)


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        openmmlab.refuse_ema(content)
    state, meta = openmmlab.state_of(content), openmmlab.meta_of(content)
    heads = {key: array for key, array in state.items() if re.match(HEADS, key)}
    method = head_keys.method_of(heads, ours=False)
    version_1, alone = _is_version_1(state), _is_backbone(state)
    config = openmmlab.config_of(meta)
    found = ParsedCheckpoint(
        format="mmseg",
        state={key: value for key, value in state.items() if method is not None or key not in heads},
        table=keys.ONE_LEVEL if alone else head_keys.mmseg(method, version_1=version_1),
        lineage=_lineage(method, version_1),
        metadata=_config_fields(config),
        head=_head_fields(config) if method is not None else {},
        statistics=IMAGENET,
    )
    found.provenance = openmmlab.provenance_of(content, "mmseg", meta)
    if version_1:
        found.provenance[GENERATION] = BACKBONE_1 if alone else VERSION_1
        found.provenance["layout"] = LAYOUTS[found.provenance[GENERATION]]
    if method is not None:
        found.classes, found.palette = openmmlab.classes_of(meta), openmmlab.palette_of(meta)
    elif heads:
        found.extra = {key: array for key, array in heads.items() if isinstance(array, np.ndarray)}
        found.provenance |= {"head": "unknown", "head_classes": openmmlab.classes_of(meta)}
        found.notes.append(_left_out(heads))
    found.record = meta.get(RECORD)
    return assemble(found, content, known)


def _lineage(method: str | None, version_1: bool) -> dict[str, Any]:
    rule: dict[str, Any] = {"layer_norm_eps": 1e-5 if method == "upernet" or version_1 else 1e-6}
    return rule | ({"strides": HAMNET_STRIDES} if method == "hamnet" else {})


def _config_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's fields in the training configuration."""
    kind = at(config, "model", "backbone", "type")
    strides = at(config, "model", "backbone", "strides")
    stated: dict[str, Any] = {}
    if isinstance(kind, str) and kind.startswith("van_"):
        stated["layer_norm_eps"] = 1e-6
    elif isinstance(kind, str) and kind.split(".")[-1] == "VAN":
        stated["layer_norm_eps"] = 1e-5
    if isinstance(strides, list | tuple) and all(isinstance(stride, int) for stride in strides):
        stated["strides"] = tuple(strides)
    return stated


def _head_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The head's fields in the training configuration that no shape shows."""
    rank = at(config, "model", "decode_head", "ham_kwargs", "MD_R")
    dropout = at(config, "model", "decode_head", "dropout_ratio")
    stated: dict[str, Any] = {"ham_rank": rank} if type(rank) is int and rank > 0 else {}
    return stated | ({"drop_rate": dropout} if type(dropout) is float and 0 <= dropout < 1 else {})


def _left_out(heads: Mapping[str, Any]) -> str:
    parts = sorted({key.split(".")[0] for key in heads})
    return (
        f"{len(heads)} tensors of heads that van does not have ({', '.join(parts)}) are left out; "
        "the backbone alone is read"
    )


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; a classifier's head stays behind, and so do the bases of a Hamburger."""
    method = head_keys.method_of(checkpoint.arrays, ours=True)
    left = (head_keys.BASES,) if method is not None else ("head.weight", "head.bias")
    arrays: Arrays = {key: array for key, array in checkpoint.arrays.items() if key not in left}
    without = checkpoint if method is not None else _headless(checkpoint)
    generation = checkpoint.provenance.get(GENERATION)
    alone = generation == BACKBONE_1 and method is None
    table = keys.ONE_LEVEL if alone else head_keys.mmseg(method, version_1=generation in LAYOUTS)
    openmmlab.write(without, path, table, arrays, checkpoint.extra if checkpoint.format == "mmseg" else {})
    lost = beyond_original(checkpoint, "mmsegmentation's code", "patch_sizes")
    if method is None and checkpoint.num_classes:
        lost.insert(0, f"the classifier of {checkpoint.num_classes} classes: a segmenter's file has none")
    return lost


def _headless(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, config=checkpoint.backbone, classes=None)
