"""What a checkpoint file is, in a few lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, cast

from ..configs.backbone import VanConfig
from ..configs.head_config import HeadConfig
from ..configs.model_config import ModelConfig
from ..configs.segmenter import SegmenterConfig
from ..images.preprocess import Preprocess
from .checkpoint import Checkpoint

# Ends of the keys of what is no parameter: BatchNorm's statistics, the Hamburger's bases.
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "bases")


@dataclass(frozen=True, kw_only=True)
class Info:
    """What `van.info` reports about a file.

    task: that of the model, "classification", "segmentation"; "features" for a backbone without a head.
    model: the configuration; `config` is that of a classifier or else of the backbone.
    parameters: trainable values; BatchNorm's statistics are not counted.
    dtype: what the file stores; computed: what `van.load` and the engines compute in by default.
    origins: config field -> "shapes", "metadata", "lineage" or "argument".
    """

    source: str
    format: str
    name: str
    task: str
    num_classes: int
    classes: tuple[str, ...] | None
    parameters: int
    dtype: str
    computed: str = "float32"
    model: ModelConfig
    preprocess: Preprocess | None
    provenance: dict[str, Any]
    origins: dict[str, str]
    notes: tuple[str, ...]

    @property
    def config(self) -> VanConfig:
        """Of the classifier, or of the backbone of any other model."""
        return self.model.architecture

    @property
    def segmenter(self) -> SegmenterConfig | None:
        """Of a segmenter; None for anything else."""
        section = getattr(self.model, "section", None)
        return cast(SegmenterConfig, self.model) if section == SegmenterConfig.section else None

    @property
    def layer_norm_eps(self) -> float:
        """The stage norms' epsilon."""
        return self.config.layer_norm_eps

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) in reading order."""
        c, origin = self.config, self.origins
        stated = [(key, str(value)) for key, value in self.provenance.items() if key not in ("source", "format")]
        return [
            ("file", self.source),
            ("format", self.format),
            ("model", f"{self.name}: widths {c.embed_dims}, depths {c.depths}"),
            ("task", self.task),
            ("classes", self._classes()),
            *_head_rows(self.model, origin),
            ("parameters", f"{self.parameters:,} ({self._types()})"),
            ("input", f"{c.in_chans} channels, strides {c.strides} (from {origin['strides']})"),
            ("attention", f"{c.attention}, {c.kernel_size} x {c.kernel_size}, dilation {c.dilation}"),
            ("layer_norm_eps", f"{c.layer_norm_eps:g} (from {origin['layer_norm_eps']})"),
            ("preprocessing", self._preprocessing()),
            *stated,
            *(("note", note) for note in self.notes),
        ]

    def _preprocessing(self) -> str:
        if rows := self.model.input_rows:
            return ", ".join([rows["size"], *(f"{name} ({value})" for name, value in rows.items() if name != "size")])
        return f"{shown(self.preprocess)} (from {self.origins['preprocess']})"

    def _types(self) -> str:
        if self.dtype == self.computed:
            return self.dtype
        return f"stored as {self.dtype}, computed in {self.computed}"

    def _classes(self) -> str:
        if not self.num_classes:
            return "none: a feature backbone"
        if self.classes is None:
            return f"{self.num_classes}, their names unknown"
        return f"{self.num_classes}: {', '.join(self.classes[:5])}{', …' if self.num_classes > 5 else ''}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "model"}
        values |= {"config": self.config.to_dict(), "layer_norm_eps": self.layer_norm_eps, "segmenter": None}
        if isinstance(self.model, HeadConfig):
            values[self.model.section] = self.model.to_dict()
        return values | {"preprocess": self.preprocess.to_dict() if self.preprocess else None}

    def __str__(self) -> str:
        width = max(len(what) for what, _ in self.rows())
        return "\n".join(f"{what:<{width}}  {value}" for what, value in self.rows())


def _head_rows(model: ModelConfig, origin: dict[str, str]) -> list[tuple[str, str]]:
    if not isinstance(model, HeadConfig):
        return []
    values = model.to_dict()
    if "ham_rank" not in values:
        shown = [f"{name} {values[name]}" for name in model.own_fields() if name not in _usual(model)]
        return [("head", ", ".join([model.method, *shown]))]
    return _segmentation_rows(values, origin)


def _usual(model: HeadConfig) -> set[str]:
    """Fields of a head that say nothing new: what the row of the preprocessing has, and defaults of its kind."""
    defaults = {each.name: each.default for each in fields(cast(Any, model))}
    usual = {name for name in model.own_fields() if getattr(model, name) == defaults[name]}
    inputs = {"min_size", "max_size", "mean", "std"} if model.input_rows else set()
    return (usual | inputs) - {"num_classes"}


def _segmentation_rows(s: dict[str, Any], origin: dict[str, str]) -> list[tuple[str, str]]:
    sizes = [f"{s['channels']} channels"]
    if s["method"] == "semantic_fpn":
        sizes.append(f"neck of {s['neck_channels']}")
    if "ham" in s["method"]:
        sizes.append(f"Hamburger of {s['ham_channels']}, rank {s['ham_rank']} (from {origin['ham_rank']})")
    auxiliary = f"FCN of {s['auxiliary_channels']} channels, for training" if s["auxiliary"] else "none"
    return [("head", f"{s['method']}: {', '.join(sizes)}"), ("auxiliary head", auxiliary)]


def shown(p: Preprocess | None) -> str:
    """A preprocessing record in a few words."""
    if p is None:
        return "unknown"
    how = f"crop_pct {p.crop_pct:g}" if p.resize == "shortest" else "squashed"
    return f"{p.size[0]} x {p.size[1]}, {how}, {p.interpolation}, mean {p.mean}, std {p.std}"


def summarize(checkpoint: Checkpoint, source: str) -> Info:
    """The Info of a checkpoint that was read from `source`."""
    buffers = (*BUFFERS, *checkpoint.config.constants)
    weights = {key: array for key, array in checkpoint.arrays.items() if not key.endswith(buffers)}
    return Info(
        source=source,
        format=checkpoint.format,
        name=checkpoint.name,
        task=checkpoint.config.task if checkpoint.num_classes else "features",
        num_classes=checkpoint.num_classes,
        classes=checkpoint.classes,
        parameters=sum(math.prod(array.shape) for array in weights.values()),
        dtype=checkpoint.stored,
        model=checkpoint.config,
        preprocess=checkpoint.preprocess,
        provenance=checkpoint.provenance,
        origins=checkpoint.origins,
        notes=checkpoint.notes,
    )
