"""The checkpoints of our own training runs: best.ckpt, last.ckpt and those of the history.

Keys lie under `state_dict`, with `model.` before the network's and `ema.module.` before those of its average. What no
tensor shows is in our record under `van`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from . import head_keys
from .checkpoint import Content
from .reading import RECORD, ParsedCheckpoint, stripped

RECIPE = "van_recipe"  # an entry that training writes
MODEL, AVERAGE = "model.", "ema.module."


def detect(tree: Any) -> bool:
    """Whether an unpickled object is a checkpoint of our training."""
    return isinstance(tree, Mapping) and RECIPE in tree and isinstance(tree.get("state_dict"), Mapping)


def found(content: Content, *, ema: bool) -> ParsedCheckpoint:
    """The network in training, with `ema` its average.

    Raises CheckpointError for an average that is not there, and for a file of an older version, which has no record.
    """
    tree = content.tree
    averaged = _below(tree["state_dict"], AVERAGE)
    if ema and not averaged:
        raise CheckpointError(f"{content.path} holds no averaged weights (trainer.ema_decay was off); leave ema out")
    state = averaged if ema else _below(tree["state_dict"], MODEL)
    stated = ParsedCheckpoint(format="van", state=stripped(state), table=head_keys.NATIVE)
    if averaged and not ema:
        stated.notes.append("these are the trained weights; the file also holds their average, which ema selects")
    record = tree.get(RECORD)
    if not isinstance(record, Mapping):
        raise CheckpointError(
            f"{content.path} was written by an older version and does not contain its network's epsilon and "
            "preprocessing; use the model.safetensors of its run (trainer.resume finishes one that was interrupted)"
        )
    stated.record = record
    return stated


def _below(state: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    return {str(key)[len(prefix) :]: value for key, value in state.items() if str(key).startswith(prefix)}
