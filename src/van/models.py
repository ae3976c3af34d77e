"""The join of names, configurations, modules and files: what users of the package call."""

from __future__ import annotations

import fnmatch
from typing import Any

import torch

from .nn import Classifier
from .variants import ALIASES, VARIANTS, resolve


def list_models(pattern: str = "*") -> list[str]:
    """Known model names that match a shell-style pattern, aliases included when they match by name."""
    names = [*VARIANTS, *(ALIASES if pattern != "*" else ())]
    return [name for name in names if fnmatch.fnmatch(name, pattern)]


def create_model(name: str = "van_b0", *, seed: int | None = None, **options: Any) -> Classifier:
    """A network with fresh weights, in training mode: a plain torch.nn.Module.

    name: a variant or alias of `list_models()`; options: fields of VanConfig that differ from it
    (`num_classes=10`, `embed_dims=(8, 16, 32, 64)`, `attention="sigmoid"`, …).
    seed: of the initial weights; None draws from torch's global generator.
    Raises UnknownNameError for a name or option that does not exist, ConfigError for impossible values.
    """
    config = VARIANTS[resolve(name)].with_options(**options)
    model = Classifier(config)
    if seed is not None:
        generator = torch.Generator(device=torch.get_default_device()).manual_seed(seed)
        model.backbone.reset_parameters(generator)
        model.reset_classifier(config.num_classes, generator)
    return model
