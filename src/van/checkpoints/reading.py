"""From what a format's reader found to a Checkpoint: keys translated, configuration settled, everything checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..configs.backbone import VanConfig
from ..configs.head_config import HeadConfig, from_record
from ..configs.metadata import Palette
from ..configs.model_config import BACKBONE, ModelConfig
from ..errors import CheckpointError, VanError
from ..files import parse_json
from ..images.preprocess import IMAGENET, RECORDS, Preprocess
from . import checked, head_layout, layout
from .checkpoint import Arrays, Checkpoint, Content
from .head_keys import BASES
from .keys import KeyTable
from .widened import Widened

_T = TypeVar("_T")

CLASSES_22K = 21841  # heads of ImageNet-22K pretraining
LINEAGE_22K = ("van_b4", "van_b5", "van_b6", "van_b6_480")  # published without a head after that pretraining
STRANGER = "?"  # before a key that a format does not have
WITH_AUXILIARY = ("hamnet", "upernet")  # as published
COUNTER = "num_batches_tracked"
RECORD = "van"  # key of our own record in formats that have room for it


@dataclass(kw_only=True)
class ParsedCheckpoint:
    """What a format's reader found in a file, its keys still the file's own.

    table: translates the keys. metadata: config fields that the file states. lineage: those its code base implies.
    head: fields of a segmenter's own that the file states. declared: the whole configuration, from our own record.
    classes, palette, preprocess: as the file states. statistics: the preprocessing of the lineage; None: that of
    the configuration.
    record: our own description, where we wrote the file; it overrules all of the above.
    extra: arrays that belong to no network of ours.
    counters: of the BatchNorms, from our record, for a file whose format has none; those that it leaves out are 0.
    """

    format: str
    state: Mapping[str, Any]
    table: KeyTable
    metadata: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    declared: ModelConfig | None = None
    classes: tuple[str, ...] | None = None
    palette: Palette | None = None
    preprocess: Preprocess | None = None
    statistics: Preprocess | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    record: Any = None
    notes: list[str] = field(default_factory=list)
    extra: Arrays = field(default_factory=dict)
    counters: dict[str, int] | None = None


def describe(checkpoint: Checkpoint, *, counters: bool = False) -> dict[str, Any]:
    """Our record of a checkpoint: plain JSON-ready values that any format can carry along.

    counters: with the BatchNorm counters that are not 0, for formats without a place for them.
    """
    more: dict[str, Any] = {}
    if checkpoint.palette is not None:
        more["palette"] = [list(color) for color in checkpoint.palette]
    if counters:
        more["counters"] = counters_of(checkpoint)
    return {
        "version": 1,
        "name": checkpoint.name,
        **checkpoint.config.to_record(),
        **more,
        "classes": list(checkpoint.classes) if checkpoint.classes is not None else None,
        "preprocess": checkpoint.preprocess.to_dict() if checkpoint.preprocess is not None else None,
        "provenance": dict(checkpoint.provenance),
    }


def counters_of(checkpoint: Checkpoint) -> dict[str, int]:
    """The BatchNorm counters that are not 0, by key."""
    return {key: int(array) for key, array in checkpoint.arrays.items() if key.endswith(COUNTER) and array}


def parse_record(text: Any, path: Path) -> Any:
    """Our record from its JSON text; None for nothing. Raises CheckpointError for any other text."""
    if text is None:
        return None
    try:
        return parse_json(text)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its entry {RECORD!r} is not valid JSON: {error}") from error


def apply_record(found: ParsedCheckpoint, record: Any) -> None:
    """Let our own record overrule what the format's rules found; raises CheckpointError when it is broken."""
    if not isinstance(record, Mapping):
        raise CheckpointError(f"the file's van record is a {type(record).__name__}; expected named values")
    try:
        found.declared = from_record(record)
        found.metadata = VanConfig.from_dict(record[BACKBONE]).to_dict()
        if _has_head(found.declared):
            found.head = {name: v for name, v in found.declared.to_dict().items() if name in head_layout.FIELDS}
        found.classes = checked.class_names(record.get("classes"))
        found.palette = checked.colors(record.get("palette"))
        if record.get("preprocess") is not None:
            found.preprocess = Preprocess.from_dict(record["preprocess"])
        found.provenance = checked.provenance(record.get("provenance") or {}) or found.provenance
        if "counters" in record:
            found.counters = checked.counters(record["counters"])
    except (VanError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the file's van record cannot be used: {error!s}") from error


def assemble(found: ParsedCheckpoint, content: Content, known: Mapping[str, Any]) -> Checkpoint:
    """The Checkpoint of what was found; raises CheckpointError for keys and fields that do not fit."""
    if found.record is not None:
        apply_record(found, found.record)
    arrays = translate(found.state, found.table, keep_unknown=_has_own_kind(found.declared))
    counted = _count(arrays, found.counters)
    config, origins = _settle(found, arrays, known)
    want = layout.shapes(config)
    layout.check(arrays, want, optional=(BASES,), spell=lambda key: _spelled(key, found.table), what=str(content.path))
    notes = [*content.notes, *found.notes, *counted, *_without_auxiliary(found, config)]
    arrays = {key: arrays[key] for key in want if key in arrays}
    if wrong := checked.not_finite(arrays):
        spelled = layout.listed([_spelled(key, found.table) for key in wrong])
        notes.append(f"{len(wrong)} tensors hold NaN or infinite values, and so will the outputs: {spelled}")
    preprocess, origins["preprocess"] = _preprocess(found, config)
    return Checkpoint(
        arrays=arrays,
        config=config,
        format=found.format,
        classes=_fitting(found.classes, config.num_classes, "names", notes),
        palette=_fitting(found.palette, config.num_classes, "colors", notes) if _has_head(config) else None,
        preprocess=preprocess,
        provenance=checked.provenance(found.provenance or {"source": content.path.name, "format": found.format}),
        origins=origins,
        notes=tuple(notes),
        extra=found.extra,
        stored=_stored(arrays, notes),
    )


def _has_own_kind(declared: ModelConfig | None) -> bool:
    """Whether a configuration is of a kind whose fields no shapes are read for, so that the record alone counts."""
    return declared is not None and not isinstance(declared, head_layout.KINDS)


def _has_head(config: ModelConfig) -> bool:
    return isinstance(config, HeadConfig)


def _settle(found: ParsedCheckpoint, arrays: Arrays, known: Mapping[str, Any]) -> tuple[ModelConfig, dict[str, str]]:
    """The configuration, from shapes, the file, its lineage and the caller's options, and where each field is from."""
    if found.declared is not None and _has_own_kind(found.declared):
        config = found.declared.with_options(**known)
        trunk = {key: array for key, array in arrays.items() if key.startswith("backbone.")}
        _, origins = layout.config_of(trunk, metadata=found.metadata)
        return config, origins | dict.fromkeys(known, "argument")
    own, rest = head_layout.split(known) if head_layout.method_of(arrays, ours=True) else ({}, known)
    backbone, origins = layout.config_of(arrays, argument=rest, metadata=found.metadata, lineage=found.lineage)
    head = head_layout.config_of(arrays, backbone, argument=own, metadata=found.head)
    return (backbone, origins) if head is None else (head[0], origins | head[1])


def _without_auxiliary(found: ParsedCheckpoint, config: ModelConfig) -> list[str]:
    if getattr(config, "auxiliary", True) or not found.head.get("auxiliary", config.method in WITH_AUXILIARY):
        return []
    return ["the file has no auxiliary head, so the network has none; this matters for training only"]


def _count(arrays: Arrays, recorded: Mapping[str, int] | None) -> list[str]:
    """Give BatchNorms their counters, recorded or 0, in a file without any, as foreign files are; returns a note."""
    present = [key for key in arrays if key.endswith(COUNTER)]
    for key in present:
        if arrays[key].dtype.kind in "iu":
            arrays[key] = arrays[key].astype(np.int64, copy=False)
    if present:
        return []
    counted = layout.with_counters(arrays)
    missing = len(counted) - len(arrays)
    arrays |= counted
    if recorded is not None:
        arrays |= {key: np.array(count, np.int64) for key, count in recorded.items()}
        return []
    return [f"the file has no {COUNTER}; {missing} counters of BatchNorm start at 0"] if missing else []


def _stored(arrays: Arrays, notes: Iterable[str]) -> str:
    """The floating point types in the file, bfloat16 among them."""
    floats = [array.dtype for array in arrays.values() if array.dtype.kind == "f"]
    widened = sum(note.tensors for note in notes if isinstance(note, Widened))
    names = {str(dtype) for dtype in floats}
    if widened:
        names |= {"bfloat16"}
        if widened >= sum(dtype == np.float32 for dtype in floats):
            names -= {"float32"}
    return ", ".join(sorted(names))


def translate(state: Mapping[str, Any], table: KeyTable, *, keep_unknown: bool = False) -> Arrays:
    """The state under our keys; a key that the format does not have is marked, for `layout.check` to reject.

    keep_unknown: such a key stays as it is, in files of models whose heads have no table.
    """
    arrays: Arrays = {}
    for key, value in state.items():
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"entry {key!r} of the state dict is a {type(value).__name__}; expected a tensor")
        ours = table.canonical(str(key)) or f"{'' if keep_unknown else STRANGER}{key}"
        if ours in arrays:
            raise CheckpointError(f"{key!r} is in the state dict twice, under two spellings")
        arrays[ours] = value
    return arrays


def _spelled(key: str, table: KeyTable) -> str:
    return key.removeprefix(STRANGER) if key.startswith(STRANGER) else table.foreign(key)


def states_of(tree: Any, *entries: str) -> dict[str, dict[str, Any]]:
    """The state dicts in an unpickled object: those under `entries`, or the object itself as ''."""
    if not isinstance(tree, Mapping):
        return {}
    found = {name: stripped(tree[name]) for name in entries if isinstance(tree.get(name), Mapping)}
    return found or {"": stripped(tree)}


def stripped(state: Mapping[Any, Any], *prefixes: str) -> dict[str, Any]:
    """The state without what wrappers put before its keys (`module.` of data parallelism, `_orig_mod.` of compile)."""
    out: dict[str, Any] = {}
    for key, value in state.items():
        name = str(key)
        for prefix in ("module.", "_orig_mod.", *prefixes):
            name = name.removeprefix(prefix)
        if name in out:
            raise CheckpointError(f"{name!r} is in the state dict twice, under two spellings")
        out[name] = value
    return out


def majority_match(tree: Any, pattern: str) -> bool:
    """Whether at least half of the keys match from their start: a stray key does not decide what a file is."""
    matcher = re.compile(pattern)
    return isinstance(tree, Mapping) and 2 * sum(bool(matcher.match(str(key))) for key in tree) >= max(len(tree), 1)


def any_key(tree: Any, pattern: str) -> bool:
    """Whether any of the keys matches from its start."""
    matcher = re.compile(pattern)
    return isinstance(tree, Mapping) and any(isinstance(key, str) and matcher.match(key) for key in tree)


def names(values: Any) -> tuple[str, ...] | None:
    """Class names that a file of others may hold; None for what is no list of names."""
    try:
        return checked.class_names(values)
    except CheckpointError:
        return None


def _fitting(values: tuple[_T, ...] | None, classes: int, what: str, notes: list[str]) -> tuple[_T, ...] | None:
    """The names or colours of the head's classes; None, with a note, unless there is one per class."""
    if values is None or len(values) == classes:
        return values
    if classes:
        stated = f"{'names' if what == 'names' else 'has colors for'} {len(values)} classes"
        notes.append(f"the file {stated}, its head has {classes}; the {what} are left out")
    return None


def _preprocess(found: ParsedCheckpoint, config: ModelConfig) -> tuple[Preprocess | None, str]:
    if found.preprocess is not None:
        return found.preprocess, "metadata"
    headless_large = not config.num_classes and config.name in LINEAGE_22K
    pretrained = config.num_classes == CLASSES_22K or headless_large
    statistics = IMAGENET if pretrained else found.statistics or RECORDS[config.statistics]
    return for_channels(statistics, config.backbone.in_chans), "lineage"


def for_channels(preprocess: Preprocess, channels: int) -> Preprocess | None:
    """The record for images of 3 or 1 channels (the mean of its statistics); None for others, which no file states."""
    if channels == preprocess.channels:
        return preprocess
    if channels != 1:
        return None
    mean, std = (round(sum(values) / len(values), 6) for values in (preprocess.mean, preprocess.std))
    return preprocess.with_overrides(mean=(mean,), std=(std,))
