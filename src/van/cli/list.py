"""List the models this package knows, or with --weights the published weights."""

from __future__ import annotations

import json
from typing import Any

from ..configs.catalog import list_models
from ..errors import ConfigError


def add_arguments(parser: Any) -> None:
    """Options of `van list`."""
    parser.add_argument("pattern", nargs="?", default="*", help="shell-style pattern, e.g. 'van_b*'")
    parser.add_argument(
        "--weights", action="store_true", help="published weights instead: names, scores, licences, where they are"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: Any) -> None:
    """Print one name a line, or the table of weights."""
    if options.weights:
        _weights(options)
        return
    names = list_models(options.pattern)
    if not names:
        raise ConfigError(f"no model matches {options.pattern!r}; try van list without a pattern")
    print(json.dumps(names, indent=2) if options.json else "\n".join(names))


def _weights(options: Any) -> None:
    from dataclasses import asdict

    from ..configs.published_weights import find

    rows = find(options.pattern)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    from rich.table import Table

    from .output import print_table

    table = Table(box=None, pad_edge=False)
    table.add_column("weights", no_wrap=True)
    for word in ("trained on", "score %", "licence", "where"):
        table.add_column(word, overflow="fold")
    for row in rows:
        table.add_row(row.name, row.dataset, row.scores, row.licence, row.source or "not published")
    print_table(table)
