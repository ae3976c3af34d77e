"""Every model by its name, whatever its task, and their aliases."""

from __future__ import annotations

import fnmatch

from ..errors import UnknownNameError
from . import backbone, segmenter
from .dfine import DFINES
from .mask2former import INSTANCE_MASK2FORMERS, PANOPTIC_MASK2FORMERS
from .mask_rcnn import MASK_RCNNS
from .model_config import ModelConfig
from .object_config import ObjectConfig
from .retinanet import RETINANETS

OBJECT_MODELS: dict[str, ObjectConfig] = {
    **RETINANETS,
    **DFINES,
    **MASK_RCNNS,
    **INSTANCE_MASK2FORMERS,
    **PANOPTIC_MASK2FORMERS,
}
MODELS: dict[str, ModelConfig] = {**backbone.VARIANTS, **segmenter.SEGMENTERS, **OBJECT_MODELS}
ALIASES: dict[str, str] = {**backbone.ALIASES, **segmenter.ALIASES}


def list_models(pattern: str = "*") -> list[str]:
    """Models that match a shell-style pattern, of every task; aliases when nothing else does."""
    for names in (MODELS, ALIASES):
        if found := [name for name in names if fnmatch.fnmatch(name, pattern)]:
            return found
    return []


def resolve(name: str) -> str:
    """Canonical name of a model (aliases and dashes allowed); raises UnknownNameError."""
    key = name.lower().replace("-", "_")
    key = ALIASES.get(key, key)
    for alias, variant in backbone.ALIASES.items():  # of detectors, which have no table of aliases
        key = f"{key.removesuffix(alias)}{variant}" if key not in MODELS and key.endswith(f"_{alias}") else key
    if key not in MODELS:
        raise UnknownNameError.of("model", name, [*MODELS, *ALIASES])
    return key
