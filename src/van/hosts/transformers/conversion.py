"""The names of weights in transformers' VAN files, and those in memory.

Files keep the original's names, so every published file loads and transformers 4 reads what is saved. In memory the
modules are this package's own, for one reason: there is one forward path, the one that is tested against the
originals, runs the fast primitives and folds for inference. transformers renames on the way in and out by a list of
patterns made here from the table that also converts checkpoints (checkpoints/keys.py).
"""

from __future__ import annotations

import re
from typing import Any

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from ...checkpoints import keys

_THEIRS = keys.COLUMNS.index("transformers")


def renamings() -> list[WeightRenaming]:
    """One pattern per row of the table, each a part of a name between dots, so that no two of them can meet."""
    pairs = [("encoder.stages.", "backbone.stages."), (".layers.", ".blocks.")]
    pairs += [(f".{row[_THEIRS]}.", f".{row[0]}.") for row in (*keys.STAGE_ROWS[:-1], *keys.BLOCK_ROWS)]
    pairs += [(f".{row[_THEIRS]}", f".{row[0]}") for row in keys.SCALE_ROWS]
    rules = [WeightRenaming(re.escape(theirs), re.escape(ours)) for theirs, ours in pairs]
    ours, theirs = keys.STAGE_ROWS[-1][0], keys.STAGE_ROWS[-1][_THEIRS]  # the stage's norm; blocks have norms as well
    stage = r"(stages\.\d+)\."
    return [*rules, WeightRenaming(f"{stage}{theirs}.", rf"{stage}{ours}.")]


def register() -> None:
    """Register with transformers how VAN's files are named."""
    register_checkpoint_conversion_mapping("van", renamings(), overwrite=True)


def translate_hook(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before `load_state_dict`: rename the original's keys in place; ours pass untouched."""
    rules = renamings()
    for key in [key for key in state_dict if key.startswith(prefix) and ".stages." in key]:
        name = key[len(prefix) :]
        for rule in rules:
            name, _ = rule.rename_source_key(name)
        state_dict[prefix + name] = state_dict.pop(key)
