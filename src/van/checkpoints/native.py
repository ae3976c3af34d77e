"""Our own format: safetensors whose metadata holds configuration, classes, preprocessing and provenance as JSON.

Also read: bare safetensors or torch files with our keys, and the checkpoints of our training runs (see `training`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..configs.head_config import SECTIONS
from ..configs.model_config import BACKBONE
from ..errors import CheckpointError
from ..files import parse_json
from . import head_keys, training
from .checkpoint import Checkpoint, Content
from .detector_layout import identify
from .files import write_safetensors
from .limits import extra_tensors
from .reading import RECORD, ParsedCheckpoint, any_key, assemble, describe, majority_match, states_of, stripped

_KEYS = r"(model\.)?(_orig_mod\.)?backbone\.(backbone\.)?stages\.\d+\."


def fields() -> tuple[str, ...]:
    """Entries of our record that lie in the metadata, one text of JSON each."""
    return (BACKBONE, *SECTIONS, "classes", "palette", "preprocess", "provenance")


def detect(content: Content) -> bool:
    """Our record, or our keys, bare or under `state_dict`: a head may have more of them than the backbone."""
    states = states_of(content.tree, "state_dict").values()
    if content.metadata.get("format") == "van" and any(any_key(state, _KEYS) for state in states):
        return True
    return training.detect(content.tree) or any(majority_match(state, _KEYS) for state in states)


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if training.detect(content.tree):
        return assemble(training.found(content, ema=ema), content, known)
    record = _record(content)
    if ema and not _averaged(record):
        raise CheckpointError(f"{content.path} holds no averaged weights; leave ema out")
    state = next(iter(states_of(content.tree, "state_dict").values()))
    found = ParsedCheckpoint(format="van", state=stripped(state, "model.", "_orig_mod."), table=head_keys.NATIVE)
    found.record = record
    if record is None:
        found = identify(found)
    return assemble(found, content, known)


def _averaged(record: Any) -> bool:
    """Whether the weights are averaged ones, as those that a training with EMA leaves."""
    provenance = record.get("provenance") if isinstance(record, Mapping) else None
    return isinstance(provenance, Mapping) and provenance.get("averaged") is True


def _record(content: Content) -> Any:
    if content.container == "safetensors":
        if "config" not in content.metadata:
            return None
        try:
            return {name: parse_json(content.metadata[name]) for name in fields() if name in content.metadata}
        except ValueError as error:
            raise CheckpointError(f"{content.path}: its metadata is not valid JSON: {error}") from error
    record = content.tree.get(RECORD)
    beside = content.tree.get("hyper_parameters")
    return beside.get(RECORD) if record is None and isinstance(beside, Mapping) else record


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; every field has a place."""
    record = describe(checkpoint)
    metadata = {"format": "van", "version": str(record["version"])}
    metadata |= {name: json.dumps(record[name]) for name in fields() if name in record}
    write_safetensors(path, checkpoint.arrays, metadata)
    return extra_tensors(checkpoint)
