"""A checkpoint, model or exported file made ready to run: its task, its engine, what travels with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from .. import models
from ..configs.metadata import ModelMetadata
from ..configs.model_config import ModelConfig
from ..errors import ConfigError, UnknownNameError, with_article
from ..images.preprocess import Preprocess
from ..nn.dtypes import in_float32
from ..tasks import Task, described, task_named, task_of
from ..tasks.base import Engine, Processor, Subject
from ..tasks.options import changed
from .engines.exported import ExportedEngine, is_exported, open_exported
from .engines.torch_engine import TorchEngine
from .optimizing import AUTO, Optimize, optimized, wanted

ENGINES = ("torch", "keras")


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model that can run.

    task: what it is for. engine: what runs it. subject: its configuration, metadata and name.
    options: the task's own options that it was opened with.
    """

    task: Task
    engine: Engine
    subject: Subject
    options: object = None

    @property
    def config(self) -> ModelConfig:
        """Of the model."""
        return self.subject.config

    @property
    def metadata(self) -> ModelMetadata:
        """Of the model."""
        return self.subject.metadata

    @property
    def name(self) -> str:
        """The path, or the model's type."""
        return self.subject.name

    @property
    def runtime(self) -> str:
        """What computes: a key of ENGINES, or "onnxruntime", "openvino", "torch.export" for exported files."""
        return self.engine.runtime

    @property
    def optimized(self) -> bool:
        """Whether an optimised network is run, folded for the kernel."""
        return getattr(self.engine, "optimized", False)

    @property
    def num_classes(self) -> int:
        """Classes of the output."""
        return self.subject.num_classes

    @property
    def classes(self) -> tuple[str, ...] | None:
        """One name per class, None when the model has none."""
        return self.metadata.classes

    @property
    def preprocess(self) -> Preprocess:
        """How images become inputs, with what the session's options override."""
        own = self.metadata.preprocess or Preprocess()
        return getattr(self.processor(), "preprocess", own)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is known of the model's origin."""
        return self.metadata.provenance

    def label(self, index: int) -> str:
        """Name of a class, its index as text when it has none."""
        return self.subject.classes[index]

    def processor(self) -> Processor[Any, Any]:
        """What makes inputs of images and results of outputs; raises ConfigError where the options do not fit."""
        options = self.task.predict_options() if self.options is None else self.options
        return self.task.processor(self.subject, options)

    def with_metadata(self, **fields: Any) -> Session:
        """A copy with fields of its metadata replaced."""
        return replace(self, subject=replace(self.subject, metadata=replace(self.metadata, **fields)))


Source: TypeAlias = str | Path | nn.Module | ExportedEngine | Session
# From a task and the model's name to the task's own options.
Parse: TypeAlias = Callable[[Task, str], object]


def open_session(
    source: Source,
    *,
    engine: str = "torch",
    device: str = "cpu",
    precision: str = "fp32",
    ema: bool = False,
    optimize: Optimize = AUTO,
    images: int | None = None,
    trust: bool = False,
    name: str | None = None,
    parse: Parse | None = None,
) -> Session:
    """Load (or take over) a model and put it on its device.

    source: what `van.load` takes, a model, an exported file (.onnx, .xml, .pt2, or what `open_exported` makes of it),
    or a Session, of which only the options can change: what is not given stays. A file is read once.
    engine: a key of ENGINES; "keras" runs the file's weights in `van.keras.VAN` on Keras's backend and device.
    precision: "fp32", "bf16" or "fp16". ema: the averaged weights of a file that holds both.
    optimize: "auto" runs the network that `van.optimize` makes where that is faster and can be done, True always, False
    never; outputs differ by rounding, 1e-4 of the largest at most. With "auto" a model that is given is followed: once
    its weights, modules, hooks or mode change, it is run as it is. images: how many will be run, if that is known: with
    "auto" a few are not worth it. trust: open also a .pt2 file that this machine did not write: it runs its author's
    programs. name: what to call a model in memory. parse: the task's own options, by default those without a value.
    Raises CheckpointError for a file that cannot be loaded, ConfigError for what no task runs and for options that do
    not fit.
    """
    if engine not in ENGINES:
        raise UnknownNameError.of("engine", engine, ENGINES)
    wanted(optimize)  # raises
    if isinstance(source, Session):
        return _with_options(source, parse)
    if isinstance(source, ExportedEngine) or is_exported(source):
        if engine != "torch":
            raise ConfigError(
                f"engine {engine!r} takes checkpoints; {source} is an exported file, with its own runtime"
            )
        refuse_for_exported(device, precision, ema=ema, optimize=optimize is True)
        return _exported(source, name, parse, trust=trust)
    if engine == "keras":
        _refuse_torch_options(device, optimize=optimize is True)
        return _keras(source, precision, ema, name, parse)
    model = _load(source, ema)
    name = name or (type(source).__name__ if isinstance(source, nn.Module) else str(source))
    task, config = described(model, name)
    subject = Subject(config=config, metadata=_metadata_of(model), name=name)
    options = None if parse is None else parse(task, name)
    model = in_float32(model, name)
    fast = optimized(model, optimize, device=device, images=images)
    if fast is not None and (optimize is True or not isinstance(source, nn.Module)):
        model, fast = fast, None  # nobody else has the one that was loaded
    networks = [None if each is None else task.network(each, subject, options) for each in (model, fast)]
    assert networks[0] is not None
    ready = TorchEngine(networks[0], device, precision, channels_last=task.channels_last, fast=networks[1])
    return Session(task=task, engine=ready, subject=subject, options=options)


def open_classifier(
    source: Source, *, overrides: Mapping[str, Any] | None = None, test_time_pool: bool = False, **options: Any
) -> Session:
    """`open_session` of a classifier; overrides: fields of Preprocess, None entries keep the checkpoint's.

    Raises ConfigError for any other model, and for one whose channels differ from the preprocessing's.
    """
    session = _open("classification", source, {**(overrides or {}), "test_time_pool": test_time_pool}, options)
    session.processor()  # raises
    return session


def open_segmenter(source: Source, *, overrides: Mapping[str, Any] | None = None, **options: Any) -> Session:
    """`open_session` of a segmenter; overrides: fields of Inference. Raises ConfigError for any other model."""
    return _open("segmentation", source, {"inference": overrides or {}}, options)


def _open(task: str, source: Source, own: Mapping[str, Any], options: Mapping[str, Any]) -> Session:
    wanted = task_named(task)

    def parse(found: Task, name: str) -> object:
        if found is not wanted:
            raise ConfigError(f"{name} is {with_article(found.noun)}; expected {with_article(wanted.noun)}")
        return wanted.predict_options(**own)

    return open_session(source, **options, parse=parse)


def _with_options(session: Session, parse: Parse | None) -> Session:
    if parse is None:
        return session
    options = parse(session.task, session.name)
    if names := changed(options):
        raise ConfigError(f"{names[0]} changes the network, and {session.name} is open already; open it with that")
    return replace(session, options=_kept(session.options, options))


def _kept(before: Any, options: Any) -> object:
    """The options, with those of the session where nothing else was asked for."""
    if before is None:
        return options
    known = {each.name for each in fields(before)}
    unset = [each.name for each in fields(options) if getattr(options, each.name) == each.default]
    return replace(options, **{name: getattr(before, name) for name in unset if name in known})


def _exported(source: str | Path | ExportedEngine, name: str | None, parse: Parse | None, *, trust: bool) -> Session:
    engine = source if isinstance(source, ExportedEngine) else open_exported(source, trust=trust)
    subject = replace(engine.description.subject, name=name or str(engine.path))
    task = task_of(subject.config)
    options = None if parse is None else parse(task, subject.name)
    for option in changed(options):
        raise ConfigError(f"{option} is for checkpoints; leave it out, or export again with what you want")
    return Session(task=task, engine=engine, subject=subject, options=options)


def _keras(source: Any, precision: str, ema: bool, name: str | None, parse: Parse | None) -> Session:
    from .engines.keras_engine import KerasEngine, load

    model = load(source, precision, ema)
    name = name or (str(source) if isinstance(source, str | Path) else model.name)
    if not model.include_top:
        raise ConfigError(f"{name} has no classification head; expected a classifier")
    facts = {"classes": model.classes, "preprocess": model.preprocess, "provenance": dict(model.provenance or {})}
    subject, task = Subject(config=model.config, metadata=ModelMetadata(**facts), name=name), task_of(model.config)
    options = None if parse is None else parse(task, name)
    for option in changed(options):
        raise ConfigError(f"{option} belongs to the torch engine; leave it out with engine 'keras'")
    return Session(task=task, engine=KerasEngine(model), subject=subject, options=options)


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


def _load(source: str | Path | nn.Module, ema: bool) -> nn.Module:
    if not isinstance(source, nn.Module):
        return models.load(source, ema=ema)
    if ema:
        raise ConfigError("ema chooses between the weights of a file; a model in memory has one set only")
    return source


def _metadata_of(model: nn.Module) -> ModelMetadata:
    """What travels with a model; of another package's, what it has under our names."""
    known = getattr(model, "metadata", None)
    if isinstance(known, ModelMetadata):
        return known
    classes, preprocess = getattr(model, "classes", None), getattr(model, "preprocess", None)
    return ModelMetadata(
        classes=tuple(classes) if classes else None,
        preprocess=preprocess if isinstance(preprocess, Preprocess) else None,
        provenance=dict(getattr(model, "provenance", None) or {}),
    )
