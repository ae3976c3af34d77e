"""Where a checkpoint is: a path, a repository of the hub, a row of the table of published weights."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configs import published_weights as weights
from ..configs.published_weights import Weight
from ..configs.segmenter import resolve
from ..errors import CheckpointError, ConfigError, UnknownNameError, VanNotice
from ..files import why_no_path

LOCAL = "local-dir:"  # before a folder, as timm spells it


@dataclass(frozen=True, kw_only=True)
class Found:
    """The file or folder of a source; facts: where it came from; row: the published weights that it is."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    row: Weight | None = None


def find(source: str | Path, *, revision: str | None = None, pretrained: bool = False) -> Found:
    """The file or folder of a source, downloaded where it is not on this machine.

    source: a path; the name of published weights ("official/van_b0"); a hub id as `hub.reference` reads it.
    revision: of a hub id. pretrained: `source` is the name of a model instead, whose published weights are meant.
    Warns with VanNotice about published weights: what they are, and from where.
    Raises CheckpointError for what cannot be had, ConfigError for options that do not go with the source, and for a
    source of another type.
    """
    source = _text(source)
    if reason := why_no_path(source):
        raise CheckpointError(f"{str(source)!r} {reason}; expected a checkpoint file, a folder or a hub id")
    there = not pretrained and _exists(source)
    row = weights.pretrained(_model(str(source))) if pretrained else None if there else weights.by_name(str(source))
    if row is not None and revision is None:
        from . import hub  # the hub's client is slow to import, and a path needs none

        warnings.warn(f"{source}: {_about(row)}", VanNotice, stacklevel=4)
        facts = {"source": row.source} | ({"revision": row.revision} if row.revision else {})
        return Found(path=hub.fetch_weight(row), facts=facts, row=row)
    if not there and row is None:
        from . import hub

        if hub.is_hub_id(source):
            named = hub.reference(str(source))
            path = hub.download(str(source), revision=revision)
            facts = {"source": named.repo, "revision": revision or named.revision, "file": named.file}
            known = {name: value for name, value in facts.items() if value}
            return Found(path=path, facts=known, row=weights.by_hub_id(named.repo))
    if revision is not None:
        raise ConfigError(f"revision={revision!r} is for hub ids; {source} is a {'path' if row is None else 'name'}")
    if not there:
        _refuse(str(source))
    return Found(path=Path(source))


def _text(source: Any) -> str | Path:
    """A source as a path or text; timm's `local-dir:folder` is a path as well."""
    if isinstance(source, str | bytes | os.PathLike):
        path = os.fsdecode(source)
        if path.startswith(LOCAL) and not _exists(path):
            return path.removeprefix(LOCAL)
        return source if isinstance(source, str | Path) else path
    raise ConfigError(
        f"got a {type(source).__name__}; expected a path, a hub id or the name of published weights (load weights "
        "in memory with load_state_dict into a model from van.create_model)"
    )


def _exists(source: str | Path) -> bool:
    try:
        return Path(source).exists()
    except OSError:  # a name that is too long
        return False


def _model(name: str) -> str:
    """The model of a name, of a model or of published weights; raises ConfigError for any other."""
    try:
        return resolve(name)
    except UnknownNameError:
        if (row := weights.by_name(name)) is not None:
            return row.model
        raise ConfigError(f"pretrained needs the name of a model, e.g. 'van_b0'; got {name!r}") from None


def _about(row: Weight) -> str:
    """What published weights are, in one line."""
    score = f", {row.scores} ({row.score_from})" if row.scores else ""
    where = row.source or "a file of your own"
    return f"the published weights {row.name} from {where}: {row.dataset}{score}; licence: {row.licence}"


def _refuse(source: str) -> None:
    """Raise CheckpointError for what is known to be no path: a link to another site, a model's name."""
    if "://" in source:
        raise CheckpointError(
            f"{source} is a link, which is not followed; download the file and give its path (only links to "
            "models on huggingface.co are followed)"
        )
    try:
        name = resolve(source)
    except UnknownNameError:
        return
    rows = [row.name for row in weights.WEIGHTS if row.model == name]
    published = (
        f"published weights have names of their own ({', '.join(rows)}), van.load({source!r}, pretrained=True) "
        "downloads the default ones, "
        if rows
        else ""
    )
    raise CheckpointError(
        f"{source!r} is a model's name, and there is no file or folder of that name; {published}"
        f"van.create_model({source!r}) creates it with random weights"
    )
