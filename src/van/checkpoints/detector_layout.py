"""Which detector the tensors of a bare state dict are of: shapes alone, no torch. Those of version 0.1 among them.

Letters: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..configs.mask_rcnn import MASK_RCNNS
from ..configs.object_config import ObjectConfig
from ..configs.older_detectors import present_key
from ..configs.retinanet import HEAD_CONVS, RETINANETS, RetinaNetConfig
from ..errors import CheckpointError, ConfigError
from . import layout
from .layout import vote
from .reading import ParsedCheckpoint

_CLASSES = "head.classification_head.cls_logits"
_PLACES = 9  # anchors per place of RetinaNet


def identify(found: ParsedCheckpoint) -> ParsedCheckpoint:
    """What was found, with the configuration of its detector where its tensors are one's; else as it is.

    Raises CheckpointError for tensors of a detector that fit none.
    """
    state = {present_key(key): array for key, array in found.state.items()}
    older = state.keys() != found.state.keys()
    shapes = {key: tuple(np.shape(array)) for key, array in state.items()}
    method = _method(shapes)
    if method is None:
        return found
    if older and method == "retinanet":
        state = _without_background(state, shapes)
        shapes = {key: tuple(np.shape(array)) for key, array in state.items()}
    trunk = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items() if key.startswith("backbone.")}
    backbone, _ = layout.config_of(trunk)
    default: Any = {**RETINANETS, **MASK_RCNNS}[f"{method}_van_b0"]
    try:
        config = default.with_options(backbone=backbone.with_options(num_classes=0), **_sizes(default, shapes))
    except ConfigError as error:
        raise CheckpointError(f"the heads in the file fit no detector: {error!s}") from error
    note = (
        f"the file does not contain the sizes of images and anchors that its {config.method} works with; the usual ones"
        " are used unless you give min_size, max_size, smallest_anchor"
    )
    return replace(found, state=state, declared=config, metadata=backbone.to_dict(), notes=[*found.notes, note])


def _method(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if "pyramid.laterals.0.weight" not in shapes:
        return None
    if any(key.startswith("roi_heads.stages.") for key in shapes):
        return "cascade_mask_rcnn"
    if any(key.startswith("roi_heads.") for key in shapes):
        return "mask_rcnn"
    if f"{_CLASSES}.weight" not in shapes:
        return None
    if "head.scales" not in shapes:
        return "retinanet"
    return "atss" if "head.centerness.weight" in shapes else "gfl"


def _without_background(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """RetinaNet's classifier had a column for the background, to which nothing was ever assigned."""
    changed = dict(state)
    for key in (f"{_CLASSES}.weight", f"{_CLASSES}.bias"):
        if key in shapes and shapes[key][0] % _PLACES == 0:
            rows = np.asarray(state[key]).reshape(_PLACES, -1, *shapes[key][1:])
            changed[key] = np.ascontiguousarray(rows[:, 1:]).reshape(-1, *shapes[key][1:])
    return changed


def _sizes(default: ObjectConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Fields of a detector's own that shapes show."""
    found = dict(shapes)
    own: dict[str, Any] = {"channels": vote(found, r"pyramid\.(laterals|outputs)\.\d+\.bias", 0, 0)}
    if isinstance(default, RetinaNetConfig):
        places = _PLACES if default.assignment == "iou" else 1
        rows = vote(found, rf"{_CLASSES}\.(weight|bias)", 0, 0)
        towers = [key for key in found if key.startswith("head.classification_head.conv.") and key.endswith("0.weight")]
        return own | {"num_classes": rows // places, "head_convs": min(len(towers), HEAD_CONVS)}
    own["num_classes"] = vote(found, r"roi_heads\.(.*\.)?cls_score\.bias", 0, 1) - 1
    own["hidden_channels"] = vote(found, r"roi_heads\.(.*\.)?fc[67]\.bias", 0, 0)
    own["mask_channels"] = vote(found, r"roi_heads\.(.*\.)?mask_head\.\d\.0\.bias", 0, 0)
    stages = {key.split(".")[2] for key in found if key.startswith("roi_heads.stages.")}
    if stages and len(stages) != len(getattr(default, "stage_ious", ())):
        count = len(stages)
        raise CheckpointError(f"the file has {count} stages of heads, and does not contain their overlaps; expected 3")
    return own
