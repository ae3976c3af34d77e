"""What a checkpoint file is, or what a model costs: `van info FILE`, `van info org/name`, `van info van_b0`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError
from ..variants import ALIASES, VARIANTS, resolve


def add_arguments(parser: Any) -> None:
    """Options of `van info`."""
    parser.add_argument("target", help="a checkpoint file or folder, a hub id (org/name), or a model name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ema", action="store_true", help="checkpoint: look at the averaged weights")
    parser.add_argument("--revision", help="checkpoint: branch, tag or commit of a hub id")
    parser.add_argument("--size", type=int, nargs="+", default=[224], help="model: side of the image, or its H and W")


def run(options: Any) -> None:
    """Print what the target is."""
    if is_model_name(options.target):
        _model(options)
    else:
        _checkpoint(options)


def is_model_name(target: str) -> bool:
    """Whether the target is a model rather than a file; raises UnknownNameError where it is likely a misspelt model."""
    if Path(target).exists():
        return False
    try:
        resolve(target)
    except UnknownNameError:
        if target.startswith("van") and not Path(target).suffix and "/" not in target:
            raise UnknownNameError.of("model or file", target, [*VARIANTS, *ALIASES]) from None
        return False
    return True


def _checkpoint(options: Any) -> None:
    from ..models import info

    told = info(options.target, ema=options.ema, revision=options.revision)
    print(json.dumps(told.to_dict(), indent=2) if options.json else told)


def _model(options: Any) -> None:
    from ..complexity import describe

    told = describe(options.target, size=options.size)
    if options.json:
        print(json.dumps(told.to_dict(), indent=2))
        return
    from rich.table import Table

    from .output import print_table

    table = Table(
        "layer", "output", "parameters", "multiply-adds", title=f"{told.name} at {told.size[0]}x{told.size[1]}"
    )
    for layer in told.layers:
        table.add_row(layer.name, " x ".join(map(str, layer.shape)), f"{layer.parameters:,}", f"{layer.macs:,}")
    print_table(table)
    print(f"{told.parameters:,} parameters, {told.macs / 1e9:.3f} G multiply-adds")
