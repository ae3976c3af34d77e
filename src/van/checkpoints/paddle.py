"""PaddleClas's `.pdparams`, read and written: a pickled dict of numpy arrays under the official names.

`paddle.save` of a state dict adds the entry `StructuredToParameterName@@`, from these keys to Paddle's own names of the
parameters. The statistics of a batch norm are `_mean` and `_variance`, layer scales (C, 1, 1), and the head's weight is
(in, out). LayerNorm's epsilon is 1e-6. Our own record is the text under `van`, which `set_state_dict` passes over.
Sources: ppcls/arch/backbone/model_zoo/van.py, its configurations, paddle/framework/io.py, and files that they wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..images.preprocess import OFFICIAL
from . import keys, pickled_arrays
from .checkpoint import Checkpoint, Content
from .limits import ReadBack, beyond_original, extra_tensors, no_counters
from .reading import COUNTER, RECORD, ParsedCheckpoint, any_key, assemble, describe, majority_match, parse_record

LINEAGE = {"layer_norm_eps": 1e-6}
LAYOUT = "PaddleClas (PaddlePaddle's .pdparams)"
SUFFIX = ".pdparams"
NAMES = "StructuredToParameterName@@"
_KEYS = r"(patch_embed|block|norm)\d+\."
_LEAVES = {"running_mean": "_mean", "running_var": "_variance"}
_SCALE = re.compile(r".*\.layer_scale_[12]")


def detect(content: Content) -> bool:
    """A pickle of arrays with Paddle's own names in it."""
    tree = content.tree
    if content.container != "pickle" or not majority_match(tree, _KEYS):
        return False
    return NAMES in tree or any_key(tree, r".*\._(mean|variance)$")


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        raise CheckpointError(
            f"{content.path} has no averaged weights of its own: PaddleClas saves them as the ordinary ones, and the "
            "trained ones as .pdema; leave ema out"
        )
    state = {key: _to_ours(str(key), value) for key, value in content.tree.items() if key not in (NAMES, RECORD)}
    found = ParsedCheckpoint(format="paddle", state=state, table=PADDLE, lineage=LINEAGE, statistics=OFFICIAL)
    found.provenance = {"source": content.path.name, "format": "paddle", "layout": LAYOUT}
    found.record = parse_record(content.tree.get(RECORD), content.path)
    return assemble(found, content, known)


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; our record rides along as a text."""
    keys_of = {key: PADDLE.foreign(key) for key in checkpoint.arrays if not key.endswith(COUNTER)}
    tree: dict[str, Any] = {theirs: _to_theirs(theirs, checkpoint.arrays[key]) for key, theirs in keys_of.items()}
    tree[NAMES] = {key: key for key in tree}
    pickled_arrays.write(path, tree | {RECORD: json.dumps(describe(checkpoint, counters=True))})
    lost: list[str] = []
    if path.suffix != SUFFIX:
        lost.append(ReadBack(f"the name {path.name}: PaddleClas loads names that end in {SUFFIX}"))
    lost += no_counters(checkpoint, "PaddlePaddle")
    lost += beyond_original(checkpoint, "PaddleClas", "patch_sizes", "strides", layer_norm_eps=1e-6)
    return lost + extra_tensors(checkpoint)


@dataclass(frozen=True)
class PaddleTable(keys.KeyTable):
    """The official names with Paddle's for the statistics; it has no counters."""

    def canonical(self, key: str) -> str | None:
        module, dot, leaf = key.rpartition(".")
        theirs = {name: ours for ours, name in _LEAVES.items()}
        ours = super().canonical(f"{module}{dot}{theirs.get(leaf, leaf)}")
        return ours if ours and not ours.endswith(COUNTER) and self.foreign(ours) == key else None

    def foreign(self, key: str) -> str:
        module, dot, leaf = super().foreign(key).rpartition(".")
        return f"{module}{dot}{_LEAVES.get(leaf, leaf)}"


PADDLE = PaddleTable(keys.OFFICIAL.rows)


def _to_ours(key: str, value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if _SCALE.fullmatch(key) and value.shape[1:] == (1, 1):
        return value.reshape(-1)
    return np.ascontiguousarray(value.T) if key == "head.weight" and value.ndim == 2 else value


def _to_theirs(key: str, array: np.ndarray) -> np.ndarray:
    if _SCALE.fullmatch(key):
        return array.reshape(-1, 1, 1)
    return array.T if key == "head.weight" else array
