"""What an exported file says about its network: embedded in the file, so that it runs without any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..checkpoints import checked
from ..checkpoints.summary import shown
from ..configs.backbone import check_number
from ..configs.head_config import from_record
from ..configs.metadata import ModelMetadata
from ..configs.model_config import ModelConfig
from ..errors import CheckpointError, ConfigError, VanError, with_article
from ..files import parse_json
from ..images.label_maps import Palette
from ..images.preprocess import Preprocess
from ..tasks.base import Subject

KEY = "van"  # of the JSON text in ONNX's metadata_props and OpenVINO's rt_info; of pt2's extra file
_METADATA = ("classes", "palette", "preprocess", "provenance")
_OWN = ("ignore_index", "inference", "options", "version")
_DERIVED = ("task", "name", "num_classes", "in_chans")


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that belongs to an exported network besides its graph, which gives what `Model.raw` gives.

    config, metadata: as the checkpoint's.
    inference: how images become inputs, in the task's own fields. ignore_index: label of what was not learned.
    options: how it was exported: {"fold": True, "dilation_free": False, "precision": "fp32"}.
    version: of this package.
    """

    config: ModelConfig
    metadata: ModelMetadata = field(default_factory=ModelMetadata)
    inference: Mapping[str, Any] = field(default_factory=dict)
    ignore_index: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    @property
    def task(self) -> str:
        """What the network is for."""
        return self.config.task

    @property
    def name(self) -> str:
        """As `van list` has it, or one that ends in "van_custom"."""
        return self.config.name

    @property
    def num_classes(self) -> int:
        """Classes of its output."""
        return self.config.num_classes

    @property
    def in_chans(self) -> int:
        """Channels of its input."""
        channels: int = self.config.backbone.in_chans
        return channels

    @property
    def classes(self) -> tuple[str, ...] | None:
        """`metadata.classes`."""
        return self.metadata.classes

    @property
    def palette(self) -> Palette | None:
        """`metadata.palette`."""
        return self.metadata.palette

    @property
    def preprocess(self) -> Preprocess | None:
        """`metadata.preprocess`."""
        return self.metadata.preprocess

    @property
    def provenance(self) -> dict[str, Any]:
        """`metadata.provenance`."""
        return self.metadata.provenance

    @property
    def subject(self) -> Subject:
        """The network as a task's processors and evaluations take it: `inference` is where a checkpoint has it."""
        provenance = {key: value for key, value in self.provenance.items() if key != "inference"}
        if self.inference:
            provenance["inference"] = dict(self.inference)
        return Subject(config=self.config, metadata=replace(self.metadata, provenance=provenance), name=self.name)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        known = self.metadata
        return {
            **{name: getattr(self, name) for name in _DERIVED},
            # files of classifiers have this section too, empty
            **{"config": None, "segmenter": None, **self.config.to_record()},
            "classes": known.classes,
            "palette": known.palette,
            "ignore_index": self.ignore_index,
            "preprocess": known.preprocess.to_dict() if known.preprocess else None,
            "inference": self.inference,
            "provenance": known.provenance,
            "options": self.options,
            "version": self.version,
        }

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) in reading order, for people."""
        backbone, chosen = self.config.backbone, self.options
        only = self.config.graph_size
        size = "size" if only is None else f"{only[0]} x {only[1]} pixels"
        named = f"{self.num_classes}, their names unknown"
        if self.classes:
            named = f"{self.num_classes}: {', '.join(self.classes[:5])}{', …' if self.num_classes > 5 else ''}"
        how = [word for name, word in (("fold", "folded"), ("dilation_free", "without dilation")) if chosen.get(name)]
        origin = [
            (key, str(value)) for key, value in self.provenance.items() if key not in ("source", "format", "inference")
        ]
        return [
            ("model", f"{self.name}: widths {backbone.embed_dims}, depths {backbone.depths}"),
            ("task", self.task),
            ("classes", named),
            ("input", f"{self.in_chans} channels, any batch and {size}"),
            ("precision", ", ".join([str(chosen.get("precision", "fp32")), *how])),
            ("preprocessing", shown(self.preprocess)),
            *([("inference", str(dict(self.inference)))] if self.inference else []),
            *origin,
            ("exported by", f"van {self.version}"),
        ]

    @classmethod
    def from_json(cls, text: str, path: Any) -> Description:
        """Inverse of `to_json`; raises CheckpointError that names `path`."""
        try:
            values = parse_json(text)
            found = cls(**_fields_of(values))
            found._check(values)
        except (VanError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path}: the description of its network cannot be read ({error}); export it again with this version"
            ) from error
        return found

    def _check(self, values: Mapping[str, Any]) -> None:
        """Raises ConfigError for values of the wrong type, or that contradict each other."""
        for name in ("num_classes", "in_chans"):
            check_number(name, values[name], whole=True)
            if values[name] != getattr(self, name):
                raise ConfigError(f"{name} is {values[name]}; its network has {getattr(self, name)}")
        if values["task"] != self.task:
            raise ConfigError(
                f"task is {values['task']!r:.80}; its network is {with_article(self.config.noun)}, for {self.task}"
            )
        for what, entries in (("classes", self.classes), ("palette", self.palette)):
            if entries is not None and len(entries) != self.num_classes:
                raise ConfigError(f"{len(entries)} {what} for a network of {self.num_classes}")
        if not isinstance(values["name"], str) or not isinstance(self.version, str):
            raise ConfigError("name and version are no texts")
        if self.ignore_index is not None and not 0 <= self.ignore_index < 2**16:
            raise ConfigError(f"ignore_index is {self.ignore_index!r:.80}; expected a label")


def _fields_of(values: Any) -> dict[str, Any]:
    """The fields of a description in their own types; raises VanError, KeyError or TypeError for what is none."""
    if not isinstance(values, dict):
        raise CheckpointError(f"a {type(values).__name__}; expected named values")
    config = from_record(values)
    known = {*_DERIVED, *_METADATA, *_OWN, "segmenter", *config.to_record()}
    if foreign := [name for name in values if name not in known]:
        raise CheckpointError(f"unknown entry {foreign[0]!r:.80}")
    own = {name: values[name] for name in _OWN if name in values}
    for name in ("inference", "options"):
        own[name] = checked.provenance(values.get(name) or {})
    return {"config": config, "metadata": _metadata_of(values), **own}


def _metadata_of(values: Mapping[str, Any]) -> ModelMetadata:
    preprocess, palette = values.get("preprocess"), values.get("palette")
    return ModelMetadata(
        classes=checked.class_names(values.get("classes")),
        palette=None if palette is None else checked.colors(palette),
        preprocess=None if preprocess is None else Preprocess.from_dict(preprocess),
        provenance=checked.provenance(values.get("provenance") or {}),
    )
