"""List the models this package knows.

Detectors (retinanet_…, mask_rcnn_…) can be created from Python only; the other verbs do not take them yet.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError


def add_arguments(parser: Any) -> None:
    """Options of `van list`."""
    parser.add_argument("pattern", nargs="?", default="*", help="shell-style pattern, e.g. 'van_b*'")


def run(options: Any) -> None:
    """Print one name a line."""
    from ..models import list_models

    names = list_models(options.pattern)
    if not names:
        raise ConfigError(f"no model matches {options.pattern!r}; try van list without a pattern")
    print("\n".join(names))
