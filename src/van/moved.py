"""Import paths of earlier versions: each gives the module that took its place, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

# module as it was called -> as it is called now; their submodules follow unless they stand here themselves.
MOVED = {
    "van.bench": "van.tools.bench",
    "van.complexity": "van.tools.complexity",
    "van.detectors": "van.configs.object_config",
    "van.doctor": "van.tools.doctor",
    "van.dtypes": "van.nn.dtypes",
    "van.engines": "van.inference",
    "van.evaluate": "van.inference.evaluate",
    "van.hub": "van.checkpoints.hub",
    "van.masks": "van.images.label_maps",
    "van.predict": "van.inference.predictor",
    "van.preprocess": "van.images.preprocess",
    "van.quickstart": "van.tools.quickstart",
    "van.resize": "van.images.resize",
    "van.segment": "van.tasks.segmentation.views",
    "van.segmenters": "van.configs.segmenter",
    "van.variants": "van.configs.backbone",
    "van.weights": "van.configs.published_weights",
}
# Still the way to import these: `van.evaluate` is a public name.
_KEPT = ("van.evaluate",)


class _Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in MOVED:
            return None
        return ModuleSpec(name, _Alias(MOVED[name]))  # type: ignore[arg-type]


class _Alias:
    """Gives an existing module under its earlier name; both names stand for one module."""

    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name not in _KEPT:
            warnings.warn(f"{spec.name} is {self.target} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(self.target)
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own  # importlib has just put the alias's there

    def get_code(self, name: str) -> CodeType:
        """What `python -m` runs."""
        code = f"import runpy; runpy.run_module({self.target!r}, run_name='__main__', alter_sys=True)"
        return compile(code, f"<{self.target}>", "exec")


def install() -> None:
    """Let the earlier paths be imported; does nothing the second time."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
