"""Visual Attention Network (arXiv 2202.09741) on today's stack.

Importing this module imports nothing heavy: every public name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import moved

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .configs.backbone import VanConfig
    from .errors import VanError, VanNotice
    from .exporting import export, quantize
    from .hosts import register
    from .inference.embed import embed
    from .inference.evaluate import evaluate
    from .inference.predictor import Predictor
    from .models import convert, create_model, info, list_models, load, optimize, save
    from .tools.explain import explain
    from .train import train

# Where each public name lives.
_HOMES = {
    "VanConfig": "configs.backbone",
    "VanError": "errors",
    "VanNotice": "errors",
    "Predictor": "inference.predictor",
    "convert": "models",
    "create_model": "models",
    "embed": "inference.embed",
    "explain": "tools.explain",
    "export": "exporting",
    "info": "models",
    "list_models": "configs.catalog",
    "load": "models",
    "optimize": "models",
    "quantize": "exporting",
    "register": "hosts",
    "save": "models",
}

# Modules that can be called: `van.evaluate(…)`, and `from van.evaluate import evaluate` as well.
_CALLABLE_MODULES = ("evaluate", "train")

__all__ = [
    "Predictor",
    "VanConfig",
    "VanError",
    "VanNotice",
    "convert",
    "create_model",
    "embed",
    "evaluate",
    "explain",
    "export",
    "info",
    "list_models",
    "load",
    "optimize",
    "quantize",
    "register",
    "save",
    "train",
]


moved.install()


def __getattr__(name: str) -> Any:
    if name in _CALLABLE_MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'van' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
