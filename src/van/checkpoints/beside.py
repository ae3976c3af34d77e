"""What config.json and preprocessor_config.json say about weights that are not in transformers' own keys.

They fill in what the weights file leaves open. Where the two differ, what the file itself says was written together
with the weights, so it is kept, and the difference is a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..configs.backbone import VARIANTS, VanConfig
from ..configs.model_config import ModelConfig
from ..errors import CheckpointError, VanError
from ..images.preprocess import Preprocess
from . import transformers
from .checkpoint import Checkpoint, Content
from .reading import names

# timm's arguments of the model -> our fields, where the names differ.
_TIMM_NAMES = {"drop_rate": "head_drop_rate", "proj_drop_rate": "drop_rate"}
_TIMM_RESIZES = {"center": "shortest", "squash": "squash"}
# What shapes show more reliably than any file beside them.
_SHAPED = ("num_classes", "in_chans", "embed_dims", "depths", "mlp_ratios", "patch_sizes", "out_indices")


@dataclass(frozen=True)
class BesideRecord:
    """What the files beside the weights say: fields of VanConfig, class names, preprocessing, and notes."""

    fields: Mapping[str, Any]
    classes: tuple[str, ...] | None
    preprocess: Preprocess | None
    notes: tuple[str, ...] = ()


def complete(checkpoint: Checkpoint, content: Content) -> Checkpoint:
    """The checkpoint with what the files beside it add; raises CheckpointError for a file that cannot be used."""
    try:
        stated = _read_beside(
            content.beside.get("config") or {}, content.beside.get("preprocessor") or {}, content.path
        )
        if stated is None:
            return checkpoint
        config, differs = _settle(checkpoint, stated.fields)
    except CheckpointError:
        raise
    except (VanError, AttributeError, TypeError, ValueError) as error:  # values of types that nobody expects
        raise CheckpointError(f"config.json beside {content.path} cannot be used: {error}") from error
    if stated.classes is not None and len(stated.classes) != checkpoint.num_classes:
        stated = replace(stated, classes=None, notes=(*stated.notes, _too_many(stated.classes, checkpoint.num_classes)))
    if None not in (stated.classes, checkpoint.classes) and stated.classes != checkpoint.classes:
        differs.append("other class names")
    preprocess, origins = checkpoint.preprocess, dict(checkpoint.origins)
    if stated.preprocess is not None:
        if preprocess is None or origins.get("preprocess") == "lineage":
            preprocess, origins["preprocess"] = stated.preprocess, "metadata"
        elif stated.preprocess not in (preprocess, transformers.as_processor(preprocess)):
            differs.append(f"preprocessing {stated.preprocess.to_dict()}")
    origins |= {name: "metadata" for name in stated.fields if origins.get(name) in (None, "lineage")}
    notes = list(stated.notes)
    if differs:
        notes.append(f"the files beside the weights say {'; '.join(differs)}; the weights' own record is used instead")
    return replace(
        checkpoint,
        config=config,
        classes=checkpoint.classes if checkpoint.classes is not None else stated.classes,
        preprocess=preprocess,
        origins=origins,
        notes=(*checkpoint.notes, *notes),
    )


def _settle(checkpoint: Checkpoint, fields: Mapping[str, Any]) -> tuple[ModelConfig, list[str]]:
    """The configuration with what it leaves open of the backbone filled in, and what differs."""
    config = checkpoint.backbone
    fresh: dict[str, Any] = {}
    differs: list[str] = []
    for name, value in fields.items():
        value = tuple(value) if isinstance(value, list) else value
        if name not in _SHAPED and checkpoint.origins.get(name) in (None, "lineage"):
            fresh[name] = value
        elif getattr(config, name) != value:
            differs.append(f"{name} {value} instead of {getattr(config, name)}")
    return checkpoint.config.with_options(**fresh), differs


def _too_many(classes: tuple[str, ...], found: int) -> str:
    return f"config.json names {len(classes)} classes, the head has {found}; the names are left out"


def _read_beside(config: Mapping[str, Any], processor: Mapping[str, Any], path: Path) -> BesideRecord | None:
    """What transformers' or timm's fields say; None if the files describe something else."""
    if config.get("model_type") == "van":
        fields = transformers.fields_of(config, path)
        return BesideRecord(fields, transformers.classes_of(config), transformers.preprocess_of(processor))
    if isinstance(config.get("architecture"), str):
        return _timm_record(config)
    preprocess = transformers.preprocess_of(processor)
    return BesideRecord({}, None, preprocess) if preprocess is not None else None


def _timm_record(config: Mapping[str, Any]) -> BesideRecord | None:
    """The config.json of timm's `save_for_hf` and `push_to_hf_hub`."""
    architecture = str(config["architecture"]).split(".")[0]
    if architecture not in VARIANTS:
        return None
    known, given = VanConfig().to_dict(), config.get("model_args")
    arguments = {_TIMM_NAMES.get(name, name): value for name, value in (given or {}).items()}
    variant = VARIANTS[architecture]
    fields = {name: getattr(variant, name) for name in ("kernel_size", "dilation", "attention", "layer_norm_eps")}
    fields |= {name: value for name, value in arguments.items() if name in known and name not in _SHAPED}
    fields |= {"strides": _STRIDES[arguments["output_stride"]]} if arguments.get("output_stride") in _STRIDES else {}
    record = config.get("pretrained_cfg")
    preprocess, notes = _timm_preprocess(record if isinstance(record, Mapping) else {})
    if config.get("global_pool", "avg") not in ("avg", "", "fast"):
        notes.append(f"timm's model pools by {config['global_pool']!r}, van's classifier by 'avg'; the logits differ")
    return BesideRecord(fields, _timm_classes(config), preprocess, tuple(notes))


_STRIDES = {16: (4, 2, 2, 1), 8: (4, 2, 1, 1)}  # of timm's output_stride, where a stage stops shrinking


def _timm_classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    record = config.get("pretrained_cfg")
    found = config.get("label_names") or (record.get("label_names") if isinstance(record, Mapping) else None)
    if isinstance(found, Mapping):
        if {str(key) for key in found} != {str(i) for i in range(len(found))}:
            return None
        found = [value for _, value in sorted(found.items(), key=lambda item: int(item[0]))]
    return names(found)


def _timm_preprocess(record: Mapping[str, Any]) -> tuple[Preprocess | None, list[str]]:
    size, crop = record.get("input_size"), record.get("crop_mode", "center")
    if not isinstance(size, Iterable) or not record.get("mean") or not record.get("std"):
        return None, []
    notes = [] if crop in _TIMM_RESIZES else [f"config.json has crop_mode {crop!r}; the centre is cropped instead"]
    try:
        return Preprocess(
            size=tuple(size)[1:],
            crop_pct=record.get("crop_pct") or 1.0,
            interpolation=record.get("interpolation", "bicubic"),
            mean=tuple(record["mean"]),
            std=tuple(record["std"]),
            resize=_TIMM_RESIZES.get(crop, "shortest"),
        ), notes
    except (VanError, TypeError, ValueError) as error:
        raise CheckpointError(f"pretrained_cfg in config.json cannot be used: {error}") from error
