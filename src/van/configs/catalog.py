"""Every model by its name: classifiers, segmenters, detectors, and their aliases."""

from __future__ import annotations

import fnmatch
from typing import Any

from ..errors import UnknownNameError
from . import backbone, detector, segmenter
from .model_config import ModelConfig

MODELS: dict[str, ModelConfig] = {**backbone.VARIANTS, **segmenter.SEGMENTERS, **detector.DETECTORS}
ALIASES: dict[str, str] = {**backbone.ALIASES, **segmenter.ALIASES}


def list_models(pattern: str = "*") -> list[str]:
    """Classifiers, segmenters and detectors that match a shell-style pattern; aliases when nothing else does.

    Detectors ("retinanet_…", "mask_rcnn_…") can be created only: torchvision's tools train and run them, and this
    package neither writes nor reads their files yet.
    """
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


def why_created_only(model: Any) -> str:
    """Why a model, or the model of a name, can be created and nothing else yet; "" for all others.

    Anything may be asked about.
    """
    config = getattr(model, "config", None)
    if isinstance(model, str):
        try:
            config = MODELS[resolve(model)]
        except UnknownNameError:
            return ""
    if not isinstance(config, ModelConfig) or not config.created_only:
        return ""
    name = model if isinstance(model, str) else f"this {type(model).__name__}"
    return f"{name} is a {config.noun}: {config.created_only}"
