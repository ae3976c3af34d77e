"""Folders as keras-hub writes them: a network's architecture, weights, head and converter, each in a file of its own.

    config.json, model.weights.h5       the backbone
    task.json, task.weights.h5          the classifier, and the weights of its head alone
    image_converter.json                how images are prepared
    metadata.json                       which versions wrote it, and how large it is

keras-hub itself reads such folders of its own classes only.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from ..errors import CheckpointError, ConfigError
from . import weights as files

if TYPE_CHECKING:
    from .model import VAN

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
TASK, HEAD = "task.json", files.PRESET_HEAD
CONVERTER, METADATA = "image_converter.json", "metadata.json"
VERSION = "van_version"


def save(model: VAN, folder: str | Path) -> None:
    """Write the folder's files, each whole or not at all; raises CheckpointError where they cannot be written."""
    folder = Path(folder)
    backbone, head = _halves(model)
    config = {**model.get_config(), "num_classes": 0, "include_top": False, "pooling": None, "classes": None}
    config |= {"classifier_activation": None, "name": f"{model.name}_backbone" if model.include_top else model.name}
    texts = {CONFIG: _described("VANBackbone", config), METADATA: _metadata(model)}
    if model.include_top:
        texts[TASK] = _described("VAN", model.get_config())
    if model.preprocessor is not None:
        texts[CONVERTER] = keras.saving.serialize_keras_object(model.preprocessor)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing") as temporary:
            for name, text in texts.items():
                (Path(temporary) / name).write_text(json.dumps(text, indent=4))
            backbone.save_weights(Path(temporary) / WEIGHTS)
            files.add_record(model, Path(temporary) / WEIGHTS, head=False)
            if head is not None:
                head.save_weights(Path(temporary) / HEAD)
            for path in Path(temporary).iterdir():
                path.replace(folder / path.name)
    except OSError as error:
        raise CheckpointError(f"cannot write the preset {folder}: {error}; give another folder") from error


def load(cls: Any, preset: str | Path, load_weights: bool, options: dict[str, Any]) -> Any:
    """What `from_preset` of that class promises."""
    if not isinstance(preset, str | Path):
        raise ConfigError(f"preset is {preset!r}; expected a name, a folder or a file")
    if str(preset).startswith("hf://") and load_weights:  # a repository of the hub, as keras-hub spells it
        return cls(weights=str(preset), **options)
    if is_preset(preset):
        return _opened(cls, Path(preset), load_weights, options)
    if Path(preset).exists():
        if not load_weights:
            raise ConfigError(f"{preset} is a file; load_weights=False is for presets, give a configuration")
        return cls(weights=preset, **options)
    row = files.row_of(str(preset))
    return cls(weights=row.name, **options) if load_weights else cls(row.model, **options)


def is_preset(folder: str | Path) -> bool:
    """Whether `save` wrote that folder; an unpacked .keras has files of the same names."""
    try:
        return VERSION in json.loads((Path(folder) / METADATA).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def converter_config(folder: str | Path) -> dict[str, Any]:
    """The arguments of the converter in a folder; raises ConfigError if there are none."""
    path = Path(folder) / CONVERTER
    if not path.is_file():
        raise ConfigError(f"{folder} does not say how its images are preprocessed; pass the fields yourself")
    return _read(path, "VANImageConverter")


def before(model: VAN) -> Any:
    """The layers that an `input_tensor` brought along, as a model; None where the images come in directly."""
    tensor = model.parts.layers["patch_embed1"].input
    if any(tensor is each for each in model.inputs):
        return None
    return keras.Model(model.inputs, tensor, name="before")


def _opened(cls: Any, folder: Path, load_weights: bool, options: dict[str, Any]) -> Any:
    """The model in a preset's folder; a classifier on a preset without a head gets a new one."""
    wants_head = options.get("include_top", cls.__name__ != "VANBackbone")
    has_head = wants_head and (folder / TASK).is_file()
    config = _read(folder / TASK, "VAN") if has_head else _read(folder / CONFIG, "VANBackbone")
    if wants_head and not has_head:
        if "num_classes" not in options and "classes" not in options:
            raise ConfigError(f"{folder} is a backbone; give num_classes for a classifier, or use VANBackbone")
        config |= {"include_top": True, "pooling": "avg", "name": None, "num_classes": None}
    fresh = _settle_head(config, options)
    model = cls.from_config({**config, **options})
    if load_weights:
        backbone, head = _halves(model)
        backbone.load_weights(folder / WEIGHTS)
        if head is not None and has_head and not fresh:
            head.load_weights(folder / HEAD)
    return model


def _settle_head(config: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether `options` ask for another head than the config's, whose names of classes then go."""
    given = options.get("classes")
    count = options.get("num_classes", given if isinstance(given, int) else len(given) if given else None)
    fresh = count is not None and count != config.get("num_classes")
    if fresh:
        config |= {"classes": None, "num_classes": None}
        config["parts"] = {name: changes for name, changes in config.get("parts", {}).items() if name != "head"}
    elif given is not None:
        config["classes"] = None
    return fresh


def _halves(model: VAN) -> tuple[Any, Any]:
    """(the layers up to the last map, those after it or None), as models that share them."""
    last = model.parts.layers[f"norm{model.config.num_stages}"].output
    return keras.Model(model.inputs, last), keras.Model(last, model.output) if model.include_top else None


def _described(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """As keras.saving.serialize_keras_object has it."""
    return {"module": "van.keras.model", "class_name": kind, "config": config, "registered_name": f"van>{kind}"}


def _metadata(model: VAN) -> dict[str, Any]:
    from .. import __version__

    return {
        "keras_version": keras.version(),
        VERSION: __version__,
        "parameter_count": model.count_params(),
    }


def _read(path: Path, kind: str) -> dict[str, Any]:
    """The config in a file of a preset; raises CheckpointError for a config that is not ours."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); save the preset again") from error
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise CheckpointError(f"{path} holds no configuration of a layer or model; save the preset again")
    if found.get("registered_name") != f"van>{kind}":
        raise CheckpointError(f"{path} describes {found.get('registered_name')!r}; expected van>{kind}")
    return found["config"]
