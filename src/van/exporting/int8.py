"""`van.quantize`: a network in int8 as one file, refused when it loses more accuracy than was allowed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..errors import ConfigError, DataError, UnknownNameError, VanError
from ..files import atomic_outputs
from ..inference.description import Description
from ..inference.evaluate import evaluate
from ..ops.timing import burst_ms, in_turn, summary
from ..tasks import task_of
from ..tasks.base import Evaluation
from ..tasks.comparison import Comparison, RawOutputs, values
from .exporter import describe, destination, files_of, network, runner
from .graph import prepared, trace
from .int8_onnx import OnnxInt8
from .int8_openvino import OpenVinoInt8
from .int8_report import LayerError, Loss, Report, layer_errors, outputs_of, sqnr_db
from .sample_images import Images, calibration_images, validation_images

QUANTIZERS: dict[str, type[OnnxInt8] | type[OpenVinoInt8]] = {"onnx": OnnxInt8, "openvino": OpenVinoInt8}
MAX_DROP = 0.01
SAMPLES = 300
LAYER_IMAGES = 8  # that the layers' errors are measured on
ROUNDS = 5  # of the speed
_OPTIONS = {"fold": True, "dilation_free": False, "precision": "int8"}


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An int8 file that was written, read back and measured.

    path: the file; for OpenVINO the .xml file. bytes, fp32_bytes: of all its files, and of the float32 ones.
    """

    path: Path
    format: str
    bytes: int
    fp32_bytes: int
    report: Report
    description: Description
    seconds: float

    @property
    def comparison(self) -> Comparison:
        """What counted as the same result, and the words for it."""
        return task_of(self.description.config).comparison

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        sizes = {"bytes": self.bytes, "fp32_bytes": self.fp32_bytes, "seconds": self.seconds}
        values = {"report": self.report.to_dict(), "description": self.description.to_dict()}
        return {"path": str(self.path), "format": self.format} | sizes | values


def quantize(
    source: str | Path | nn.Module,
    path: str | Path,
    *,
    calibration: Images,
    validation: str | Path | None = None,
    max_drop: float = MAX_DROP,
    samples: int = SAMPLES,
    format: str | None = None,  # noqa: A002
    size: int | tuple[int, int] | None = None,
    ema: bool = False,
) -> Quantized:
    """Write a model in int8 for ONNX Runtime or OpenVINO, unless that loses too much accuracy.

    The network is folded first; its convolutions and products are int8 with a scale per output channel, all else,
    the stem too, stays in floating point. Where the drop is exceeded, the layers with the largest errors go back to
    float32: one, two, four … of them, up to half.

    source, path, format, size, ema: as in `van.export`; path ends in .onnx or .xml.
    calibration: images like those the network will see: a folder (searched to any depth), "digits" or PIL images; at
    most `samples` of them, spread over all, are read.
    validation: labelled data as `van eval` takes them. max_drop: the largest loss of the task's monitored score on them
    (top-1, mIoU) as a share of the perfect one; without them the largest share of the decisions on the calibration
    images, one per image or per pixel, that change.
    Raises VanError, and writes nothing, when the drop stays larger; ConfigError and DataError for what cannot be;
    MissingExtraError without NNCF or ONNX Runtime.
    """
    start = time.perf_counter()
    target, kind = destination(path, format)
    model = network(source, ema=ema)
    description = describe(model, size=size, options=_OPTIONS)
    _check(kind, max_drop)
    images = calibration_images(calibration, description, samples)
    trial = _Trial(
        quantizer=QUANTIZERS[kind](trace(prepared(model), description.in_chans, description.config.graph_size)),
        description=description,
        images=images,
        compared=images if validation is None else validation_images(validation, description, samples),
        calibration=str(calibration) if isinstance(calibration, str | Path) else "images in memory",
        validation=validation,
        max_drop=max_drop,
    )
    with atomic_outputs(*files_of(target)) as (*_, file):
        report = trial.write(file)
        fp32_bytes = _bytes(trial.fp32(file))
    return Quantized(
        path=target,
        format=kind,
        bytes=_bytes(target),
        fp32_bytes=fp32_bytes,
        report=report,
        description=trial.described(report),
        seconds=time.perf_counter() - start,
    )


def _check(kind: str, max_drop: float) -> None:
    if kind not in QUANTIZERS:
        raise UnknownNameError.of("int8 format", kind, QUANTIZERS)
    if not 0 <= max_drop <= 1:
        raise ConfigError(f"max_drop is {max_drop}; expected a share of the images from 0 to 1, e.g. {MAX_DROP:g}")


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Attempts at one file, until the drop is small enough."""

    quantizer: OnnxInt8 | OpenVinoInt8
    description: Description
    images: Sequence[np.ndarray]
    compared: Sequence[np.ndarray]
    calibration: str
    validation: str | Path | None
    max_drop: float

    def write(self, file: Path) -> Report:
        """Write the file with its report; raises VanError when too many layers would have to stay in float32."""
        fp32, layers = self.fp32(file), list(self.quantizer.layers)
        options = _OPTIONS | {"precision": "fp32"}
        self.quantizer.write(self.quantizer.graph, replace(self.description, options=options), fp32)
        want = outputs_of(runner(fp32), self.compared)
        evaluated = self._evaluated(fp32)
        kept, count = set[str](), 1
        while True:
            chosen = [layer for layer in layers if layer not in kept]
            graph = self.quantizer.quantized(self.images, chosen)
            self.quantizer.write(graph, self.description, file)
            found = self._loss(file, want, evaluated)
            errors = self._errors(graph, chosen)
            if found.drop <= self.max_drop:
                break
            if len(kept) + count > len(layers) // 2:
                raise VanError(
                    f"int8 loses {found.drop:.2%} with {len(kept)} of {len(layers)} products in float32; allowed are"
                    f" {self.max_drop:.2%}; nothing was written: calibrate on images like those it will see, or allow"
                    " more (max_drop)"
                )
            worst = sorted((each for each in errors if each.int8), key=lambda each: each.sqnr_db)
            kept, count = kept | {each.layer for each in worst[:count]}, 2 * count
        report = self._report(file, found, errors)
        self.quantizer.write(graph, self.described(report), file)
        return report

    def described(self, report: Report) -> Description:
        """The description that goes into the file, with the report."""
        return replace(self.description, options=_OPTIONS | {"report": report.to_dict()})

    def fp32(self, file: Path) -> Path:
        """The float32 graph beside a file, which is not kept."""
        return file.with_name(f"fp32{file.suffix}")

    @property
    def comparison(self) -> Comparison:
        """What counts as the same result for the network's task."""
        return task_of(self.description.config).comparison

    def _loss(self, file: Path, want: Sequence[RawOutputs], fp32: Evaluation | None) -> Loss:
        got = outputs_of(runner(file), self.compared)
        same, int8 = self.comparison.agreement(got, want), self._evaluated(file)
        perfect = 1.0 if int8 is None else int8.perfect
        return Loss(
            agreement=same,
            sqnr_db=sqnr_db([values(each) for each in got], [values(each) for each in want]),
            key=self.comparison.score,
            score=None if int8 is None else int8.score,
            fp32_score=None if fp32 is None else fp32.score,
            perfect=perfect,
            figures=self.comparison.measure(got, want),
            drop=1 - same if int8 is None or fp32 is None else (fp32.score - int8.score) / perfect,
        )

    def _evaluated(self, file: Path) -> Evaluation | None:
        """The evaluation on the validation data, where there are any."""
        if self.validation is None:
            return None
        found = evaluate(file, self.validation)
        if math.isnan(found.score):
            raise DataError(f"{self.validation} has nothing labelled to validate on; give other data")
        return found

    def _errors(self, graph: Any, int8: Sequence[str]) -> tuple[LayerError, ...]:
        got, want = (self.quantizer.outputs(each, self.images[:LAYER_IMAGES]) for each in (graph, self.quantizer.graph))
        return layer_errors(zip(got, want, strict=True), int8)

    def _report(self, file: Path, found: Loss, errors: tuple[LayerError, ...]) -> Report:
        runs, image = {"fp32": runner(self.fp32(file)), "int8": runner(file)}, self.images[0]
        times = in_turn({name: partial(burst_ms, partial(run, image)) for name, run in runs.items()}, ROUNDS)
        base, own = (summary(times["fp32"], times[name]) for name in ("fp32", "int8"))
        return Report(
            **vars(found),
            max_drop=self.max_drop,
            fp32_ms=base["ms"],
            ms=own["ms"],
            speedup=own["ratio"],
            calibration=self.calibration,
            images=len(self.images),
            compared=len(self.compared),
            validation=None if self.validation is None else str(self.validation),
            layers=errors,
        )


def _bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in files_of(path))
