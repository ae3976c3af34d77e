"""Image processing of VAN folders in transformers: what a folder's file says, and a warning where that is wrong.

The published folders name ConvNeXt's processor with ImageNet's mean and std, unlike what their weights were trained
and evaluated with. transformers finds a processor by the class name in the file and asks registered classes first, so
the classes registered here have ConvNeXt's names. They are doors: `from_pretrained` loads the original class, returns
it unchanged, and, for a folder of VAN, compares it with the weight's record.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor
from transformers.utils import cached_file, is_torchvision_available

from ...configs.published_weights import by_hub_id
from ...errors import VanError, VanNotice
from ...files import read_json
from ...images.preprocess import INTERPOLATIONS, OFFICIAL, Preprocess
from .configuration import RECORD, VanConfig

PUBLISHED_CLASSES = 1000  # no published folder has another head; one that has was trained by its user


def register() -> None:
    """Give VAN folders ConvNeXt's processors, through a class that checks what it loads."""
    classes = {"pil": _door(transformers.ConvNextImageProcessorPil)}
    if is_torchvision_available():
        classes["torchvision"] = _door(transformers.ConvNextImageProcessor)
    AutoImageProcessor.register(VanConfig, image_processor_classes=classes)


def _door(original: Any) -> type:
    def from_pretrained(cls: type, name: Any, *inputs: Any, **options: Any) -> Any:
        loaded = original.from_pretrained(name, *inputs, **options)
        warn_of_contradiction(name, loaded[0] if isinstance(loaded, tuple) else loaded, options)
        return loaded

    members = {"from_pretrained": classmethod(from_pretrained), "__module__": __name__, "__doc__": original.__doc__}
    return type(original.__name__, (original,), members)


def warn_of_contradiction(name: Any, processor: Any, options: dict[str, Any]) -> None:
    """Say where a processor differs from the record of the weights in the same folder or repository."""
    record = _record(name, options)
    wrong = [] if record is None else _differences(processor, record)
    if wrong:
        warnings.warn(
            f"the processor file of {name} has {'; '.join(wrong)}. It is kept; van.Predictor uses the weights' record, "
            "and `van convert --to transformers` writes a folder whose file is right",
            VanNotice,
            stacklevel=4,
        )


def _differences(processor: Any, record: Preprocess) -> list[str]:
    said = {
        "image_mean": (tuple(processor.image_mean), record.mean),
        "image_std": (tuple(processor.image_std), record.std),
        "crop_pct": (processor.crop_pct, record.crop_pct),
        "resample": (int(processor.resample), int(INTERPOLATIONS[record.interpolation])),
    }
    return [f"{key}={got}, the weights were evaluated with {want}" for key, (got, want) in said.items() if got != want]


def _record(name: Any, options: dict[str, Any]) -> Preprocess | None:
    """How the weights in a folder or repository were evaluated; None if unknown, or not VAN's."""
    row = by_hub_id(str(name))
    if row is not None:
        return OFFICIAL if row.format == "transformers" else None
    stated = _config_of(name, options)
    if stated.get("model_type") != "van":
        return None
    try:
        return Preprocess.from_dict(stated[RECORD]["preprocess"])
    except (KeyError, TypeError, VanError):
        return (
            OFFICIAL
            if len(stated["id2label"] if isinstance(stated.get("id2label"), dict) else ()) == PUBLISHED_CLASSES
            else None
        )


def _config_of(name: Any, options: dict[str, Any]) -> dict[str, Any]:
    """config.json beside the processor file, without using the network; empty when it is not there."""
    where = {key: options[key] for key in ("cache_dir", "revision", "subfolder") if options.get(key)}
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    try:
        path = cached_file(name, "config.json", local_files_only=True, **where, **quiet)
        stated = read_json(Path(path)) if path else {}
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}
