"""What an exported file tells about its network: embedded in the file, so that it runs without any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..checkpoints import checked
from ..checkpoints.summary import shown
from ..configs.backbone import VanConfig, check_number
from ..configs.segmenter import SegmenterConfig
from ..errors import CheckpointError, ConfigError, VanError
from ..files import parse_json
from ..images.label_maps import Palette
from ..images.preprocess import Preprocess

KEY = "van"  # of the JSON text in ONNX's metadata_props and OpenVINO's rt_info; of pt2's extra file
TASKS = ("classification", "segmentation")


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that belongs to an exported network besides its graph.

    task: one of TASKS; a segmenter's graph gives logits at its head's size. name: as `van list` has it, or van_custom.
    num_classes, in_chans: of its output and input. classes, palette: None where unknown.
    ignore_index: of the label maps that a segmenter was trained with.
    preprocess: None for networks that take no images. inference: fields of `segment.Inference` that training wrote.
    config, segmenter: as the checkpoint's. provenance: the checkpoint's, JSON-ready.
    options: how it was exported: {"fold": True, "dilation_free": False, "precision": "fp32"}.
    version: of this package.
    """

    task: str
    name: str
    num_classes: int
    in_chans: int
    config: Mapping[str, Any]
    segmenter: Mapping[str, Any] | None = None
    classes: tuple[str, ...] | None = None
    palette: Palette | None = None
    ignore_index: int | None = None
    preprocess: Preprocess | None = None
    inference: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"preprocess": self.preprocess.to_dict() if self.preprocess else None}

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) in reading order, for people."""
        c, chosen = self.config, self.options
        named = f"{self.num_classes}, their names unknown"
        if self.classes:
            named = f"{self.num_classes}: {', '.join(self.classes[:5])}{', …' if self.num_classes > 5 else ''}"
        how = [word for name, word in (("fold", "folded"), ("dilation_free", "without dilation")) if chosen.get(name)]
        told = [(key, str(value)) for key, value in self.provenance.items() if key not in ("source", "format")]
        return [
            ("model", f"{self.name}: widths {tuple(c['embed_dims'])}, depths {tuple(c['depths'])}"),
            ("task", self.task),
            ("classes", named),
            ("input", f"{self.in_chans} channels, any batch and size"),
            ("precision", ", ".join([str(chosen.get("precision", "fp32")), *how])),
            ("preprocessing", shown(self.preprocess)),
            *([("inference", str(dict(self.inference)))] if self.inference else []),
            *told,
            ("exported by", f"van {self.version}"),
        ]

    @classmethod
    def from_json(cls, text: str, path: Any) -> Description:
        """Inverse of `to_json`; raises CheckpointError that names `path`."""
        try:
            told = cls(**_fields_of(parse_json(text)))
            told._check()
        except (VanError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path}: what it tells about its network cannot be read ({error}); export it again with this version"
            ) from error
        if told.task not in TASKS:
            raise CheckpointError(f"{path} is for {told.task!r}; expected one of {', '.join(TASKS)}; export it again")
        return told

    def _check(self) -> None:
        """Raises ConfigError for fields of the wrong type, or that contradict each other."""
        for name in ("num_classes", "in_chans"):
            check_number(name, getattr(self, name), whole=True)
        config = VanConfig.from_dict(self.config)
        width = config.num_classes
        if self.segmenter is not None:
            backbone = {"backbone": config.with_options(num_classes=0).to_dict()}
            width = SegmenterConfig.from_dict({**self.segmenter, **backbone}).num_classes
        if (width, config.in_chans) != (self.num_classes, self.in_chans):
            raise ConfigError(f"{self.num_classes} classes of {self.in_chans} channels are not those of its network")
        for what, values in (("classes", self.classes), ("palette", self.palette)):
            if values is not None and len(values) != self.num_classes:
                raise ConfigError(f"{len(values)} {what} for a network of {self.num_classes}")
        if not isinstance(self.name, str) or not isinstance(self.version, str):
            raise ConfigError("its name and version are no texts")
        if self.ignore_index is not None and not 0 <= self.ignore_index < 2**16:
            raise ConfigError(f"ignore_index is {self.ignore_index!r:.80}; expected a label")


def _fields_of(values: Any) -> dict[str, Any]:
    """The fields of a description in their own types; raises VanError, KeyError or TypeError for what is none."""
    if not isinstance(values, dict):
        raise CheckpointError(f"a {type(values).__name__}; expected named values")
    if values.get("preprocess") is not None:
        values["preprocess"] = Preprocess.from_dict(values["preprocess"])
    if (classes := checked.class_names(values.get("classes"))) is not None:
        values["classes"] = classes
    if values.get("palette") is not None:
        values["palette"] = checked.colors(values["palette"])
    for name in ("provenance", "inference", "options"):
        values[name] = checked.provenance(values.get(name) or {})
    return values
