"""What every checkpoint format is read into and written from: numpy arrays under this package's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..configs.backbone import VanConfig
from ..configs.head_config import HeadConfig
from ..configs.metadata import ModelMetadata, Palette
from ..configs.model_config import ModelConfig
from ..errors import CheckpointError, with_article
from ..images.preprocess import Preprocess

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network's weights and what is known about them.

    arrays: canonical key (that of the module's `state_dict()`) -> array, BatchNorm's counters included; always exactly
        `layout.shapes(config)`, but for the Hamburger's bases, which may be absent.
    config: of the model; a classifier's with `num_classes` 0 for a bare backbone.
    format: "van", "official", "mmpretrain", "mmseg", "transformers", "keras", "tfvan", "paddle" or "flax".
    classes: class names in head order; None when unknown. preprocess: None when unknown.
    palette: one (R, G, B) per class of a segmenter; None when unknown.
    provenance: plain JSON-ready values: source file, format, licence, scores, …
    origins: config field (or "preprocess") -> "shapes", "metadata", "lineage" or "argument".
    notes: what was dropped or assumed, one sentence each.
    extra: arrays of the file that belong to no network of ours (other heads), under the file's own keys.
    stored: the floating point types in the file, "float16" or "float16, float32"; bfloat16, which numpy lacks, lies
        widened to float32 in `arrays`. "" for a checkpoint that was in no file yet.
    """

    arrays: Arrays
    config: ModelConfig
    format: str
    classes: tuple[str, ...] | None = None
    palette: Palette | None = None
    preprocess: Preprocess | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: Arrays = field(default_factory=dict)
    stored: str = ""

    @property
    def name(self) -> str:
        """The published model, e.g. 'van_b0' or 'upernet_van_b0', or one that ends in 'van_custom'."""
        return self.config.name

    @property
    def num_classes(self) -> int:
        """Width of the head; 0 for a bare backbone."""
        return self.config.num_classes

    @property
    def backbone(self) -> VanConfig:
        """The configuration of the backbone, its `num_classes` 0."""
        return self.config.backbone

    @property
    def classifier(self) -> VanConfig:
        """The configuration of a classifier or bare backbone; raises CheckpointError for any other model."""
        if isinstance(self.config, HeadConfig):
            raise CheckpointError(
                f"the checkpoint holds a {self.name}, {with_article(self.config.noun)}; expected a classifier"
            )
        return self.config.architecture

    @property
    def metadata(self) -> ModelMetadata:
        """What travels with the model besides weights and configuration."""
        facts: dict[str, Any] = {"preprocess": self.preprocess, "provenance": self.provenance}
        return ModelMetadata(classes=self.classes, palette=self.palette, **facts)

    def as_classifier(self) -> Checkpoint:
        """A classifier's checkpoint as it is; of any other model the backbone alone."""
        return self.without_head() if isinstance(self.config, HeadConfig) else self

    def without_head(self) -> Checkpoint:
        """The backbone alone, as a classifier with `num_classes` 0; what was left out is in the notes."""
        arrays = {key: array for key, array in self.arrays.items() if key.startswith("backbone.")}
        left = len(self.arrays) - len(arrays)
        if not left:
            return self
        note = f"{left} tensors of the {self.config.method} head left out"
        return replace(
            self,
            arrays=arrays,
            config=self.backbone,
            classes=None,
            palette=None,
            notes=(*self.notes, note),
        )


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file or folder that was opened, before its format is known.

    path: of the file, or of the folder that was given.
    container: "torch" (a pickle), "safetensors", "hdf5", "pickle" (of numpy arrays) or "msgpack".
    tree: torch, pickle: the unpickled object with tensors as arrays; safetensors: key -> array; hdf5: what `h5py.File`
        opens, a path or the bytes of a file; msgpack: nested maps of arrays.
    metadata: safetensors: the header's strings; hdf5 in a .keras archive: {"config": its config.json}.
    beside: "config" and "preprocessor": config.json and preprocessor_config.json beside the weights.
    notes: what opening it had to decide.
    """

    path: Path
    container: str
    tree: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """What a format's module has to offer; `checkpoints.FORMATS` lists them."""

    def detect(self, content: Content) -> bool:
        """Whether the content is of this format, by its keys and never by the file's name."""

    def read(self, content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint; `known` are config fields the caller insists on; raises CheckpointError."""

    def write(self, checkpoint: Checkpoint, path: Path) -> list[str]:
        """Write it to `path`; returns what the format cannot carry, one sentence each."""
