"""What `VANImageConverter` does, as TensorFlow's operations: for tf.data pipelines, under every backend of Keras.

Sizes may be known to the graph alone; everything that depends on them is computed in it, in float64 as Python does.

Shapes: N batch, H and W sides of the images as they come, C channels of the network.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from ..images.preprocess import MAX_RESIZED_PIXELS, Preprocess
from .resample import GRAY, height_first, nearest, weighted


def is_symbolic(x: Any) -> bool:
    """Whether x is a tensor of a TensorFlow graph."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and tf.is_tensor(x) and not hasattr(x, "numpy")


def prepared(record: Preprocess, images: Any, data_format: str, dtype: str) -> Any:
    """(N, H, W, 1 or 3) or one image without N -> (N, height, width, C) of that dtype; channels first likewise."""
    import tensorflow as tf

    single, first = images.shape.rank == 3, data_format == "channels_first"
    x = images[None] if single else images
    x = tf.cast(tf.transpose(x, (0, 2, 3, 1)) if first else x, tf.float32)
    shape = tf.cast(tf.shape(x), tf.float64)
    x = _colored(tf, record, x)
    new_height, new_width = _resized(tf, record, shape[1], shape[2])
    (tall, wide), how = record.size, record.interpolation
    rows = _matrix(tf, shape[2], new_width, tf.round((new_width - wide) / 2), wide, how)
    columns = _matrix(tf, shape[1], new_height, tf.round((new_height - tall) / 2), tall, how)

    def across(x: Any) -> Any:
        return _whole(tf, tf.einsum("nhwc,vw->nhvc", x, rows))

    def down(x: Any) -> Any:
        return _whole(tf, tf.einsum("nhwc,uh->nuwc", x, columns))

    x = tf.cond(
        height_first(tf, (shape[1], shape[2]), (new_height, new_width)),
        lambda: across(down(x)),
        lambda: down(across(x)),
    )
    x = (x / 255.0 - tf.constant(record.mean, tf.float32)) / tf.constant(record.std, tf.float32)
    x = tf.cast(tf.ensure_shape(x, (images.shape[0] if not single else 1, tall, wide, record.channels)), dtype)
    x = tf.transpose(x, (0, 3, 1, 2)) if first else x
    return x[0] if single else x


def _colored(tf: Any, record: Preprocess, x: Any) -> Any:
    """In the record's channels, by Pillow's mixture."""
    has, wants = x.shape[-1], record.channels
    if has == wants:
        return x
    if has == 1:
        return tf.repeat(x, 3, axis=-1)
    return tf.floor((tf.reduce_sum(x * tf.constant(GRAY, tf.float32), -1, keepdims=True) + 32768) / 65536)


def _resized(tf: Any, record: Preprocess, height: Any, width: Any) -> tuple[Any, Any]:
    """`van.images.preprocess.resized` of float64 tensors: (new height, new width)."""
    tall, wide = record.size
    if record.resize == "squash":
        return tf.constant(tall, tf.float64), tf.constant(wide, tf.float64)
    short, other = (tf.constant(math.floor(side / record.crop_pct), tf.float64) for side in (tall, wide))
    if tall == wide:
        long = tf.floor(short * tf.maximum(height, width) / tf.minimum(height, width))
        upright = width <= height
        new_height, new_width = tf.where(upright, long, short), tf.where(upright, short, long)
    else:
        ratio = tf.minimum(height / short, width / other)
        new_height, new_width = tf.round(height / ratio), tf.round(width / ratio)
    stated = f"an image would be resized to more than {MAX_RESIZED_PIXELS} pixels; crop it, or use resize='squash'"
    limit = tf.constant(MAX_RESIZED_PIXELS, tf.float64)
    with tf.control_dependencies([tf.debugging.assert_less_equal(new_height * new_width, limit, stated)]):
        return tf.identity(new_height), tf.identity(new_width)


def _matrix(tf: Any, before: Any, after: Any, first: Any, count: int, interpolation: str) -> Any:
    """`resample.matrix` of sizes that are float64 tensors."""
    np = tf.experimental.numpy
    at, pixels = first + tf.range(count, dtype=tf.float64)[:, None], tf.range(before, dtype=tf.float64)
    if interpolation != "nearest":
        return tf.cast(weighted(np, at, pixels, before, after, interpolation), tf.float32)
    scale = before / after
    steps = tf.concat([[0.5 * scale], tf.fill([tf.cast(after, tf.int32) - 1], scale)], 0)
    whole = tf.cast(at, tf.int64), pixels, steps, tf.cast(after, tf.int64)
    return tf.cast(nearest(np, *whole), tf.float32)


def _whole(tf: Any, x: Any) -> Any:
    """Rounded to 8 bits."""
    return tf.clip_by_value(tf.floor(x + 0.5), 0, 255)
