"""Images as the weights expect them, as a Keras layer: what `van.Preprocess` does, on tensors.

Shapes: N batch, H and W sides of the images as they come, C channels of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

import keras
from keras import ops

from ..errors import ConfigError
from ..images import preprocess as records
from ..images.preprocess import Preprocess, resized
from . import pipeline, presets
from . import weights as files
from .layers import PACKAGE
from .options import data_format_of
from .resample import GRAY, height_first, matrix

_CHANNELS = "images have {} channels in {}; expected 3 (RGB) or 1 (gray)"


@keras.saving.register_keras_serializable(package=PACKAGE)
class VANImageConverter(keras.layers.Layer):
    """Pixels 0 … 255 of any size -> what the network was evaluated with, within one gray level of `van.Preprocess`.

    (N, H, W, C) or one image (H, W, C) -> (N, height, width, C); channels first with that data format. Gray becomes
    RGB and RGB gray as the record requires. Arguments: the fields of `van.images.preprocess.Preprocess`.
    Raises ConfigError for impossible fields and for images of other channels.
    """

    def __init__(
        self,
        size: int | Sequence[int] = (224, 224),
        crop_pct: float = 0.9,
        interpolation: str = "bicubic",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        resize: str = "shortest",
        data_format: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        fields = {"crop_pct": crop_pct, "interpolation": interpolation, "resize": resize}
        sides = size if isinstance(size, int) else tuple(size)
        self.record = Preprocess(size=sides, mean=tuple(mean), std=tuple(std), **fields)  # type: ignore[arg-type]
        self.data_format = data_format_of(data_format)

    @classmethod
    def from_preset(cls, preset: str | Path, **options: Any) -> VANImageConverter:
        """Of the weights of a preset (see `VAN.presets`), or in a preset's folder or a checkpoint.

        Raises UnknownNameError, ConfigError or CheckpointError.
        """
        if presets.is_preset(preset):
            return cls.from_config({**presets.converter_config(preset), **options})
        if Path(preset).exists():
            record = files.read(preset, {}).preprocess
            if record is None:
                raise ConfigError(f"{preset} does not say how its images are preprocessed; pass the fields yourself")
        else:
            record = getattr(records, files.row_of(str(preset)).preprocess.upper())
        return cls(**{**record.to_dict(), **options})

    def __call__(self, images: Any, *args: Any, **options: Any) -> Any:
        """As of any layer; in a tf.data pipeline as TensorFlow's operations, whatever the backend."""
        if keras.backend.backend() != "tensorflow" and pipeline.is_symbolic(images):
            return self._in_graph(images)
        return super().__call__(images, *args, **options)

    def call(self, images: Any) -> Any:
        x = ops.convert_to_tensor(images)
        if None in x.shape:
            return self._in_graph(x)
        single = len(x.shape) == 3
        x = ops.expand_dims(x, 0) if single else x
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 2, 3, 1))
        x = self._prepared(x)
        if self.data_format == "channels_first":
            x = ops.transpose(x, (0, 3, 1, 2))
        return x[0] if single else x

    def compute_output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        sides, channels = self.record.size, self.record.channels
        image = (*sides, channels) if self.data_format == "channels_last" else (channels, *sides)
        return *tuple(shape)[:-3], *image

    def compute_output_spec(self, images: Any) -> Any:
        return keras.KerasTensor(self.compute_output_shape(images.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.record.to_dict(), "data_format": self.data_format}

    def _prepared(self, x: Any) -> Any:
        """(N, H, W, any channels) -> (N, height, width, C)."""
        height, width = (int(side) for side in x.shape[1:3])
        x = self._colored(ops.cast(x, "float32"))
        (new_width, new_height), (tall, wide) = resized(self.record, width, height), self.record.size
        # Python's round is to even, as in the executor; Pillow keeps 8 bits between its two steps
        top, left = round((new_height - tall) / 2), round((new_width - wide) / 2)
        how = self.record.interpolation
        steps = [
            ("nhwc,vw->nhvc", matrix(width, new_width, left, wide, how)),
            ("nhwc,uh->nuwc", matrix(height, new_height, top, tall, how)),
        ]
        if height_first(numpy, (height, width), (new_height, new_width)):
            steps.reverse()
        for product, weights in steps:
            x = _whole(ops.einsum(product, x, weights))
        x = (x / 255.0 - ops.array(self.record.mean, "float32")) / ops.array(self.record.std, "float32")
        return ops.cast(x, self.compute_dtype)

    def _colored(self, x: Any) -> Any:
        """In the record's channels, by Pillow's mixture."""
        has, wants = x.shape[-1], self.record.channels
        if has == wants:
            return x
        if (has, wants) == (1, 3):
            return ops.repeat(x, 3, axis=-1)
        if (has, wants) == (3, 1):
            mixed = ops.sum(x * ops.array(GRAY, "float32"), axis=-1, keepdims=True)
            return ops.floor((mixed + 32768) / 65536)
        raise ConfigError(_CHANNELS.format(has, self.data_format))

    def _in_graph(self, images: Any) -> Any:
        """In a TensorFlow graph, which may not know the images' size."""
        channels = images.shape[-1 if self.data_format == "channels_last" else -3]
        if channels not in (1, 3):
            raise ConfigError(_CHANNELS.format(channels, self.data_format))
        return pipeline.prepared(self.record, images, self.data_format, self.compute_dtype)


def _whole(x: Any) -> Any:
    """Rounded to 8 bits."""
    return ops.clip(ops.floor(x + 0.5), 0, 255)
