"""What timm reads in a folder's `config.json`, and its words for a preprocessing record.

Source: timm 1.0, models/_hub.py (`architecture`, `num_classes`, `pretrained_cfg`, `model_args`).
"""

from __future__ import annotations

from typing import Any

from ..configs.backbone import VARIANTS, VanConfig, name_of
from ..images.preprocess import Preprocess
from .checkpoint import Checkpoint

FIRST_CONV, HEAD = "backbone.stages.0.patch_embed.conv", "head"  # our keys, which are those of the timm model
FALLBACK = "van_b0"  # the entry point that builds an architecture without a name
# Fields that timm hands over when it builds the model; the others concern training.
ARCHITECTURE = (
    "embed_dims",
    "depths",
    "mlp_ratios",
    "patch_sizes",
    "strides",
    "in_chans",
    "layer_norm_eps",
    "kernel_size",
    "dilation",
    "attention",
)
FIELDS = ("architecture", "num_classes", "pretrained_cfg", "model_args")  # at the top of config.json


def fields_for_timm(checkpoint: Checkpoint) -> dict[str, Any]:
    """The entries that let `timm.create_model("hf-hub:…")` and `"local-dir:…"` build and fill the model."""
    config = checkpoint.classifier
    pretrained = {
        **preprocessing(checkpoint.preprocess),
        "num_classes": config.num_classes,
        "first_conv": FIRST_CONV,
        "classifier": HEAD,
    }
    if checkpoint.classes:
        pretrained["label_names"] = list(checkpoint.classes)
    named = name_of(config)
    architecture = named if named in VARIANTS else FALLBACK
    return {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "pretrained_cfg": pretrained,
        "model_args": _differences(config, VARIANTS[architecture]),
    }


def _differences(config: VanConfig, variant: VanConfig) -> dict[str, Any]:
    ours, theirs = config.to_dict(), variant.to_dict()
    return {name: ours[name] for name in ARCHITECTURE if ours[name] != theirs[name]}


def preprocessing(record: Preprocess | None) -> dict[str, Any]:
    """A preprocessing record in timm's fields; empty without one."""
    if record is None:
        return {}
    squashed = record.resize == "squash"
    return {
        "input_size": (record.channels, *record.size),
        "crop_pct": 1.0 if squashed else record.crop_pct,  # timm also crops what it squashed
        "crop_mode": "squash" if squashed else "center",
        "interpolation": record.interpolation,
        "mean": record.mean,
        "std": record.std,
    }
