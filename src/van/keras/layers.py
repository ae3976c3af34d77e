"""The layers of the network in Keras, named as in the TensorFlow port and the official code.

Inside, maps are always (N, H, W, C): TensorFlow has no other depthwise convolution on the CPU. A model of the other
data format turns its images around once, in the first patch embedding.
The attributes' names are the paths in weight files: van/checkpoints/keras.py describes the tree.
Sums and products are Keras's ops, which take sublayers of different dtypes, as a user may set them.

Source: arXiv 2202.09741, figures 2 and 3; epsilons and initialisation of the official code.
Shapes: N batch, H height, W width of the stage's map, C its channels, E expanded channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import keras
from keras import ops

from .depthwise import depthwise
from .parts import Composite

Shape = tuple[int | None, ...]
PACKAGE = "van"


@keras.saving.register_keras_serializable(package=PACKAGE)
class FanOut(keras.initializers.VarianceScaling):
    """N(0, 2 / fan_out) with the fan of one group, as published.

    Drawn by numpy: JAX would compile a program for every shape, half a minute for a network.
    """

    def __init__(self, seed: Any = None) -> None:
        super().__init__(2.0, "fan_out", "untruncated_normal", seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": super().get_config()["seed"]}

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        height, width, _, fan = shape
        deviation = math.sqrt(2 / (height * width * fan))
        numbers = np.random.default_rng(self.seed).standard_normal(shape, np.float32)
        return ops.convert_to_tensor(np.float32(deviation) * numbers, dtype)


class Layers(Composite):
    """A layer made of the network's own kinds of layers."""

    def batch_norm(self, name: str) -> Any:
        """BatchNorm with the published epsilon and momentum."""
        return self.part(keras.layers.BatchNormalization, name, momentum=0.9, epsilon=1e-5)

    def pointwise(self, channels: int, name: str) -> Any:
        """A 1x1 convolution."""
        return self.convolution(channels, 1, name)

    def convolution(self, channels: int, kernel_size: int, name: str, stride: int = 1) -> Any:
        """A convolution of maps that are padded already."""
        options = {"kernel_initializer": FanOut(), "data_format": "channels_last", "strides": stride}
        return self.part(keras.layers.Conv2D, name, filters=channels, kernel_size=kernel_size, **options)


class Depthwise(keras.layers.Layer):
    """Depthwise convolution that keeps the size: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(
        self,
        kernel_size: int,
        dilation: int = 1,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel_size, self.dilation = kernel_size, dilation
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def build(self, shape: Shape) -> None:
        side, channels = self.kernel_size, shape[-1]
        weights = {"initializer": FanOut(), "regularizer": self.kernel_regularizer}
        self.kernel = self.add_weight(shape=(side, side, channels, 1), name="kernel", **weights)
        self.bias = self.add_weight(
            shape=(channels,), initializer="zeros", regularizer=self.bias_regularizer, name="bias"
        )

    def call(self, x: Any) -> Any:
        return depthwise(x, ops.convert_to_tensor(self.kernel), self.dilation) + self.bias

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape

    def get_config(self) -> dict[str, Any]:
        regularizers = {name: getattr(self, name) for name in ("kernel_regularizer", "bias_regularizer")}
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "dilation": self.dilation,
            **{name: keras.regularizers.serialize(given) for name, given in regularizers.items()},
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class PatchEmbed(Layers):
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
        self.proj = self.convolution(channels, patch_size, "proj", stride)
        self.norm = self.batch_norm("norm")

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

    def _channels_last(self, shape: Shape) -> Shape:
        if self.data_format == "channels_last":
            return tuple(shape)
        batch, channels, *sides = shape
        return batch, *sides, channels


@keras.saving.register_keras_serializable(package=PACKAGE)
class LargeKernelAttention(Layers):
    """A large kernel decomposed into near, far and 1x1 convolutions, whose output gates the input."""

    def __init__(self, channels: int, near: int, far: int, dilation: int, attention: str, **options: Any) -> None:
        super().__init__(**options)
        sizes, kind = {"channels": channels, "near": near, "far": far}, attention
        self.arguments = {**sizes, "dilation": dilation, "attention": attention}
        self.conv0 = self.conv_spatial = self.conv1 = None
        if kind != "no_dw":
            self.conv0 = self.part(Depthwise, "conv0", kernel_size=near)
        if kind != "no_dw_d":
            self.conv_spatial = self.part(Depthwise, "conv_spatial", kernel_size=far, dilation=dilation)
        if kind != "no_1x1":
            self.conv1 = self.pointwise(channels, "conv1")
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
            return ops.multiply(x, attention)
        if self.gate == "sigmoid":
            return ops.multiply(x, ops.sigmoid(attention))
        return ops.add(x, attention) if self.gate == "add" else attention

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


@keras.saving.register_keras_serializable(package=PACKAGE)
class Attention(Layers):
    """1x1, GELU, large kernel attention, 1x1, around an inner shortcut."""

    def __init__(self, channels: int, near: int, far: int, dilation: int, attention: str, **options: Any) -> None:
        super().__init__(**options)
        sizes = {"channels": channels, "near": near, "far": far}
        self.arguments = {**sizes, "dilation": dilation, "attention": attention}
        self.proj_1 = self.pointwise(channels, "proj_1")
        self.spatial_gating_unit = self.part(LargeKernelAttention, "spatial_gating_unit", **self.arguments)
        self.proj_2 = self.pointwise(channels, "proj_2")

    def build(self, shape: Shape) -> None:
        for layer in (self.proj_1, self.spatial_gating_unit, self.proj_2):
            layer.build(shape)

    def call(self, x: Any) -> Any:
        branch = self.proj_2(self.spatial_gating_unit(ops.gelu(self.proj_1(x), approximate=False)))
        return ops.add(x, branch)

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape


@keras.saving.register_keras_serializable(package=PACKAGE)
class FeedForward(Layers):
    """1x1 expansion, depthwise 3x3, GELU, 1x1 projection."""

    def __init__(self, channels: int, hidden: int, drop_rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.arguments = {"channels": channels, "hidden": hidden, "drop_rate": drop_rate}
        self.hidden = hidden
        self.fc1 = self.pointwise(hidden, "fc1")
        self.dwconv = self.part(Depthwise, "dwconv", kernel_size=3)
        self.fc2 = self.pointwise(channels, "fc2")
        self.drop = self.part(keras.layers.Dropout, "drop", rate=drop_rate)

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
class Block(Layers):
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
        self.layer_scale_init, self.norm_eval = layer_scale_init, norm_eval
        kernels = {"near": near, "far": far, "dilation": dilation, "attention": attention}
        self.norm1 = self.batch_norm("norm1")
        self.attn = self.part(Attention, "attn", channels=channels, **kernels)
        self.norm2 = self.batch_norm("norm2")
        self.mlp = self.part(FeedForward, "mlp", channels=channels, hidden=hidden, drop_rate=drop_rate)
        # stochastic depth: a sample's branch is kept or dropped as a whole
        whole = (None, 1, 1, 1)
        self.drop_path = self.part(keras.layers.Dropout, "drop_path", rate=drop_path_rate, noise_shape=whole)

    def build(self, shape: Shape) -> None:
        for layer in (self.norm1, self.attn, self.norm2, self.mlp):
            layer.build(shape)
        start = keras.initializers.Constant(self.layer_scale_init)
        self.layer_scale_1 = self.add_weight(shape=(shape[-1],), initializer=start, name="layer_scale_1")
        self.layer_scale_2 = self.add_weight(shape=(shape[-1],), initializer=start, name="layer_scale_2")

    def call(self, x: Any, training: bool | None = None) -> Any:
        norms = {"training": False if self.norm_eval else training}
        branch = ops.multiply(self.layer_scale_1, self.attn(self.norm1(x, **norms)))
        x = ops.add(x, self.drop_path(branch, training=training))
        branch = ops.multiply(self.layer_scale_2, self.mlp(self.norm2(x, **norms), training=training))
        return ops.add(x, self.drop_path(branch, training=training))

    def compute_output_shape(self, shape: Shape) -> Shape:
        return shape
