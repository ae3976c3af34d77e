"""Weights of every format into Keras's variables and out again; arrays in between, no torch but for its pickles."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import keras

from .. import checkpoints
from ..checkpoints import Checkpoint, layout
from ..checkpoints import keras as files
from ..checkpoints.limits import ReadBack
from ..checkpoints.reading import RECORD, describe
from ..configs.backbone import ALIASES, VARIANTS
from ..configs.published_weights import WEIGHTS, Weight
from ..errors import CheckpointError, ConfigError, UnknownNameError, VanNotice

if TYPE_CHECKING:
    from .model import VAN

HEAD = ("head.weight", "head.bias")
CACHE = "models/van"  # in Keras's own
PRESET_HEAD = "task.weights.h5"  # in folders that keras-hub or `save_to_preset` writes
# What changes the outputs and is in no tensor's shape.
_UNSHAPED = ("strides", "layer_norm_eps", "attention", "dilation", "kernel_size")

# The published classifiers that a program can download, keras-hub's way: name -> what it is.
PRESETS: dict[str, dict[str, Any]] = {
    row.name: {
        "metadata": {
            "description": f"{row.model} of {row.dataset}, as {row.format}; {row.licence}",
            "path": row.model,
            "top1": row.top1,
        },
        "weights": row.source,
    }
    for row in WEIGHTS
    if row.model in VARIANTS and row.kind in ("hub", "url")
}


def pretrained_row(model: str) -> Weight:
    """The ImageNet-1K weights of a size, the port's file before OpenMMLab's; raises ConfigError if there are none."""
    rows = {row.name: row for row in WEIGHTS}
    for name in (f"keras/{model}", f"openmmlab/{model}"):
        if name in rows and rows[name].dataset == "in1k":
            return rows[name]
    valid = sorted({row.model for row in WEIGHTS if row.name.startswith(("keras/", "openmmlab/")) and row.top1})
    raise ConfigError(f"no ImageNet-1K weights were published for {model}; there are some for {', '.join(valid)}")


def read(source: str | Path, known: Mapping[str, Any], *, ema: bool = False) -> Checkpoint:
    """The classifier in a file, a folder, a preset or a repository of the hub; of a segmenter the backbone.

    Raises CheckpointError for what cannot be read, is nowhere, or contradicts `known` (fields of VanConfig).
    """
    path = _local(source)
    if (path / PRESET_HEAD).is_file():
        raise CheckpointError(f"{path} is the folder of a preset, with the head in a file of its own; use from_preset")
    checkpoint = checkpoints.read(path, ema=ema, **known)
    return checkpoint.as_classifier()


def _local(source: str | Path) -> Path:
    if Path(source).exists():
        return Path(source)
    row = next((row for row in WEIGHTS if row.name == str(source)), None)
    if row is not None and row.kind == "url":
        return _downloaded(row)
    from ..checkpoints import hub  # slow to import, and a path needs none

    if row is not None and row.repo is not None:
        return hub.download(row.repo, revision=row.revision)
    name = str(source).removeprefix("hf://")
    return hub.download(name) if hub.is_hub_id(name) else Path(source)


def _downloaded(row: Weight) -> Path:
    """The file of a row in Keras's cache."""
    try:
        path = Path(keras.utils.get_file(row.filename, row.url, cache_subdir=CACHE))
    except Exception as error:  # Keras raises plain exceptions for whatever a server says
        place = Path(os.environ.get("KERAS_HOME") or "~/.keras") / CACHE / str(row.filename)
        raise CheckpointError(
            f"the weights {row.name} could not be downloaded ({' '.join(str(error).split())}); try again, or "
            f"download {row.url} elsewhere and save it as {place}, or pass the file: weights='{row.filename}'"
        ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(row.sha256 or ""):
        raise CheckpointError(f"{path} is not the published file: its sha256 is {found}, not {row.sha256}…; delete it")
    return path


def assign(model: VAN, checkpoint: Checkpoint) -> None:
    """Put the arrays into the model's variables; its head stays as it is where the checkpoint's has another width."""
    head = model.config.num_classes == checkpoint.config.num_classes
    for key, variable in _variables(model):
        if head or key not in HEAD:
            variable.assign(files.to_keras(key, checkpoint.arrays[key]))


def load(model: VAN, source: str | Path, skip_mismatch: bool) -> None:
    """Put the weights in a file of any format into a model, all or nothing; skip_mismatch: those that fit.

    Raises CheckpointError for what does not fit. Warns with VanNotice about what is skipped.
    """
    checkpoint = read(source, {})
    if not skip_mismatch:
        require_fit(model, checkpoint)
        assign(model, checkpoint)
        return
    _require_unshaped(model, checkpoint)
    arrays = {key: files.to_keras(key, array) for key, array in checkpoint.arrays.items()}
    variables = dict(_variables(model))
    fitting = [key for key, variable in variables.items() if key in arrays and arrays[key].shape == variable.shape]
    if not fitting:
        raise CheckpointError(f"no tensor of {source} has the shape that the model's has; build a model of its size")
    for key in fitting:
        variables[key].assign(arrays[key])
    if skipped := [key for key in variables if key not in fitting]:
        stated = (
            f"{len(skipped)} of the model's {len(variables)} tensors are not in {source} or have another shape there"
        )
        warnings.warn(f"{stated} and are left unchanged: {layout.listed(skipped)}", VanNotice, stacklevel=3)


def require_fit(model: VAN, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the checkpoint is of the model's network, head included."""
    layout.check(checkpoint.arrays, model.config, what="the file")
    _require_unshaped(model, checkpoint)


def _require_unshaped(model: VAN, checkpoint: Checkpoint) -> None:
    for name in _UNSHAPED:
        ours, theirs = getattr(model.config, name), getattr(checkpoint.classifier, name)
        if ours != theirs:
            raise CheckpointError(f"the file's {name} is {theirs}, the model's {ours}; build the model with the file's")


def checkpoint_of(model: VAN) -> Checkpoint:
    """The model's weights as arrays, with what is known about them."""
    arrays = {key: files.from_keras(key, _numbers(variable)) for key, variable in _variables(model)}
    counted = layout.with_counters(arrays)
    return _described(model, {key: counted[key] for key in layout.shapes(model.config)})


def save(model: VAN, path: str | Path, *, format: str = "keras") -> None:  # noqa: A002
    """Write a VAN to a file (or folder) of any checkpoint format, with its classes and preprocessing.

    format: "keras" (`.weights.h5`), "van", "official", "mmpretrain", "mmseg" or "transformers".
    Warns with VanNotice about what is lost in the format.
    Raises CheckpointError for a place that cannot be written, UnknownNameError for a format.
    """
    for sentence in checkpoints.write(checkpoint_of(model), path, format):
        if not isinstance(sentence, ReadBack):
            warnings.warn(f"{format} cannot carry {sentence}", VanNotice, stacklevel=2)


def add_record(model: VAN, path: str | Path, *, head: bool = True) -> None:
    """Write our record into a `.weights.h5` that Keras saved: it holds what no tensor shows, for example epsilon.

    The layers get the names there that readers know, whatever they were renamed to; Keras itself goes by their order.
    head: False for a file of the backbone alone.
    """
    import h5py

    renamed = {layer.name: name for name, layer in model.parts.layers.items() if layer.name != name}
    with h5py.File(path, "a") as file:
        described = _described(model, {})
        if not head:
            described = replace(described, config=model.config.with_options(num_classes=0), classes=None)
        file.attrs[RECORD] = json.dumps(describe(described))
        for group in file["layers"].values() if renamed else ():
            attributes = group["vars"].attrs if "vars" in group else {}
            if attributes.get("name") in renamed:
                attributes["name"] = renamed[attributes["name"]]


def _described(model: VAN, arrays: dict[str, np.ndarray]) -> Checkpoint:
    return Checkpoint(
        arrays=arrays,
        config=model.config,
        format="keras",
        classes=model.classes,
        preprocess=model.preprocess,
        provenance=dict(model.provenance),
    )


def _numbers(variable: Any) -> np.ndarray:
    """The variable as an array; bfloat16, which numpy has not, as float32, which holds it exactly."""
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _variables(model: VAN) -> Iterator[tuple[str, Any]]:
    """(canonical key, Keras's variable) of everything but BatchNorm's counters, which Keras has not."""
    for key in layout.shapes(model.config):
        if key.endswith(files.COUNTER):
            continue
        name, *path, _, index = files.KERAS_3.foreign(key).split("/")
        layer = model.parts.layers[name]
        for attribute in path:
            layer = getattr(layer, attribute)
        for change in ("quantization_mode", "lora_enabled"):
            if getattr(layer, change, None):
                raise CheckpointError(
                    f"layer {layer.name} is changed ({change} is {getattr(layer, change)}), and its variables are not "
                    "plain weights; load before that, and save with Keras (.keras or .weights.h5)"
                )
        yield key, (*layer._trainable_variables, *layer._non_trainable_variables)[int(index)]


def row_of(preset: str) -> Weight:
    """The row of a preset, of a size (`van_b0`) that of its ImageNet-1K weights; raises UnknownNameError."""
    size = ALIASES.get(preset, preset)
    if size in VARIANTS:
        return pretrained_row(size)
    if preset not in PRESETS:
        raise UnknownNameError.of("preset", preset, PRESETS)
    return next(row for row in WEIGHTS if row.name == preset)
