"""The layers of the network in Keras, named as in the TensorFlow port and the official code.

Inside, maps are always (N, H, W, C): TensorFlow has no other depthwise convolution on the CPU. A model of the other
data format turns its images around once, in the first patch embedding.
The attributes' names are the paths in weight files: van/checkpoints/keras.py describes the tree.

Source: arXiv 2202.09741, figures 2 and 3; epsilons and initialisation of the official code.
Shapes: N batch, H height, W width of the stage's map, C its channels, E expanded channels.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from .depthwise import depthwise

Shape = tuple[int | None, ...]
PACKAGE = "van"


class FanOut(keras.initializers.VarianceScaling):
    """N(0, 2 / fan_out) with the fan of one group, as published.

    Drawn by numpy: JAX would compile a program for every shape, half a minute for a network.
    """

    def __init__(self) -> None:
        super().__init__(2.0, "fan_out", "untruncated_normal")

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        height, width, _, fan = shape
        deviation = math.sqrt(2 / (height * width * fan))
        numbers = np.random.default_rng(self.seed).standard_normal(shape, np.float32)
        return ops.convert_to_tensor(np.float32(deviation) * numbers, dtype)


def batch_norm(dtype: Any, name: str) -> Any:
    """BatchNorm with the published epsilon and momentum."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


def pointwise(channels: int, dtype: Any, name: str) -> Any:
    """A 1x1 convolution."""
    options = {"kernel_initializer": FanOut(), "data_format": "channels_last"}
    return keras.layers.Conv2D(channels, 1, dtype=dtype, name=name, **options)


class Depthwise(keras.layers.Layer):
    """Depthwise convolution that keeps the size: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, kernel_size: int, dilation: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.kernel_size, self.dilation = kernel_size, dilation

    def build(self, shape: Shape) -> None:
        side, channels = self.kernel_size, shape[-1]
        self.kernel = self.add_weight(shape=(side, side, channels, 1), initializer=FanOut(), name="kernel")
        self.bias = self.add_weight(shape=(channels,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        return depthwise(x, ops.convert_to_tensor(self.kernel), self.dilation) + self.bias

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


@keras.saving.register_keras_serializable(package=PACKAGE)
class PatchEmbed(keras.layers.Layer):
    """Overlapping strided convolution and BatchNorm: images or maps -> (N, ceil(H / stride), ceil(W / stride), C)."""

    def __init__(
        self,
        channels: int,
        patch_size: int,
        stride: int,
        data_format: str = "channels_last",
        norm_eval: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        sizes = {"channels": channels, "patch_size": patch_size, "stride": stride}
        self.arguments = {**sizes, "data_format": data_format, "norm_eval": norm_eval}
        self.data_format, self.norm_eval = data_format, norm_eval
        self.channels, self.patch_size, self.stride = channels, patch_size, stride
        convolution = {"kernel_initializer": FanOut(), "data_format": "channels_last", "dtype": self.dtype_policy}
        self.proj = keras.layers.Conv2D(channels, patch_size, stride, name="proj", **convolution)
        self.norm = batch_norm(self.dtype_policy, "norm")

    def build(self, shape: Shape) -> None:
        batch, *sides, channels = self._channels_last(shape)
        around = 2 * (self.patch_size // 2)
        self.proj.build((batch, *(None if side is None else side + around for side in sides), channels))
        self.norm.build(self.compute_output_shape(shape))

    def call(self, x: Any, training: bool | None = None) -> Any:
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 2, 3, 1))
        side = self.patch_size // 2  # Keras's "same" would pad strided convolutions on one side only
        x = self.proj(ops.pad(x, ((0, 0), (side, side), (side, side), (0, 0))))
        return self.norm(x, training=False if self.norm_eval else training)

    def compute_output_shape(self, shape: Shape) -> Shape:
        batch, *sides, _ = self._channels_last(shape)
        more = 2 * (self.patch_size // 2) - self.patch_size
        return batch, *(None if side is None else (side + more) // self.stride + 1 for side in sides), self.channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}

    def _channels_last(self, shape: Shape) -> Shape:
        if self.data_format == "channels_last":
            return tuple(shape)
        batch, channels, *sides = shape
        return batch, *sides, channels


class LargeKernelAttention(keras.layers.Layer):
    """A large kernel decomposed into near, far and 1x1 convolutions, whose output gates the input."""

    def __init__(self, channels: int, near: int, far: int, dilation: int, attention: str, **options: Any) -> None:
        super().__init__(**options)
        kind, dtype = attention, self.dtype_policy
        self.conv0 = None if kind == "no_dw" else Depthwise(near, dtype=dtype, name="conv0")
        self.conv_spatial = None if kind == "no_dw_d" else Depthwise(far, dilation, dtype=dtype, name="conv_spatial")
        self.conv1 = None if kind == "no_1x1" else pointwise(channels, dtype, "conv1")
        self.gate = kind if kind in ("add", "sigmoid", "none") else "multiply"

    def build(self, shape: Shape) -> None:
        for layer in (self.conv0, self.conv_spatial, self.conv1):
            if layer is not None:
                layer.build(shape)

    def call(self, x: Any) -> Any:
        attention = x
        for layer in (self.conv0, self.conv_spatial, self.conv1):  # as published: 5x5; 7x7 with dilation 3; 1x1
            if layer is not None:
                attention = layer(attention)
        if self.gate == "multiply":
            return x * attention
        if self.gate == "sigmoid":
            return x * ops.sigmoid(attention)
        return x + attention if self.gate == "add" else attention

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


class Attention(keras.layers.Layer):
    """1x1, GELU, large kernel attention, 1x1, around an inner shortcut."""

    def __init__(self, channels: int, near: int, far: int, dilation: int, attention: str, **options: Any) -> None:
        super().__init__(**options)
        dtype = self.dtype_policy
        self.proj_1 = pointwise(channels, dtype, "proj_1")
        self.spatial_gating_unit = LargeKernelAttention(
            channels, near, far, dilation, attention, dtype=dtype, name="spatial_gating_unit"
        )
        self.proj_2 = pointwise(channels, dtype, "proj_2")

    def build(self, shape: Shape) -> None:
        for layer in (self.proj_1, self.spatial_gating_unit, self.proj_2):
            layer.build(shape)

    def call(self, x: Any) -> Any:
        return x + self.proj_2(self.spatial_gating_unit(ops.gelu(self.proj_1(x), approximate=False)))

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


class FeedForward(keras.layers.Layer):
    """1x1 expansion, depthwise 3x3, GELU, 1x1 projection."""

    def __init__(self, channels: int, hidden: int, drop_rate: float, **options: Any) -> None:
        super().__init__(**options)
        dtype = self.dtype_policy
        self.hidden = hidden
        self.fc1 = pointwise(hidden, dtype, "fc1")
        self.dwconv = Depthwise(3, dtype=dtype, name="dwconv")
        self.fc2 = pointwise(channels, dtype, "fc2")
        self.drop = keras.layers.Dropout(drop_rate, dtype=dtype, name="drop")

    def build(self, shape: Shape) -> None:
        wide = (*shape[:-1], self.hidden)
        self.fc1.build(shape)
        self.dwconv.build(wide)
        self.fc2.build(wide)

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = ops.gelu(self.dwconv(self.fc1(x)), approximate=False)  # (N, H, W, E)
        return self.drop(self.fc2(self.drop(x, training=training)), training=training)

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


@keras.saving.register_keras_serializable(package=PACKAGE)
class Block(keras.layers.Layer):
    """Attention, then feed-forward, each on the normalised input, scaled per channel, around a shortcut.

    (N, H, W, C) -> (N, H, W, C); near, far: sides of the depthwise kernels; attention: see variants.ATTENTION_OPTIONS.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        near: int = 5,
        far: int = 7,
        dilation: int = 3,
        attention: str = "lka",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-2,
        norm_eval: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        sizes = {"channels": channels, "hidden": hidden, "near": near, "far": far, "dilation": dilation}
        rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate, "layer_scale_init": layer_scale_init}
        self.arguments = {**sizes, **rates, "attention": attention, "norm_eval": norm_eval}
        dtype = self.dtype_policy
        self.layer_scale_init, self.norm_eval = layer_scale_init, norm_eval
        self.norm1 = batch_norm(dtype, "norm1")
        self.attn = Attention(channels, near, far, dilation, attention, dtype=dtype, name="attn")
        self.norm2 = batch_norm(dtype, "norm2")
        self.mlp = FeedForward(channels, hidden, drop_rate, dtype=dtype, name="mlp")
        # stochastic depth: a sample's branch is kept or dropped as a whole
        whole = (None, 1, 1, 1)
        self.drop_path = keras.layers.Dropout(drop_path_rate, noise_shape=whole, dtype=dtype, name="drop_path")

    def build(self, shape: Shape) -> None:
        for layer in (self.norm1, self.attn, self.norm2, self.mlp):
            layer.build(shape)
        start = keras.initializers.Constant(self.layer_scale_init)
        self.layer_scale_1 = self.add_weight(shape=(shape[-1],), initializer=start, name="layer_scale_1")
        self.layer_scale_2 = self.add_weight(shape=(shape[-1],), initializer=start, name="layer_scale_2")

    def call(self, x: Any, training: bool | None = None) -> Any:
        norms = {"training": False if self.norm_eval else training}
        branch = self.layer_scale_1 * self.attn(self.norm1(x, **norms))
        x = x + self.drop_path(branch, training=training)
        branch = self.layer_scale_2 * self.mlp(self.norm2(x, **norms), training=training)
        return x + self.drop_path(branch, training=training)

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}
