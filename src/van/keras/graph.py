"""The network's graph of layers, from the images to the output.

The layers are named as in the TensorFlow port, but that Keras 3 allows no slash: patch_embed1, block1_0, …, norm4,
head, pred.

Shapes: N batch, H and W sides of the images or maps, C channels.
"""

from __future__ import annotations

from typing import Any

import keras

from ..configs.backbone import VanConfig
from .layers import Block, PatchEmbed
from .parts import Parts

STAGES = ("patch_embed", "block", "norm")  # how the names of the stages' layers begin


def images_of(config: VanConfig, sides: tuple[int | None, int | None], data_format: str) -> Any:
    """The input of the graph, in the model's data format."""
    last = (*sides, config.in_chans)
    return keras.Input(last if data_format == "channels_last" else (config.in_chans, *sides), name="images")


def maps_of(images: Any, config: VanConfig, data_format: str, policy: Any, parts: Parts) -> Any:
    """Images -> the last stage's map (N, H, W, C)."""
    x = images
    for s in range(config.num_stages):
        x = _stage(x, s, config, data_format if s == 0 else "channels_last", policy, parts)
    return x


def outputs_of(
    x: Any, config: VanConfig, pooling: str | None, activation: Any, data_format: str, policy: Any, parts: Parts
) -> Any:
    """The last map (N, H, W, C) -> what the model gives: the map, features or logits."""
    if pooling is None:
        return in_format(x, data_format)
    pool = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[pooling]
    x = parts.make(pool, "pool", data_format="channels_last", dtype=policy)(x)
    if config.num_classes:
        # float32 in mixed precision, as Keras advises for what a loss is computed of
        kind = policy.variable_dtype if policy.name.startswith("mixed") else policy
        if config.head_drop_rate:
            x = parts.make(keras.layers.Dropout, "head_drop", rate=config.head_drop_rate, dtype=policy)(x)
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        head = {"units": config.num_classes, "kernel_initializer": start, "dtype": kind}
        x = parts.make(keras.layers.Dense, "head", **head)(x)
        if activation is not None:
            x = parts.make(keras.layers.Activation, "pred", activation=activation, dtype=kind)(x)
    return x


def in_format(x: Any, data_format: str) -> Any:
    """(N, H, W, C) in the model's data format."""
    return x if data_format == "channels_last" else keras.layers.Permute((3, 1, 2))(x)


def names_of(s: int) -> tuple[str, ...]:
    """How the names of one stage's layers begin."""
    return f"patch_embed{s + 1}", f"block{s + 1}_", f"norm{s + 1}"


def _stage(x: Any, s: int, config: VanConfig, data_format: str, policy: Any, parts: Parts) -> Any:
    """Patch embedding, blocks, LayerNorm -> (N, H, W, C)."""
    channels, norms = config.embed_dims[s], {"norm_eval": config.norm_eval, "dtype": policy}
    sizes = {"channels": channels, "patch_size": config.patch_sizes[s], "stride": config.strides[s]}
    x = parts.make(PatchEmbed, f"patch_embed{s + 1}", data_format=data_format, **sizes, **norms)(x)
    for j, rate in enumerate(config.drop_path_rates[s]):
        block = parts.make(
            Block,
            f"block{s + 1}_{j}",
            channels=channels,
            hidden=config.hidden_dim(s),
            near=config.near_kernel,
            far=config.far_kernel,
            dilation=config.dilation,
            attention=config.attention,
            drop_rate=config.drop_rate,
            drop_path_rate=rate,
            layer_scale_init=config.layer_scale_init,
            **norms,
        )
        x = block(x)
    norm = {"epsilon": config.layer_norm_eps, "axis": [-1], "dtype": policy}  # axis as a built layer spells it
    return parts.make(keras.layers.LayerNormalization, f"norm{s + 1}", **norm)(x)
