"""Every published weight file known by name: where it is, whose it is, how it scores. Pure data, stdlib only.

The rows are in `published_rows`, one publisher after the other, and say what the publishers state. `published_facts`
holds what `van verify-weights` found in the files.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import replace

from ..errors import ConfigError, UnknownNameError
from .published_facts import FACTS
from .published_rows import CONTACT as CONTACT
from .published_rows import ROWS
from .published_rows import SMOKE as SMOKE
from .weight import Weight as Weight

WEIGHTS: tuple[Weight, ...] = tuple(replace(row, **FACTS[row.name]) if row.name in FACTS else row for row in ROWS)


def find(pattern: str = "*") -> list[Weight]:
    """Rows whose name, model, hub repository or file name match a shell-style pattern, upper and lower case alike.

    A pattern without wildcards also matches a part: "openmmlab", "van_b0", "van-tiny".
    Raises UnknownNameError when nothing matches.
    """
    wanted = pattern.lower()
    if not any(sign in wanted for sign in "*?["):
        exact = [row for row in WEIGHTS if wanted in _names(row)]
        if exact:
            return exact
        wanted = f"*{wanted}*"
    rows = [row for row in WEIGHTS if any(fnmatch.fnmatchcase(name, wanted) for name in _names(row))]
    if not rows:
        raise UnknownNameError.of("published weight", pattern, [row.name for row in WEIGHTS])
    return rows


def by_name(name: str) -> Weight | None:
    """The row of this name, upper and lower case alike; None for a name that is not in the table."""
    return next((row for row in WEIGHTS if row.name == name.lower()), None)


def pretrained(model: str) -> Weight:
    """The default row of a model: of ImageNet-1K or ADE20K, one that can be downloaded before one that cannot.

    Raises ConfigError for a model without one.
    """
    rows = [row for row in WEIGHTS if row.model == model]
    fitting = [row for row in rows if row.dataset in ("in1k", "ade20k") and row.num_classes != 0]
    if fitting:
        return min(fitting, key=lambda row: ("hub", "url", "google-drive", "unlinked").index(row.kind))
    others = f"; others have names: {', '.join(row.name for row in rows)}" if rows else ""
    raise ConfigError(f"no weights of {model} for ImageNet-1K or ADE20K were published{others}")


def by_hub_id(repo: str) -> Weight | None:
    """The row of a hub repository, upper and lower case alike; None for a repository that is not in the table."""
    return next((row for row in WEIGHTS if row.repo and row.repo.lower() == repo.lower()), None)


def by_filename(filename: str) -> Weight | None:
    """The row of a file as its publisher named it; None for a name that is not in the table or is there twice."""
    rows = [row for row in WEIGHTS if row.filename == filename]
    return rows[0] if len(rows) == 1 else None


def markdown(rows: Iterable[Weight] | None = None) -> str:
    """The rows (all by default) as a Markdown table."""
    lines = ["| weight | model | format | trained on | score | licence | file |", "|---|---|---|---|---|---|---|"]
    for row in WEIGHTS if rows is None else rows:
        cells = (row.name, row.model, row.format, row.dataset, row.scores, row.licence, row.source or "not published")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _names(row: Weight) -> set[str]:
    names = (row.name, row.model, row.repo, row.filename)
    return {name.lower() for name in names if name}
