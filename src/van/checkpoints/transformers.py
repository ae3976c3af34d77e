"""Folders and files of transformers' VAN: `config.json` beside `model.safetensors` or `pytorch_model.bin`.

`van.layernorm` is in every published file and feeds nothing but an unused pooled output; it is written, never needed.
Source: transformers 4.x, modeling_van.py and configuration_van.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, VanError
from ..images.preprocess import OFFICIAL, Preprocess
from . import keys
from .checked import class_names
from .checkpoint import Arrays, Checkpoint, Content
from .files import make_folder, write_json, write_safetensors
from .limits import beyond_original, extra_tensors
from .reading import (
    RECORD,
    ParsedCheckpoint,
    any_key,
    apply_record,
    assemble,
    describe,
    majority_match,
    states_of,
    stripped,
)
from .timm_config import fields_for_timm

_KEYS = r"(van\.)?encoder\.stages\.\d+\.(embeddings|layers)\."
UNUSED = ("van.layernorm.weight", "van.layernorm.bias")
LINEAGE = {"layer_norm_eps": 1e-6}

# Our field -> theirs, for what shapes cannot show and for what they can, which is compared.
FIELDS = {
    "embed_dims": "hidden_sizes",
    "depths": "depths",
    "mlp_ratios": "mlp_ratios",
    "patch_sizes": "patch_sizes",
    "strides": "strides",
    "in_chans": "num_channels",
    "layer_norm_eps": "layer_norm_eps",
    "drop_rate": "dropout_rate",
    "drop_path_rate": "drop_path_rate",
    "layer_scale_init": "layer_scale_init_value",
}
# Fields that transformers' original lacks, under our names.
OWN_FIELDS = ("kernel_size", "dilation", "attention")
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # PIL's numbers


def detect(content: Content) -> bool:
    """Keys of transformers' VAN, also of the model without its classifier."""
    return any(majority_match(state, _KEYS) for state in states_of(content.tree).values())


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        raise CheckpointError(f"{content.path} holds no averaged weights; leave ema out")
    state = stripped(content.tree)
    if any_key(state, r"encoder\."):  # VanModel alone
        state = {key if key.startswith("classifier.") else f"van.{key}": value for key, value in state.items()}
    extra: Arrays = {key: state.pop(key) for key in UNUSED if key in state}
    config = content.beside.get("config") or {}
    found = ParsedCheckpoint(format="transformers", state=state, table=keys.TRANSFORMERS, lineage=LINEAGE, extra=extra)
    found.provenance = {"source": content.path.name, "format": "transformers"}
    if isinstance(config.get("_name_or_path"), str) and config["_name_or_path"]:
        found.provenance["name_or_path"] = config["_name_or_path"]
    if config.get(RECORD) is not None:
        apply_record(found, config[RECORD])
        # transformers keeps our record when it saves a network that was changed since: its own fields are the newer
        found.metadata.pop("num_classes")
    found.metadata |= fields_of(config, content.path)
    found.classes = classes_of(config) or found.classes
    _apply_processor(found, content.beside.get("preprocessor") or {})
    return assemble(found, content, known)


def fields_of(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our fields in a config.json; raises CheckpointError where it is of another network."""
    kind, activation = config.get("model_type", "van"), config.get("hidden_act", "gelu")
    if kind != "van":
        raise CheckpointError(f"{path}: config.json says model_type {kind!r}; expected 'van'")
    if activation != "gelu":
        raise CheckpointError(f"{path}: config.json says hidden_act {activation!r}; van computes 'gelu' only")
    fields = FIELDS | {name: name for name in OWN_FIELDS}
    return {ours: config[theirs] for ours, theirs in fields.items() if config.get(theirs) is not None}


def classes_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names in `id2label`, unless they are transformers' placeholders LABEL_0, LABEL_1, …"""
    labels = config.get("id2label")
    if not isinstance(labels, Mapping) or {str(key) for key in labels} != {str(i) for i in range(len(labels))}:
        return None
    names = class_names([value for _, value in sorted(labels.items(), key=lambda item: int(item[0]))]) or ()
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _apply_processor(found: ParsedCheckpoint, processor: Mapping[str, Any]) -> None:
    """Take the processor file's record, except for published weights, whose file contradicts how they were trained."""
    record, ours = preprocess_of(processor), found.preprocess
    head = found.state.get("classifier.weight")
    published = ours is None and isinstance(head, np.ndarray) and head.ndim == 2 and len(head) == 1000
    unchanged = ours is not None and record == as_processor(ours)
    if record is None or unchanged or (published and record == OFFICIAL):
        return
    if published:
        found.notes.append(
            f"preprocessor_config.json says mean {record.mean}, std {record.std}, crop_pct {record.crop_pct:g}; these "
            f"weights were trained and evaluated with mean {OFFICIAL.mean}, std {OFFICIAL.std}, crop_pct "
            f"{OFFICIAL.crop_pct:g}, which are used"
        )
    else:
        found.preprocess = record


def as_processor(record: Preprocess) -> Preprocess | None:
    """The record as a processor file can express it."""
    return preprocess_of(_processor_json(record))


def preprocess_of(processor: Mapping[str, Any]) -> Preprocess | None:
    """The record of a ConvNeXt processor: resize to size / crop_pct and crop below 384 pixels, a plain warp above."""
    size = processor.get("size")
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    if not isinstance(size, int) or not processor.get("image_mean") or not processor.get("image_std"):
        return None
    names = {number: name for name, number in RESAMPLE.items()}
    try:
        return Preprocess(
            size=(size, size),
            crop_pct=processor.get("crop_pct") or 1.0,
            interpolation=names.get(processor.get("resample", 3), "bicubic"),
            mean=tuple(processor["image_mean"]),
            std=tuple(processor["image_std"]),
            resize="squash" if size >= 384 else "shortest",
        )
    except (VanError, TypeError) as error:
        raise CheckpointError(f"preprocessor_config.json cannot be used: {error}") from error


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; writes a folder of model.safetensors, config.json and preprocessor_config.json."""
    make_folder(path)
    arrays = {keys.TRANSFORMERS.foreign(key): array for key, array in checkpoint.arrays.items()}
    width, dtype = checkpoint.backbone.embed_dims[-1], next(iter(arrays.values())).dtype
    unused = {UNUSED[0]: np.ones(width, dtype), UNUSED[1]: np.zeros(width, dtype)}
    arrays |= {key: checkpoint.extra.get(key, value) for key, value in unused.items()}
    lost = beyond_original(checkpoint, "transformers' code") + _lost(checkpoint)
    write_safetensors(path / "model.safetensors", arrays, {"format": "pt"})
    write_json(path / "config.json", _config_json(checkpoint))
    if checkpoint.preprocess is not None:
        write_json(path / "preprocessor_config.json", _processor_json(checkpoint.preprocess))
    return lost


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.classifier
    values = config.to_dict()
    labels = checkpoint.classes or tuple(f"LABEL_{i}" for i in range(config.num_classes))
    return {
        "architectures": ["VanForImageClassification" if config.num_classes else "VanModel"],
        "model_type": "van",
        "image_size": checkpoint.preprocess.size[0] if checkpoint.preprocess else 224,
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        **{theirs: values[ours] for ours, theirs in FIELDS.items()},
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **fields_for_timm(checkpoint),
        RECORD: describe(checkpoint),
    }


def _processor_json(record: Preprocess) -> dict[str, Any]:
    return {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": record.size[0]},
        "crop_pct": record.crop_pct,
        "resample": RESAMPLE[record.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(record.mean),
        "image_std": list(record.std),
    }


def _lost(checkpoint: Checkpoint) -> list[str]:
    config, record, lost = checkpoint.classifier, checkpoint.preprocess, []
    if any(ratio != int(ratio) for ratio in config.mlp_ratios):
        lost.append(f"mlp_ratios={config.mlp_ratios}: transformers' code needs whole numbers")
    if config.head_drop_rate:
        lost.append(f"head_drop_rate={config.head_drop_rate:g}: config.json has no field for it")
    if record is not None and as_processor(record) != record:
        lost.append(f"preprocessing size {record.size} by {record.resize!r}: the processor file has no field for it")
    return lost + extra_tensors(checkpoint, known=UNUSED)
