"""A segmenter made ready to label pictures: network, device, how it looks at a picture, class names and palette."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import models
from ..configs.segmenter import SIZE_DIVISORS
from ..errors import ConfigError, UnknownNameError
from ..images.label_maps import Palette, default_palette
from ..images.preprocess import IMAGENET, Preprocess
from ..nn.dtypes import in_float32
from ..nn.segmenter import Segmenter
from ..tasks.segmentation.views import RECORDED, Inference, predict_mask
from .description import Description
from .engines.exported import ExportedEngine, description_of, is_exported, open_exported
from .engines.torch_engine import PRECISIONS, available_device
from .session import refuse_for_exported


@dataclass(frozen=True, kw_only=True)
class OpenedSegmenter:
    """A segmenter that can run.

    inference: the checkpoint's own way to look at a picture, with what was overridden.
    classes: one name per class, its number as text where the checkpoint has none; palette: one colour per class.
    provenance: what the checkpoint tells about itself; name: the path, or the model's type.
    """

    model: nn.Module
    inference: Inference
    classes: tuple[str, ...]
    palette: Palette
    provenance: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype | None
    name: str

    @property
    def num_classes(self) -> int:
        """Classes of the logits."""
        return len(self.classes)

    def autocast(self) -> torch.autocast:
        """The precision, as a context for the network's calls."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def mask(self, image: Image.Image) -> np.ndarray:
        """The class of every pixel: (H, W), see `segment.predict_mask`."""
        with self.autocast():
            return predict_mask(self.model, image, self.inference)


class ExportedSegmenter(nn.Module):
    """An exported segmenter where a Segmenter is expected: (N, C, H, W) -> (N, K, h, w) by `decode`."""

    def __init__(self, engine: ExportedEngine) -> None:
        super().__init__()
        self.engine = engine

    @property
    def num_classes(self) -> int:
        """Classes of the logits."""
        return self.engine.description.num_classes

    def decode(self, images: Tensor) -> Tensor:
        """Logits at the head's own size."""
        return torch.from_numpy(self.engine.run(images.numpy())["logits"])


def is_segmenter(source: Any) -> bool:
    """Whether a model, or a checkpoint or exported file by what it holds, is a segmenter.

    Raises what `models.info` or `description_of` raises.
    """
    if isinstance(source, nn.Module):
        return isinstance(source, Segmenter)
    if isinstance(source, ExportedEngine) or is_exported(source):
        told = source.description if isinstance(source, ExportedEngine) else description_of(source)
        return told.task == "segmentation"
    return isinstance(source, str | Path) and models.info(source).task == "segmentation"


def open_segmenter(
    source: str | Path | nn.Module | ExportedEngine,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    ema: bool = False,
    optimize: bool = False,
    trust: bool = False,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> OpenedSegmenter:
    """Load (or take over) a segmenter and put it on its device.

    source: what `van.load` takes, a Segmenter, or an exported file (or what `open_exported` makes of it).
    ema, optimize, trust: as in `open_classifier`.
    name: what to call a model in memory.
    overrides: fields of Inference; without them what training wrote down, else the published single-scale test.
    Raises CheckpointError for a file that cannot be loaded, ConfigError for one that is no segmenter.
    """
    if isinstance(source, ExportedEngine) or is_exported(source):
        refuse_for_exported(device, precision, ema=ema, optimize=optimize)
        return _open_exported(source, overrides or {}, name, trust)
    if precision not in PRECISIONS:
        raise UnknownNameError.of("precision", precision, PRECISIONS)
    if isinstance(source, nn.Module) and ema:
        raise ConfigError("ema chooses between the weights of a file; a model in memory has one set only")
    model: nn.Module = source if isinstance(source, nn.Module) else models.load(source, ema=ema)
    name = name or (type(source).__name__ if isinstance(source, nn.Module) else str(source))
    if not isinstance(model, Segmenter):
        raise ConfigError(f"{name} is no segmenter; expected one, e.g. light_ham_van_b0")
    classes, palette = model.classes, model.palette
    provenance = model.provenance
    inference = inference_of(model.preprocess or IMAGENET, provenance, overrides or {}, method=model.config.method)
    number, target = model.num_classes, available_device(device)
    model = in_float32(model, name)
    ready = (models.optimize(model) if optimize else model).to(target).eval()
    return OpenedSegmenter(
        model=ready,
        inference=inference,
        classes=tuple(classes) if classes else tuple(map(str, range(number))),
        palette=palette or default_palette(number),
        provenance=provenance,
        device=target,
        dtype=PRECISIONS[precision],
        name=name,
    )


def _open_exported(source: Any, overrides: Mapping[str, Any], name: str | None, trust: bool) -> OpenedSegmenter:
    engine = source if isinstance(source, ExportedEngine) else open_exported(source, trust=trust)
    told, name = engine.description, name or str(engine.path)
    if told.task != "segmentation":
        raise ConfigError(f"{name} is no segmenter; expected one, e.g. light_ham_van_b0")
    return OpenedSegmenter(
        model=ExportedSegmenter(engine).eval(),
        inference=described_inference(told, told.preprocess or IMAGENET, overrides),
        classes=told.classes or tuple(map(str, range(told.num_classes))),
        palette=told.palette or default_palette(told.num_classes),
        provenance=told.provenance,
        device=torch.device("cpu"),
        dtype=None,
        name=name,
    )


def described_inference(told: Description, preprocess: Preprocess, overrides: Mapping[str, Any]) -> Inference:
    """`inference_of` an exported file, from its description."""
    return inference_of(preprocess, {"inference": told.inference}, overrides, method=told.config.method)


def inference_of(
    preprocess: Preprocess, provenance: Mapping[str, Any], overrides: Mapping[str, Any], *, method: str
) -> Inference:
    """How a segmenter looks at pictures: as its method is published, what its training wrote down, then the overrides.

    method: of segmenters.METHODS.
    """
    own = provenance.get("inference") or {}
    # a record without a divisor is of a version that knew one for all methods
    known: dict[str, Any] = {"size_divisor": Inference.size_divisor if own else SIZE_DIVISORS[method]}
    known |= {name: own[name] for name in RECORDED if name in own}
    if "window" in overrides:  # another window has another stride
        known.pop("stride", None)
    return replace(Inference(mean=preprocess.mean, std=preprocess.std), **{**known, **overrides})
