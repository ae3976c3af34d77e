"""Which tensors a segmenter has, and which segmenter tensors are: shapes alone, no torch. As `layout` for backbones.

Letters: C channels of the head, D and R width and rank of the Hamburger, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ..configs.backbone import VanConfig
from ..configs.segmenter import SegmenterConfig
from ..errors import CheckpointError, ConfigError
from . import layout
from .head_keys import BASES, GROUP_NORMED, GROUP_NORMED_AUXILIARY, method_of
from .layout import Shape, add_batch_norm, add_conv, vote

# Fields of a segmenter's own; num_classes and drop_rate are the head's, not the backbone's of these names.
FIELDS = SegmenterConfig.own_fields()
POOLINGS = 4
# Kinds of configurations that are read off shapes.
KINDS = (VanConfig, SegmenterConfig)


@layout.shapes.register
def _(config: SegmenterConfig) -> dict[str, Shape]:
    out = layout.shapes(config.backbone)
    widths = config.backbone.embed_dims
    if config.method == "semantic_fpn":
        _semantic_fpn(out, widths, config)
    elif config.method == "upernet":
        _upernet(out, widths, config.channels)
    else:
        _ham(out, widths, config)
    add_conv(out, "head.classify.conv", (config.num_classes, config.channels, 1, 1))
    if config.auxiliary:
        kind = "group" if config.method in GROUP_NORMED_AUXILIARY else "batch"
        _conv_norm(out, "auxiliary.conv", (config.auxiliary_channels, widths[2], 3, 3), kind)
        add_conv(out, "auxiliary.classify.conv", (config.num_classes, config.auxiliary_channels, 1, 1))
    return out


def _ham(out: dict[str, Shape], widths: tuple[int, ...], config: SegmenterConfig) -> None:
    c, d, last = config.channels, config.ham_channels, widths[-1]
    light = config.method == "light_ham"
    side = 1 if light else 3
    _conv_norm(out, "head.squeeze", (d, sum(widths[1:]) if light else last, side, side), "group")
    add_conv(out, "head.hamburger.lower", (d, d, 1, 1))
    out[BASES] = (d, config.ham_rank)
    out["head.hamburger.upper.weight"] = (d, d, 1, 1)
    out["head.hamburger.norm.weight"] = out["head.hamburger.norm.bias"] = (d,)
    _conv_norm(out, "head.align", (c, d, side, side), "group")
    if not light:
        _conv_norm(out, "head.join", (c, last + c, 3, 3), "group")


def _upernet(out: dict[str, Shape], widths: tuple[int, ...], c: int) -> None:
    for k in range(POOLINGS):
        _conv_norm(out, f"head.pooling.convs.{k}", (c, widths[-1], 1, 1), "batch")
    _conv_norm(out, "head.pooling.join", (c, widths[-1] + POOLINGS * c, 3, 3), "batch")
    for k, width in enumerate(widths[:-1]):
        _conv_norm(out, f"head.laterals.{k}", (c, width, 1, 1), "batch")
    for k in range(len(widths) - 1):
        _conv_norm(out, f"head.outputs.{k}", (c, c, 3, 3), "batch")
    _conv_norm(out, "head.join", (c, len(widths) * c, 3, 3), "batch")


def _semantic_fpn(out: dict[str, Shape], widths: tuple[int, ...], config: SegmenterConfig) -> None:
    neck, c = config.neck_channels, config.channels
    for k, width in enumerate(widths):
        add_conv(out, f"neck.laterals.{k}", (neck, width, 1, 1))
    for k in range(len(widths)):
        add_conv(out, f"neck.outputs.{k}", (neck, neck, 3, 3))
    for level in range(len(widths)):
        for k in range(max(level, 1)):
            _conv_norm(out, f"head.branches.{level}.convs.{k}", (c, c if k else neck, 3, 3), "batch")


def _conv_norm(out: dict[str, Shape], name: str, weight: Shape, kind: str) -> None:
    out[f"{name}.conv.weight"] = weight
    if kind == "batch":
        add_batch_norm(out, f"{name}.norm", weight[0])
    else:
        out[f"{name}.norm.weight"] = out[f"{name}.norm.bias"] = weight[:1]


def split(known: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a segmenter as (its own, its backbone's)."""
    own = {name: value for name, value in known.items() if name in FIELDS}
    return own, {name: value for name, value in known.items() if name not in FIELDS}


def config_of(
    arrays: Mapping[str, np.ndarray],
    backbone: VanConfig,
    *,
    argument: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> tuple[SegmenterConfig, dict[str, str]] | None:
    """The segmenter of arrays under our keys, and where each of its fields comes from; None without a head.

    The rank of the Hamburger is in no parameter: it is that of the bases where the file holds them, else the
    argument's, else the metadata's, else 16 for a Hamburger of 256 channels and 64 for any other, as published.
    An auxiliary head is there or not, whatever the metadata says: published files are often stripped of it.
    Raises CheckpointError when metadata or an argument contradict the shapes.
    """
    method = method_of(arrays, ours=True)
    if method is None:
        return None
    derived = _derive(arrays, method)
    try:
        config = SegmenterConfig(backbone=backbone.with_options(num_classes=0), **derived)
    except ConfigError as error:
        raise CheckpointError(f"the heads in the file fit no segmenter: {error!s}") from error
    origins = dict.fromkeys(derived, "shapes")
    if method in GROUP_NORMED and "ham_rank" not in derived:
        config = replace(config, ham_rank=16 if config.ham_channels == 256 else 64)
        origins["ham_rank"] = "lineage"
    stated = {name: value for name, value in (metadata or {}).items() if name != "auxiliary"}
    for origin, values in (("metadata", stated), ("argument", argument)):
        config = _apply(config, dict(values or {}), origin, fixed=derived)
        origins.update({key: origin for key in values or {} if origins.get(key) != "shapes"})
    return config, origins


def _apply(
    config: SegmenterConfig, values: dict[str, Any], origin: str, *, fixed: Mapping[str, Any]
) -> SegmenterConfig:
    who = "the argument" if origin == "argument" else "the file's metadata"
    for key, stated in values.items():
        if key in fixed and stated != fixed[key]:
            found = fixed[key]
            raise CheckpointError(f"{who} {key}={stated!r} contradicts the tensors, which say {found!r}; leave it out")
    try:
        return replace(config, **values)
    except ConfigError as error:
        if origin == "argument":
            raise
        raise CheckpointError(f"{who} cannot be used: {error!s}") from error


def _derive(arrays: Mapping[str, np.ndarray], method: str) -> dict[str, Any]:
    """The fields that shapes show; odd single tensors are outvoted, so that `layout.check` can name them."""
    found = {key: tuple(array.shape) for key, array in arrays.items()}
    default = {field.name: field.default for field in fields(SegmenterConfig)}

    def most(name: str, pattern: str) -> Any:
        return vote(found, pattern, 0, 0) or default[name]

    auxiliary = any(key.startswith("auxiliary.") for key in found)
    derived: dict[str, Any] = {"method": method, "auxiliary": auxiliary}
    derived["num_classes"] = most("num_classes", r"(head|auxiliary)\.classify\.conv\.(weight|bias)")
    derived["channels"] = most("channels", r"head\.(align|join|laterals|outputs|branches)\.(.*\.)?norm\.(weight|bias)")
    if method in GROUP_NORMED:
        derived["ham_channels"] = most("ham_channels", r"head\.(squeeze|hamburger)\.norm\.(weight|bias)")
        if len(bases := found.get(BASES, ())) == 2:
            derived["ham_rank"] = bases[1]
    if method == "semantic_fpn":
        derived["neck_channels"] = most("neck_channels", r"neck\.(laterals|outputs)\.\d+\.bias")
    if auxiliary:
        derived["auxiliary_channels"] = most("auxiliary_channels", r"auxiliary\.conv\.norm\.(weight|bias)")
    return derived
