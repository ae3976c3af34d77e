"""The models that are served, each opened for the engine that was asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, UnknownNameError
from ...exporting import export, quantize
from ...inference.engines.exported import SUFFIXES, info_of, is_exported
from ...inference.optimizing import AUTO, Optimize
from ...inference.predictor import Predictor

# What --engine takes -> suffix of the file that is exported for it.
EXPORTED_FOR = {"onnx": ".onnx", "openvino": ".xml", "int8": ".onnx"}
ENGINES = ("torch", *EXPORTED_FOR)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How models are opened; see `Predictor`.

    engine: one of ENGINES; None: torch for checkpoints, an exported file's own. calibration: images for int8.
    """

    engine: str | None = None
    calibration: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    ema: bool = False
    optimize: Optimize = AUTO
    trust: bool = False
    exif: bool = True

    def __post_init__(self) -> None:
        if self.engine is not None and self.engine not in ENGINES:
            raise UnknownNameError.of("engine", self.engine, ENGINES)
        if self.engine == "int8" and self.calibration is None:
            raise ConfigError("engine int8 needs images to calibrate on; give --calibration FOLDER, or digits")
        if self.engine != "int8" and self.calibration is not None:
            raise ConfigError("calibration has no effect here; give --engine int8 too, or leave it out")
        if self.engine in EXPORTED_FOR and (self.device, self.precision) != ("cpu", "fp32"):
            raise ConfigError(
                f"device and precision are the torch engine's; leave them out with --engine {self.engine}"
            )


@contextmanager
def workspace(sources: Sequence[str], options: ModelOptions) -> Iterator[Path | None]:
    """A folder for what is exported, removed at the end; None where nothing has to be.

    Raises ConfigError for exported files that another engine runs.
    """
    for source in sources:
        _check_engine(source, options.engine)
    if options.engine not in EXPORTED_FOR or all(map(is_exported, sources)):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="van-serve-") as folder:
        yield Path(folder)


def exported(names: Sequence[str], sources: Sequence[str], options: ModelOptions, folder: Path | None) -> Sequence[str]:
    """The files to open: as given, or exported for the engine; raises what `export` and `quantize` raise."""
    if folder is None:
        return sources
    return [
        source if is_exported(source) else _export(source, folder / name, options)
        for source, name in zip(sources, names, strict=True)
    ]


def open_models(names: Sequence[str], files: Sequence[str], options: ModelOptions) -> Mapping[str, Predictor]:
    """The predictors by name; raises what `Predictor` raises."""
    return {name: _open(file, options) for name, file in zip(names, files, strict=True)}


def _open(file: str, options: ModelOptions) -> Predictor:
    if is_exported(file):  # its weights are chosen, and it is folded
        return Predictor(file, trust=options.trust, exif=options.exif)
    given = {name: getattr(options, name) for name in ("device", "precision", "ema", "trust", "exif", "optimize")}
    return Predictor(file, **given)


def _export(source: str, stem: Path, options: ModelOptions) -> str:
    path = stem.with_name(stem.name + EXPORTED_FOR[str(options.engine)])
    if options.engine == "int8":
        assert options.calibration is not None
        quantize(source, path, calibration=options.calibration, ema=options.ema)
    else:
        export(source, path, ema=options.ema)
    return str(path)


def _check_engine(source: str, engine: str | None) -> None:
    """Raises ConfigError for an exported file that another engine runs."""
    if engine is None or not is_exported(source):
        return
    info = info_of(source)
    int8 = info.description.options.get("precision") == "int8"
    kind = SUFFIXES[Path(source).suffix.lower()]
    fits = {"torch": kind == "torch", "onnx": kind == "onnx", "openvino": kind == "openvino", "int8": int8}
    if not fits[engine]:
        what = f"{info.runtime}{', int8' if int8 else ''}"
        raise ConfigError(
            f"{source} runs in {what}, not in engine {engine!r}; leave --engine out, or give its checkpoint"
        )
