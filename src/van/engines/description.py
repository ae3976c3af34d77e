"""What an exported file tells about its network: embedded in the file, so that it runs without any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..checkpoints.summary import shown
from ..errors import CheckpointError, VanError
from ..masks import Palette
from ..preprocess import Preprocess

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
            values = json.loads(text)
            if values.get("preprocess") is not None:
                values["preprocess"] = Preprocess.from_dict(values["preprocess"])
            if values.get("classes") is not None:
                values["classes"] = tuple(map(str, values["classes"]))
            if values.get("palette") is not None:
                values["palette"] = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
            told = cls(**values)
        except (VanError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: what it tells about its network cannot be read ({error}); export it again with this version"
            ) from error
        if told.task not in TASKS:
            raise CheckpointError(f"{path} is for {told.task!r}; expected one of {', '.join(TASKS)}; export it again")
        return told
