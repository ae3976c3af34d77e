"""jax-models' `.weights`, the Flax port, read and written: MessagePack of the two collections of a Flax module.

`params/…` holds what is trained and `batch_stats/…` the statistics, both under the official names as nested maps:
blocks are `block{i}{j}` without a dot (`block310` is the eleventh of stage 3), the feed-forward depthwise convolution
has no inner level, kernels are (kh, kw, in, out), the head's (in, out), a norm has `scale`, `bias`, `mean` and `var`.
Before the release that published weights, the depthwise kernel was called `weights`; it is read as well. LayerNorm's
epsilon is 1e-6, Flax's default. The port's GELU is the tanh approximation, also Flax's default; here it is exact, as
the published weights were trained. Our own record is the text under `van`, which the port passes over.
Sources: jax_models/models/van.py and helper.py, flax/serialization.py, and files that they wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files import atomic_output
from ..images.preprocess import OFFICIAL
from . import keys, layout, msgpack
from .checkpoint import Checkpoint, Content
from .keras import from_keras
from .limits import ReadBack, beyond_original, extra_tensors, no_counters
from .reading import COUNTER, RECORD, ParsedCheckpoint, assemble, describe, majority_match, parse_record

LINEAGE = {"layer_norm_eps": 1e-6}
LAYOUT = "jax-models, the Flax port (MessagePack .weights)"
SUFFIX = ".weights"
COLLECTIONS = ("params", "batch_stats")
MOST_STAGES = 9  # the number of the block follows that of the stage without anything between
_KEYS = r"(params|batch_stats)/(patch_embed|block|norm)\d+/"
_STATISTICS = {"mean": "running_mean", "var": "running_var"}
_APPROXIMATE = "jax-models computes GELU by its tanh approximation, van exactly, as the weights were trained"


def detect(content: Content) -> bool:
    """The two collections, with a VAN's layers in them."""
    return content.container == "msgpack" and majority_match(_flat(content.tree), _KEYS)


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        raise CheckpointError(f"{content.path} holds no averaged weights (jax-models has none); leave ema out")
    state = {key: _to_ours(key, value) for key, value in _flat(content.tree).items() if key != RECORD}
    found = ParsedCheckpoint(format="flax", state=state, table=FLAX, lineage=LINEAGE, statistics=OFFICIAL)
    found.provenance = {"source": content.path.name, "format": "flax", "layout": LAYOUT}
    found.record = parse_record(content.tree.get(RECORD), content.path)
    if found.record is None:
        found.notes.append(_APPROXIMATE)
    return assemble(found, content, known)


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; our record rides along as a text. Raises CheckpointError beyond nine stages."""
    config = checkpoint.classifier
    if config.num_stages > MOST_STAGES:
        raise CheckpointError(
            f"the format flax can name at most {MOST_STAGES} stages, the network has {config.num_stages}; use van"
        )
    tree: dict[str, Any] = {name: {} for name in COLLECTIONS}
    for key in layout.shapes(config):
        if not key.endswith(COUNTER):
            *groups, leaf = FLAX.foreign(key).split("/")
            place = tree
            for group in groups:
                place = place.setdefault(group, {})
            place[leaf] = _to_theirs(checkpoint.arrays[key])
    tree[RECORD] = json.dumps(describe(checkpoint, counters=True))
    with atomic_output(path, error=CheckpointError) as temporary, temporary.open("wb") as file:
        file.writelines(msgpack.pieces(tree))
    lost: list[str] = []
    if path.suffix != SUFFIX:
        lost.append(ReadBack(f"the name {path.name}: jax-models publishes names that end in {SUFFIX}"))
    lost += no_counters(checkpoint, "Flax")
    lost += beyond_original(checkpoint, "jax-models", "patch_sizes", "strides", layer_norm_eps=1e-6)
    return lost + extra_tensors(checkpoint)


@dataclass(frozen=True)
class FlaxTable(keys.KeyTable):
    """Paths in the tree, `params/block10/attn/proj_1/kernel`."""

    def canonical(self, key: str) -> str | None:
        collection, _, path = key.partition("/")
        module, _, leaf = path.rpartition("/")
        theirs = _STATISTICS if collection == "batch_stats" else {"kernel": "weight", "scale": "weight"}
        official = f"{module}.{theirs.get(leaf, leaf)}".replace("/", ".")
        ours = super().canonical(re.sub(r"^block(\d)(\d+)", r"block\1.\2", official))
        return ours if ours and self.foreign(ours) == key else None

    def foreign(self, key: str) -> str:
        module, _, leaf = super().foreign(key).rpartition(".")
        path = re.sub(r"^block(\d)\.(\d+)", r"block\1\2", module).replace(".", "/")
        if statistic := {ours: theirs for theirs, ours in _STATISTICS.items()}.get(leaf):
            return f"batch_stats/{path}/{statistic}"
        if leaf == "weight":
            leaf = "scale" if re.search(r"norm\d?$", path) else "kernel"
        return f"params/{path}/{leaf}"


FLAX = FlaxTable(keys.ONE_LEVEL.rows)


def _flat(tree: Any) -> dict[str, Any]:
    """Path -> array of nested maps; what lies outside them keeps its name."""
    return dict(_walk(tree, "")) if isinstance(tree, Mapping) else {}


def _walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{name}/")
        else:
            spelled = "kernel" if prefix.endswith("/mlp/dwconv/") and name == "weights" else name
            yield f"{prefix}{spelled}", value


def _to_ours(key: str, value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.ndim not in (2, 4):
        return value
    ours = FLAX.canonical(key) or ""
    return from_keras("", value) if ours.endswith(".weight") else value


def _to_theirs(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array.T
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
