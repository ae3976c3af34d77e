"""A checkpoint, model or exported file made ready to classify images: engine, preprocessing, class names together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import models
from ..configs.catalog import why_created_only
from ..errors import ConfigError, UnknownNameError
from ..images.preprocess import Preprocess
from ..nn import Classifier, TestTimePool
from ..nn.dtypes import in_float32
from ..nn.segmenter import Segmenter
from .engines.exported import ExportedEngine, is_exported, open_exported
from .engines.torch_engine import Engine, TorchEngine

ENGINES = ("torch", "keras")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A classifier that can run.

    classes: one name per logit, None when the checkpoint has none; name: the path, or the model's type.
    preprocess: the checkpoint's own with the overrides applied.
    provenance: what the checkpoint tells about itself.
    runtime: what computes: a key of ENGINES, or "onnxruntime", "openvino", "torch.export" for exported files.
    """

    engine: Engine
    preprocess: Preprocess
    classes: tuple[str, ...] | None
    num_classes: int
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    runtime: str = "torch"

    def label(self, index: int) -> str:
        """Name of a class, its index as text when it has none."""
        return self.classes[index] if self.classes else str(index)


def open_classifier(
    source: str | Path | nn.Module | ExportedEngine | Opened,
    *,
    engine: str = "torch",
    device: str = "cpu",
    precision: str = "fp32",
    ema: bool = False,
    test_time_pool: bool = False,
    optimize: bool = False,
    trust: bool = False,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Opened:
    """Load (or take over) a classifier and put it on its device.

    source: what `van.load` takes, a model, an exported file (.onnx, .xml, .pt2, or what `open_exported` makes of it),
    or an Opened, of which only the preprocessing can change.
    engine: a key of ENGINES; "keras" runs the file's weights in `van.keras.VAN` on Keras's backend and device.
    ema: the averaged weights of a file that holds both.
    test_time_pool: pool over windows of the training size; optimize: through `van.optimize`.
    trust: open also a .pt2 file that this machine did not write: it runs its author's programs.
    overrides: fields of Preprocess; None entries keep the checkpoint's. name: what to call a model in memory.
    Raises CheckpointError for a file that cannot be loaded, ConfigError for a model that classifies nothing or whose
    channels differ from the preprocessing's.
    """
    if reason := why_created_only(source):
        raise ConfigError(reason)
    if isinstance(source, Opened):
        return replace(source, preprocess=source.preprocess.with_overrides(**(overrides or {})))
    if engine not in ENGINES:
        raise UnknownNameError.of("engine", engine, ENGINES)
    if isinstance(source, ExportedEngine) or is_exported(source):
        refuse_for_exported(device, precision, ema=ema, test_time_pool=test_time_pool, optimize=optimize)
        if engine != "torch":
            raise ConfigError(
                f"engine {engine!r} takes checkpoints; {source} is an exported file, with its own runtime"
            )
        return _open_exported(source, overrides, name, trust)
    if engine == "keras":
        _refuse_torch_options(device, test_time_pool=test_time_pool, optimize=optimize)
        return _open_keras(source, precision, ema, overrides, name)
    model, found = _load(source, ema)
    name = name or found
    if isinstance(model, Segmenter):
        raise ConfigError(f"{name} is a segmenter, which classifies pixels; expected a classifier of images")
    num_classes = getattr(model, "num_classes", None)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ConfigError(f"{name} has no classification head (num_classes is {num_classes}); expected a classifier")
    own: Preprocess = getattr(model, "preprocess", None) or Preprocess()
    preprocess = own.with_overrides(**(overrides or {}))
    classes = getattr(model, "classes", None)
    _check_channels(model, preprocess, name)
    model = in_float32(model, name)
    if optimize:
        model = models.optimize(model)
    if test_time_pool:
        model = _pooled(model, own)
    return Opened(
        engine=TorchEngine(model, device, precision),
        preprocess=preprocess,
        classes=tuple(classes) if classes else None,
        num_classes=num_classes,
        name=name,
        provenance=getattr(model, "provenance", None) or {},
    )


def _open_keras(
    source: Any, precision: str, ema: bool, overrides: Mapping[str, Any] | None, name: str | None
) -> Opened:
    from .engines.keras_engine import KerasEngine, load

    model = load(source, precision, ema)
    name = name or (str(source) if isinstance(source, str | Path) else model.name)
    if not model.include_top:
        raise ConfigError(f"{name} has no classification head; expected a classifier")
    preprocess = (model.preprocess or Preprocess()).with_overrides(**(overrides or {}))
    _check_channels(model, preprocess, name)
    return Opened(
        engine=KerasEngine(model),
        preprocess=preprocess,
        classes=model.classes,
        num_classes=model.config.num_classes,
        name=name,
        provenance=model.provenance or {},
        runtime="keras",
    )


def _open_exported(source: Any, overrides: Mapping[str, Any] | None, name: str | None, trust: bool) -> Opened:
    engine = source if isinstance(source, ExportedEngine) else open_exported(source, trust=trust)
    told, name = engine.description, name or str(engine.path)
    if told.task != "classification":
        raise ConfigError(f"{name} is a segmenter, which classifies pixels; expected a classifier of images")
    if told.preprocess is None:
        raise ConfigError(
            f"{name} takes arrays of {told.in_chans} channels, which no image has; run its engine by hand"
        )
    preprocess = told.preprocess.with_overrides(**(overrides or {}))
    if preprocess.channels != told.in_chans:
        raise _wrong_channels(name, told.in_chans, preprocess)
    return Opened(
        engine=engine,
        preprocess=preprocess,
        classes=told.classes,
        num_classes=told.num_classes,
        name=name,
        provenance=told.provenance,
        runtime=engine.runtime,
    )


def refuse_for_exported(device: str, precision: str, **options: bool) -> None:
    """Raises ConfigError for options that mean nothing to an exported file."""
    if device != "cpu":
        raise ConfigError(f"device {device!r} is for checkpoints; exported files run on the cpu here")
    if precision != "fp32":
        raise ConfigError(f"precision {precision!r} is for checkpoints; an exported file has its own; leave it out")
    for option, value in options.items():
        if value:
            raise ConfigError(f"{option} is for checkpoints; leave it out, or export again with what you want")


def _refuse_torch_options(device: str, **options: bool) -> None:
    if device != "cpu":
        raise ConfigError(f"device {device!r} is the torch engine's; Keras places models by its backend's own settings")
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name} belongs to the torch engine; leave it out with engine 'keras'")


def _load(source: str | Path | nn.Module, ema: bool) -> tuple[nn.Module, str]:
    if isinstance(source, nn.Module):
        if ema:
            raise ConfigError("ema chooses between the weights of a file; a model in memory has one set only")
        return source, type(source).__name__
    return models.load(source, ema=ema), str(source)


def _check_channels(model: Any, preprocess: Preprocess, name: str) -> None:
    in_chans = getattr(getattr(model, "config", None), "in_chans", preprocess.channels)
    if in_chans != preprocess.channels:
        raise _wrong_channels(name, in_chans, preprocess)


def _wrong_channels(name: str, in_chans: int, preprocess: Preprocess) -> ConfigError:
    remedy = "give mean and std one entry each (gray) or three (RGB)" if in_chans in (1, 3) else "run it by hand"
    return ConfigError(
        f"{name} takes images of {in_chans} channel(s), its preprocessing makes {preprocess.channels} "
        f"({preprocess.color}); {remedy}"
    )


def _pooled(model: nn.Module, own: Preprocess) -> TestTimePool:
    if not isinstance(model, Classifier):
        raise ConfigError(f"test-time pooling needs a plain classifier, not {type(model).__name__}; leave it out")
    stride = model.config.reductions[-1]
    return TestTimePool(model, pool_size=-(-min(own.size) // stride))  # side of the map at the training size
