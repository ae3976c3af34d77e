"""Depthwise convolution of channels_last maps, done the way each backend is fast and right at.

Measured on two CPU cores at the sizes of the network: XLA's grouped convolution is 10 to 50 times slower than the same
sum written out tap by tap, which it fuses into one loop; op by op, TensorFlow's own kernel is the faster one; torch's
kernel falls to a slow path once it has to pad by more than 6 (docs/decisions.md).

Shapes: N batch, H height, W width, C channels, k side of the kernel.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import keras
from keras import ops


def depthwise(x: Any, kernel: Any, dilation: int = 1) -> Any:
    """(N, H, W, C) with (k, k, C, 1) -> (N, H, W, C), zeros around the map."""
    reach = (kernel.shape[0] - 1) * dilation
    before = reach // 2
    if keras.backend.backend() == "tensorflow" and not _traced_for_xla():
        return ops.depthwise_conv(x, kernel, padding="same", data_format="channels_last", dilation_rate=dilation)
    x = ops.pad(x, ((0, 0), (before, reach - before), (before, reach - before), (0, 0)))
    if _fuses_sums():
        return _fused()(x, kernel, dilation)
    return ops.depthwise_conv(x, kernel, padding="valid", data_format="channels_last", dilation_rate=dilation)


@functools.cache
def _fused() -> Any:
    """The sum of taps; in JAX as one compiled function, or an eager call would compile every tap on its own."""
    if keras.backend.backend() != "jax":
        return _differentiable
    import jax

    return jax.jit(_differentiable, static_argnums=2)


def _differentiable(x: Any, kernel: Any, dilation: int) -> Any:
    """The valid convolution of a padded map, with gradients that compile in seconds, not minutes."""

    @ops.custom_gradient
    def convolution(x: Any, kernel: Any) -> Any:
        def gradient(*args: Any, upstream: Any = None) -> tuple[Any, Any]:
            upstream = args[0] if upstream is None else upstream
            reach = (kernel.shape[0] - 1) * dilation
            padded = ops.pad(upstream, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
            to_x = _sum_of_taps(padded, ops.flip(kernel, axis=(0, 1)), dilation)
            return to_x, _kernel_gradient(x, upstream, kernel, dilation)

        return _sum_of_taps(x, kernel, dilation), gradient

    return convolution(x, kernel)


def _sum_of_taps(x: Any, kernel: Any, dilation: int) -> Any:
    """The convolution written out, accumulated in float32."""
    side, kind = kernel.shape[0], x.dtype
    x, kernel = ops.cast(x, "float32"), ops.cast(kernel, "float32")
    reach, total = (side - 1) * dilation, None
    for i in range(side):
        for j in range(side):
            rows, columns = (slice(at, at - reach or None) for at in (i * dilation, j * dilation))
            tap = x[:, rows, columns] * kernel[i, j, :, 0]
            total = tap if total is None else total + tap
    return ops.cast(total, kind)


def _kernel_gradient(x: Any, upstream: Any, kernel: Any, dilation: int) -> Any:
    """(k, k, C, 1), one tap after the other: each is a sum over a window of the map."""
    x, upstream = ops.cast(x, "float32"), ops.cast(upstream, "float32")
    shape, side = ops.shape(upstream), kernel.shape[0]

    def tap(at: Any) -> Any:
        window = ops.slice(x, (0, at[0], at[1], 0), shape)
        return ops.sum(window * upstream, axis=(0, 1, 2))

    corners = dilation * np.stack(np.meshgrid(range(side), range(side), indexing="ij"), -1).reshape(-1, 2)
    taps = ops.map(tap, ops.convert_to_tensor(corners, "int32"))  # (k * k, C)
    return ops.cast(ops.reshape(taps, kernel.shape), kernel.dtype)


def _fuses_sums() -> bool:
    """Whether XLA compiles for a CPU here; on accelerators libraries have real depthwise kernels."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return keras.backend.backend() == "tensorflow" and _tensorflow_on_cpu()


@functools.cache
def _tensorflow_on_cpu() -> bool:
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def _traced_for_xla() -> bool:
    """Whether TensorFlow is tracing a function with jit_compile=True; there is no public way to ask."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
    except ImportError:
        return False
    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))
