"""What every checkpoint format is read into and written from: numpy arrays under this package's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..preprocess import Preprocess
from ..variants import VanConfig, name_of

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network's weights and what is known about them.

    arrays: canonical key (that of `van.nn.Classifier.state_dict()`) -> array, BatchNorm's counters included;
        always exactly `layout.shapes(config)`.
    format: "van", "official", "mmpretrain", "mmseg", "transformers" or "keras".
    classes: class names in head order; None when unknown. preprocess: None when unknown.
    provenance: plain JSON-ready values: source file, format, licence, scores, …
    origins: config field (or "preprocess") -> "shapes", "metadata", "lineage" or "argument".
    notes: what was dropped or assumed, one sentence each.
    extra: arrays of the file that no classifier has (segmentation heads), under the file's own keys.
    """

    arrays: Arrays
    config: VanConfig
    format: str
    classes: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: Arrays = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The published size, e.g. 'van_b0', or 'van_custom'."""
        return name_of(self.config)


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file or folder that was opened, before its format is known.

    container: "torch" (a pickle), "safetensors", "hdf5", or "folder" (of transformers).
    tree: torch: the unpickled object with tensors as arrays; safetensors and folder: key -> array; hdf5: None, the
        format opens `path` itself.
    metadata: safetensors: the header's strings; folder: {"config": …, "preprocessor": …} from the JSON files beside.
    notes: what opening it had to decide.
    """

    path: Path
    container: str
    tree: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """What a format's module has to offer; `checkpoints.FORMATS` lists them."""

    def detect(self, content: Content) -> bool:
        """Whether the content is of this format, by its keys and never by the file's name."""

    def read(self, content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint; `known` are config fields the caller insists on; raises CheckpointError."""

    def write(self, checkpoint: Checkpoint, path: Path) -> list[str]:
        """Write it to `path`; returns what the format cannot carry, one sentence each."""
