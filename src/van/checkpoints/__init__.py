"""Checkpoint files in and out: every format becomes the same numpy arrays under the same keys.

A format is a module with `detect`, `read` and `write` (see `checkpoint.Format`) and one row below.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

from ..configs.head_config import HeadConfig
from ..configs.model_config import ModelConfig
from ..errors import CheckpointError, UnknownNameError
from ..files import why_no_path
from . import beside, files
from .checkpoint import Checkpoint, Content, Format
from .damage import named_damage
from .summary import Info, summarize

__all__ = ["FORMATS", "Checkpoint", "Content", "Info", "read", "summarize", "write"]

# Format -> module, in the order in which their `detect` is called.
FORMATS = {
    "van": "native",
    "tfvan": "tfvan",
    "keras": "keras",
    "paddle": "paddle",
    "flax": "flax",
    "transformers": "transformers",
    "mmpretrain": "mmpretrain",
    "mmseg": "mmseg",
    "official": "official",
}
# Those with a place for other heads than a classifier's, by their section in a record; None: for every head.
HEADS: dict[str, tuple[str, ...] | None] = {"van": None, "mmseg": ("segmenter",)}


def module_of(name: str) -> Format:
    """The module of a format; raises UnknownNameError."""
    if name not in FORMATS:
        raise UnknownNameError.of("checkpoint format", name, FORMATS)
    return cast(Format, importlib.import_module(f".{FORMATS[name]}", __name__))


def read(path: str | Path, *, ema: bool = False, **known: Any) -> Checkpoint:
    """The checkpoint in a file or folder, its format detected from what is inside.

    ema: take the averaged weights; an error where the file has none.
    known: fields of VanConfig, for a segmenter also of SegmenterConfig, that the caller states, for what the file
        does not contain (`layer_norm_eps=1e-5`).
    Raises CheckpointError for what is missing, broken, not a checkpoint or contradicts `known`; UnsafeFileError for a
    pickle with more than tensors.
    """
    if reason := why_no_path(path):
        raise CheckpointError(f"{str(path)!r} {reason}; expected a checkpoint file or folder")
    with named_damage(path):
        content = files.open_content(Path(path))
        for name in FORMATS:
            module = module_of(name)
            if module.detect(content):
                found = module.read(content, ema=ema, known=known)
                # transformers' own format is these files as much as the weights
                return found if name == "transformers" or not content.beside else beside.complete(found, content)
        raise CheckpointError(f"{path} holds no Visual Attention Network; {files.summarize_content(content)}")


def formats_of(config: ModelConfig) -> list[str]:
    """The formats that have a place for all of a model."""
    if not isinstance(config, HeadConfig):
        return [*FORMATS]
    return [name for name, heads in HEADS.items() if heads is None or config.section in heads]


def write(checkpoint: Checkpoint, path: str | Path, format: str = "van") -> list[str]:  # noqa: A002
    """Write the checkpoint; returns what the format cannot carry, one sentence each.

    Raises CheckpointError when the place cannot be written, or the checkpoint is a segmenter and the format has no
    place for its heads; UnknownNameError for an unknown format.
    """
    if reason := why_no_path(path):
        raise CheckpointError(f"cannot write {str(path)!r}: it {reason}; give a file name")
    module = module_of(format)
    if format not in (able := formats_of(checkpoint.config)):
        raise CheckpointError(
            f"the format {format} can hold only the backbone of a {checkpoint.name}; use "
            f"{' or '.join(able)} for the whole model, or load with backbone_only=True for the backbone alone"
        )
    return module.write(checkpoint, Path(path))
