"""What keras.applications' modules have beside their networks: preprocess_input and decode_predictions.

Shapes: N batch, H and W sides of the images, C channels, K classes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import keras

from ..errors import ConfigError, DataError
from ..images.preprocess import OFFICIAL, Preprocess
from . import pipeline
from .options import data_format_of, preprocess_of

CLASSES = 1000
_INDEX = "imagenet_class_index.json"
_INDEX_URL = f"https://storage.googleapis.com/download.tensorflow.org/data/{_INDEX}"


def preprocess_input(x: Any, data_format: str | None = None, preprocess: Any = None) -> Any:
    """Pixels 0 … 255 (N, H, W, C) or (H, W, C), of the network's size already -> what the network expects, float32.

    preprocess: the record whose mean and deviation are used, e.g. `model.preprocess`; None for B0 … B3's. The size
    stays: `VANImageConverter` resizes and crops as well.
    Raises ConfigError for images of other channels.
    """
    record: Preprocess = preprocess_of(preprocess) or OFFICIAL
    data_format = data_format_of(data_format)
    shape = getattr(x, "shape", np.shape(x))
    axis = -1 if data_format == "channels_last" else -3
    if len(shape) not in (3, 4) or shape[axis] != record.channels:
        raise ConfigError(f"images are of shape {tuple(shape)}; expected {record.channels} channels, {data_format}")
    sides = (-1,) if data_format == "channels_last" else (-1, 1, 1)
    mean, std = (np.array(values, np.float32).reshape(sides) for values in (record.mean, record.std))
    if pipeline.is_symbolic(x):
        import tensorflow as tf

        return (tf.cast(x, tf.float32) / 255.0 - mean) / std
    if isinstance(x, np.ndarray | list | tuple):
        return (np.asarray(x, np.float32) / np.float32(255) - mean) / std
    return (keras.ops.cast(x, "float32") / 255.0 - mean) / std


def decode_predictions(
    preds: Any, top: int = 5, classes: Sequence[str] | None = None
) -> list[list[tuple[str, str, float]]]:
    """(N, K) scores -> for each image the `top` best classes as (id, name, score), the best first.

    classes: names in the head's order, e.g. `model.classes`, whose ids are their numbers; None for the 1000 classes of
    ImageNet-1K, whose ids are WordNet's. Logits stay logits: classifier_activation="softmax" gives probabilities.
    Raises ConfigError for another number of classes, DataError where ImageNet's names cannot be had.
    """
    scores = keras.ops.convert_to_numpy(preds)
    if scores.ndim != 2:
        raise ConfigError(f"predictions are of shape {scores.shape}; expected (N, K), one row per image")
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ConfigError(f"top is {top!r}; expected how many classes to name, e.g. 5")
    count = CLASSES if classes is None else len(classes)
    if scores.shape[1] != count:
        hint = "pass classes=model.classes" if classes is None else "give one name for each"
        raise ConfigError(f"predictions have {scores.shape[1]} classes, the names {count}; {hint}")
    known = _imagenet() if classes is None else [(str(i), str(name)) for i, name in enumerate(classes)]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*known[i], float(row[i])) for i in order] for row, order in zip(scores, best, strict=True)]


def _imagenet() -> list[tuple[str, str]]:
    """(WordNet's id, name) in the order of the logits: of timm where it is installed, else of Keras's own file."""
    found = importlib.util.find_spec("timm")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        # read, not imported: timm imports torch, which other backends do without
        info = Path(folder) / "data" / "_info"
        if (info / "imagenet_synsets.txt").is_file() and (info / "imagenet_synset_to_lemma.txt").is_file():
            lines = (info / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
            names = dict(line.split("\t", 1) for line in lines if "\t" in line)
            ids = (info / "imagenet_synsets.txt").read_text("utf-8").split()
            return [(each, names[each].strip()) for each in ids]
    try:
        path = keras.utils.get_file(_INDEX, _INDEX_URL, cache_subdir="models")
        table = json.loads(Path(path).read_text("utf-8"))
    except Exception as error:  # Keras raises plain exceptions for whatever a server says
        raise DataError(
            f"the names of ImageNet's classes are not available ({' '.join(str(error).split())}); pip install timm, or "
            f"download {_INDEX_URL} to ~/.keras/models/{_INDEX}, or pass classes"
        ) from error
    return [(table[str(i)][0], table[str(i)][1]) for i in range(len(table))]
