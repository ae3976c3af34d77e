"""Which tensors a configuration has, and which configuration tensors have: shapes alone, no torch.

Letters: s stage and j block (0-based), C channels of a stage, E expanded channels, K classes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import singledispatch
from typing import Any

import numpy as np

from ..configs.backbone import VanConfig
from ..configs.model_config import ModelConfig
from ..errors import CheckpointError, ConfigError, with_article

Shape = tuple[int, ...]

# Fields that change some tensor's shape or existence.
ARCHITECTURE = ("embed_dims", "depths", "mlp_ratios", "patch_sizes", "in_chans", "num_classes")
SHAPED = (*ARCHITECTURE, "attention", "dilation", "kernel_size")

SHOWN = 10  # keys that an error names before it counts the rest


@singledispatch
def shapes(config: ModelConfig) -> dict[str, Shape]:
    """Canonical key -> shape of every parameter and buffer of the model of a configuration, in its order.

    Other kinds of configurations are registered: `shapes.register(ToyConfig, function)`.
    Raises CheckpointError for a kind that is not.
    """
    raise CheckpointError(
        f"the tensors of {with_article(config.noun)} are not known; expected a registered kind of model"
    )


@shapes.register
def _(config: VanConfig) -> dict[str, Shape]:
    out: dict[str, Shape] = {}
    for s, channels in enumerate(config.embed_dims):
        before = config.embed_dims[s - 1] if s else config.in_chans
        stage, patch = f"backbone.stages.{s}.", config.patch_sizes[s]
        add_conv(out, f"{stage}patch_embed.conv", (channels, before, patch, patch))
        add_batch_norm(out, f"{stage}patch_embed.norm", channels)
        for j in range(config.depths[s]):
            _block(out, f"{stage}blocks.{j}.", channels, config.hidden_dim(s), config)
        out[f"{stage}norm.weight"] = out[f"{stage}norm.bias"] = (channels,)
    if config.num_classes:
        add_conv(out, "head", (config.num_classes, config.embed_dims[-1]))
    return out


def _block(out: dict[str, Shape], block: str, channels: int, hidden: int, config: VanConfig) -> None:
    near, far, kind = config.near_kernel, config.far_kernel, config.attention
    out[f"{block}scale1"] = out[f"{block}scale2"] = (channels,)
    add_batch_norm(out, f"{block}norm1", channels)
    add_conv(out, f"{block}attention.proj_in", (channels, channels, 1, 1))
    if kind != "no_dw":
        add_conv(out, f"{block}attention.spatial.near", (channels, 1, near, near))
    if kind != "no_dw_d":
        add_conv(out, f"{block}attention.spatial.far", (channels, 1, far, far))
    if kind != "no_1x1":
        add_conv(out, f"{block}attention.spatial.mix", (channels, channels, 1, 1))
    add_conv(out, f"{block}attention.proj_out", (channels, channels, 1, 1))
    add_batch_norm(out, f"{block}norm2", channels)
    add_conv(out, f"{block}feed_forward.expand", (hidden, channels, 1, 1))
    add_conv(out, f"{block}feed_forward.depthwise", (hidden, 1, 3, 3))
    add_conv(out, f"{block}feed_forward.project", (channels, hidden, 1, 1))


def add_conv(out: dict[str, Shape], name: str, weight: Shape) -> None:
    """Enter a convolution or linear layer with its bias."""
    out[f"{name}.weight"], out[f"{name}.bias"] = weight, weight[:1]


def add_batch_norm(out: dict[str, Shape], name: str, channels: int) -> None:
    """Enter a BatchNorm with its statistics and counter."""
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        out[f"{name}.{leaf}"] = (channels,)
    out[f"{name}.num_batches_tracked"] = ()


def with_counters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with `num_batches_tracked` = 0 beside every running mean, for formats that keep no counters."""
    counters = {
        key.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for key in arrays
        if key.endswith(".running_mean")
    }
    return {**arrays, **counters}


def check(
    arrays: Mapping[str, np.ndarray],
    config: VanConfig | Mapping[str, Shape],
    *,
    optional: Collection[str] = (),
    spell: Callable[[str], str] = str,
    what: str = "the file",
) -> None:
    """Raise CheckpointError unless the arrays are exactly those of `config`, or of the given shapes.

    optional: keys that may be absent; spell: gives the file's own key.
    """
    want, problems = config if isinstance(config, Mapping) else shapes(config), []
    missing = [spell(key) for key in want if key not in arrays and key not in optional]
    unexpected = [spell(key) for key in arrays if key not in want]
    misshapen = [
        f"{spell(key)} (got {tuple(arrays[key].shape)}, expected {shape})"
        for key, shape in want.items()
        if key in arrays and tuple(arrays[key].shape) != shape
    ]
    mistyped = [
        f"{spell(key)} (got {arrays[key].dtype}, expected floating point)"
        for key in want
        if key in arrays and not key.endswith("num_batches_tracked") and arrays[key].dtype.kind != "f"
    ]
    for word, keys in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of the wrong shape", misshapen),
        ("of the wrong type", mistyped),
    ):
        if keys:
            problems.append(f"{len(keys)} {word}: {listed(keys)}")
    if problems:
        raise CheckpointError(f"{what} does not fit the network: {'; '.join(problems)}")


def listed(keys: list[str]) -> str:
    """The first ten keys and how many more."""
    more = f", … ({len(keys) - SHOWN} more)" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def config_of(
    arrays: Mapping[str, np.ndarray],
    *,
    argument: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> tuple[VanConfig, dict[str, str]]:
    """The configuration of canonical arrays, and where each of its fields comes from.

    Widths, depths, ratios, kernels, channels and classes are read off the shapes. What shapes cannot show comes from
    the lineage's rule, overruled by the file's metadata, overruled by the caller's argument.
    Raises CheckpointError when there is no stage in the arrays, or when metadata or an argument contradict the shapes.
    """
    derived = _derive(arrays)
    try:
        config, origins = VanConfig(**derived), dict.fromkeys(derived, "shapes")
    except ConfigError as error:
        raise CheckpointError(f"the shapes of the tensors fit no network: {error!s}") from error
    for origin, values in (("lineage", lineage), ("metadata", metadata), ("argument", argument)):
        config = _apply(config, dict(values or {}), origin)
        origins.update({key: origin for key in values or {} if origin == "argument" or origins.get(key) != "shapes"})
    origins.setdefault("strides", "lineage")
    origins.setdefault("layer_norm_eps", "lineage")
    return config, origins


def _apply(config: VanConfig, values: dict[str, Any], origin: str) -> VanConfig:
    who = "the argument" if origin == "argument" else "the file's metadata"
    try:
        changed = config.with_options(**values)
    except ConfigError as error:
        if origin == "argument":
            raise
        raise CheckpointError(f"{who} cannot be used: {error!s}") from error
    if _sizes(changed) == _sizes(config):
        return changed
    key = next(key for key in SHAPED if getattr(changed, key) != getattr(config, key))
    stated, found = getattr(changed, key), getattr(config, key)
    raise CheckpointError(f"{who} {key}={stated!r} contradicts the tensors, whose shapes say {found!r}; leave it out")


def _sizes(config: VanConfig) -> tuple[Any, ...]:
    """What `shapes` follows from: equal for two configurations with the same tensors, and small for impossible ones."""
    hidden = tuple(config.hidden_dim(stage) for stage in range(config.num_stages))
    kind = config.attention if config.attention in ("no_dw", "no_dw_d", "no_1x1") else "all"
    near = config.near_kernel if kind != "no_dw" else 0
    far = config.far_kernel if kind != "no_dw_d" else 0
    widths = (config.embed_dims, config.depths, hidden, config.patch_sizes, config.in_chans, config.num_classes)
    return (*widths, kind, near, far)


def _derive(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields that shapes show; odd single tensors are outvoted, so that `check` can name them."""
    found = {key: tuple(array.shape) for key, array in arrays.items()}
    stages = 1 + max(
        (int(m[1]) for key in found if (m := re.match(r"backbone\.stages\.(\d+)\.blocks\.", key))), default=-1
    )
    if not stages:
        raise CheckpointError("none of its keys belongs to a Visual Attention Network")
    if stages > len(found):
        raise CheckpointError(f"a key names stage {stages}, but there are {len(found)} tensors in all")
    dims, depths, ratios, patches = [], [], [], []
    for s in range(stages):
        stage = rf"backbone\.stages\.{s}\."
        blocks = [int(m[1]) for key in found if (m := re.match(rf"{stage}blocks\.(\d+)\.", key))]
        dim = vote(found, rf"{stage}(patch_embed\.norm|norm|blocks\.\d+\.norm[12])\.(weight|bias)", 0, 0)
        hidden = vote(found, rf"{stage}blocks\.\d+\.feed_forward\.(expand|depthwise)\.(weight|bias)", 0, 0)
        patch = vote(found, rf"{stage}patch_embed\.conv\.weight", -1, 3 if s else 7)
        if not (blocks and dim and hidden):
            raise CheckpointError(f"stage {s + 1} of {stages} has no blocks, norms or feed-forward layers in the file")
        if max(blocks) >= len(found):
            raise CheckpointError(
                f"a key names block {max(blocks) + 1} of stage {s + 1}; there are {len(found)} tensors"
            )
        dims.append(dim)
        depths.append(max(blocks) + 1)
        ratios.append(_ratio(hidden, dim))
        patches.append(patch)
    return {
        "embed_dims": tuple(dims),
        "depths": tuple(depths),
        "mlp_ratios": tuple(ratios),
        "patch_sizes": tuple(patches),
        "in_chans": vote(found, r"backbone\.stages\.0\.patch_embed\.conv\.weight", 1, 3),
        "num_classes": vote(found, r"head\.(weight|bias)", 0, 0),
        **_attention(found),
    }


def _attention(found: Mapping[str, Shape]) -> dict[str, Any]:
    """kernel_size, dilation and the ablation, as far as the existing convolutions show them."""
    near = vote(found, r".*attention\.spatial\.near\.weight", -1, 0)
    far = vote(found, r".*attention\.spatial\.far\.weight", -1, 0)
    mix = vote(found, r".*attention\.spatial\.mix\.weight", 0, 0)
    out: dict[str, Any] = {}
    if near and far and mix:
        pass  # shapes do not show which gate it is
    elif near and far:
        out["attention"] = "no_1x1"
    elif near or far:
        out["attention"] = "no_dw" if far else "no_dw_d"
    if near:
        out["dilation"] = (near + 1) // 2
    if far:
        out["kernel_size"] = far * out.get("dilation", VanConfig.dilation)
    return out


def vote(found: Mapping[str, Shape], pattern: str, axis: int, default: int) -> int:
    """The most frequent size along `axis` among the keys that match."""
    matcher = re.compile(pattern)
    sizes = Counter(shape[axis] for key, shape in found.items() if matcher.fullmatch(key) and len(shape) > max(axis, 0))
    return sizes.most_common(1)[0][0] if sizes else default


def _ratio(hidden: int, channels: int) -> float:
    """The ratio r with int(channels * r) == hidden, whole where it can be."""
    if hidden % channels == 0:
        return hidden // channels
    ratio = hidden / channels
    return ratio if int(channels * ratio) == hidden else math.nextafter(ratio, math.inf)
