"""`van.export`: a network as one file for a runtime, and proof that it computes the same."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__, models, ops
from ..errors import ConfigError, UnknownNameError, VanError, VanNotice
from ..files import atomic_outputs, why_no_path
from ..inference.description import Description
from ..inference.engines import written
from ..inference.engines.exported import SUFFIXES, open_exported
from ..nn.model import Model
from ..tasks import TASKS, parse_options, task_of
from ..tasks.base import Subject
from ..tasks.comparison import Comparison, RawOutputs
from .formats import WRITERS, Program
from .graph import OUTPUT, prepared, trace
from .parity import AGREEMENT, TOLERANCE, Parity, Run, check_limits, compare, random_batches
from .sample_images import Images, named_batches, named_images, processor_of, takes_images

FORMATS = tuple(WRITERS)
SIZE = (128, 160)  # of random images for networks whose images have no size in common


@dataclass(frozen=True, kw_only=True)
class Export:
    """A file that was written, read back, compared with the network and found to compute the same.

    path: the file; for OpenVINO the .xml file, its .bin lies beside it. bytes: of all files together.
    parity: the comparison, every case in it. description: what the file says about itself.
    """

    path: Path
    format: str
    bytes: int
    parity: Parity
    description: Description
    seconds: float

    @property
    def max_error(self) -> float:
        """The largest difference of a logit, as a part of the largest logit."""
        return self.parity.max_error

    @property
    def mean_error(self) -> float:
        """The mean difference of the logits, as a part of the largest logit."""
        return self.parity.mean_error

    @property
    def agreement(self) -> float:
        """Share of the decisions, one per image or per pixel, that are the same."""
        return self.parity.agreement

    @property
    def comparison(self) -> Comparison:
        """What counted as the same result, and the words for it."""
        return task_of(self.description.config).comparison

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        facts = {"path": str(self.path), "format": self.format, "bytes": self.bytes, "seconds": self.seconds}
        return {**facts, "parity": self.parity.to_dict(), "description": self.description.to_dict()}


def export(
    source: str | Path | nn.Module,
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    size: int | tuple[int, int] | None = None,
    fold: bool = True,
    dilation_free: bool = False,
    tolerance: float = TOLERANCE,
    agreement: float = AGREEMENT,
    images: Images | None = None,
    ema: bool = False,
) -> Export:
    """Write a model for ONNX Runtime, OpenVINO or torch.export, after proof that it computes the same.

    The graph takes any batch and image size (of detectors that stretch images: one size, see `config.graph_size`) and
    starts from the folded network of plain operators; everything that
    `van.Predictor` and `van eval` need (preprocessing, classes, palette, provenance) is inside the file.

    source: what `van.load` takes, or a model. ema: the averaged weights of a file that holds both.
    path: ends in .onnx, .xml (with the weights in a .bin file beside it) or .pt2; format: "onnx", "openvino" or
    "torch" for a path without such an end, which it then gets.
    size: pixels that images are brought to, as the task's option of this name; None: the checkpoint's own.
    fold: BatchNorm and layer scales go into the convolutions, exactly. dilation_free: dilated convolutions as dense
    ones, for accelerators without dilation.
    tolerance: the largest difference of a logit that passes, as a part of the largest logit; agreement: the share of
    decisions (likeliest classes, of an image or of its pixels) that must be the same.
    images: a folder or PIL images to compare on besides random ones; None: photographs and digits that come with
    scikit-learn.
    Raises VanError, and writes nothing, when the file does not compute what the network does; ConfigError for a format
    or model that cannot be; MissingExtraError without the format's package.
    """
    start = time.perf_counter()
    target, kind = destination(path, format)
    check_limits(tolerance, agreement)
    model = network(source, ema=ema)
    options = {"fold": fold, "dilation_free": dilation_free, "precision": "fp32"}
    description = describe(model, size=size, options=options)
    shown = list(batches(description, images))
    ready = prepared(model, fold=fold, dilation_free=dilation_free)
    program = trace(ready, description.in_chans, description.config.graph_size)
    with atomic_outputs(*files_of(target)) as (*_, file):
        _write(program, description, file, kind)
        parity = compare(
            runner(file),
            reference(model),
            shown,
            tolerance=tolerance,
            minimal_agreement=agreement,
            comparison=task_of(model.config).comparison,
        )
        parity.check(f"the {kind} file")
        if kind == "torch":
            _note_written(file, target)
    size_bytes = sum(each.stat().st_size for each in files_of(target))
    seconds = time.perf_counter() - start
    return Export(path=target, format=kind, bytes=size_bytes, parity=parity, description=description, seconds=seconds)


def _note_written(file: Path, target: Path) -> None:
    """Remember the file, so that it opens here without trust; a VanNotice where nothing can be."""
    try:
        written.note(file)
    except OSError as error:
        reason = error.strerror or str(error)
        warnings.warn(f"opening {target} will need trust=True (--trust): {reason}", VanNotice, stacklevel=3)


def _write(program: Program, description: Description, file: Path, kind: str) -> None:
    try:
        WRITERS[kind](program, description, file)
    except (VanError, OSError):
        raise
    except Exception as error:  # of every exporter's own types
        reason = " ".join(str(error).split())[:300]
        raise VanError(f"{description.name} cannot be written as {kind}: {reason}; try another format") from error


def destination(path: str | Path, format: str | None = None) -> tuple[Path, str]:  # noqa: A002
    """The file to write and its format; raises ConfigError for a suffix that does not go with it, UnknownNameError."""
    if reason := why_no_path(path):
        raise ConfigError(f"cannot write {str(path)!r}: it {reason}; give a file name")
    path = Path(path)
    suffixes = {each: suffix for suffix, each in SUFFIXES.items()}
    if format is not None and format not in suffixes:
        raise UnknownNameError.of("export format", format, suffixes)
    if format and path.suffix.lower() not in SUFFIXES:
        path = path.with_name(path.name + suffixes[format])
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None or kind != (format or kind):
        wanted = suffixes[format] if format else ", ".join(SUFFIXES)
        raise ConfigError(f"cannot export to {path}: its name ends in {path.suffix or 'nothing'!r}; expected {wanted}")
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: a folder is there; give a file name")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    return path, kind


def network(source: str | Path | nn.Module, *, ema: bool = False) -> Model:
    """The model to export, loaded or as given; raises ConfigError for one without a task or without an output."""
    name = str(source) if isinstance(source, str | Path) else type(source).__name__
    if not isinstance(source, nn.Module):
        source = models.load(source, ema=ema)
    elif ema:
        raise ConfigError("ema chooses between the weights of a file; a model in memory has one set only")
    if not isinstance(source, Model):
        kinds = " or ".join(task.noun for task in TASKS.values())
        raise ConfigError(f"{name} is no model of this package; expected a {kinds}")
    task_of(source.config)  # raises ConfigError where there is none
    if not source.num_classes:
        layers = source.config.output_layers
        raise ConfigError(f"{name} has no {layers} (num_classes is 0); expected a model with an output to compare")
    if source.config.not_exported:
        raise ConfigError(f"{name} ({source.config.method}) cannot be exported: {source.config.not_exported}")
    return source


def describe(model: Model, *, size: int | tuple[int, int] | None = None, options: Mapping[str, Any]) -> Description:
    """What the file will say about the network; raises ConfigError for a `size` where it means nothing."""
    task, subject = (
        task_of(model.config),
        Subject(config=model.config, metadata=model.metadata, name=type(model).__name__),
    )
    if size is not None:
        parse_options(task.predict_options, {"size": size}, task=task, name=subject.name)
        subject = task.sized(subject, size)
    own, options = task.exported(subject), dict(options)
    return Description(config=subject.config, metadata=subject.metadata, options=options, version=__version__, **own)


def batches(description: Description, images: Images | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """What is compared: named batches (N, C, H, W), random ones of even, odd and tiny sizes, then real ones."""
    preprocess, only = description.preprocess, description.config.graph_size
    height, width = preprocess.size if preprocess is not None and _has_one_size(description) else only or SIZE
    sizes = [(1, height, width), (3, height // 2 | 1, width * 3 // 4 | 1), (2, 29, 45)]
    if only is not None:
        sizes = [(batch, *only) for batch, *_ in sizes]
    yield from random_batches(sizes, description.in_chans)
    if takes_images(description):
        yield from named_batches(named_images(images), processor_of(description))
    elif images is not None:
        raise ConfigError(f"no network of {description.in_chans} channels takes images; leave them out")


def _has_one_size(description: Description) -> bool:
    """Whether all images are brought to the size in the preprocessing, which then is an option of prediction."""
    return any(each.name == "size" for each in fields(task_of(description.config).predict_options))


def runner(path: Path) -> Run:
    """The engine of a file that was just exported."""
    return open_exported(path, trust=True).run


def reference(model: Model) -> Run:
    """The network itself, on the library's convolutions: what `Model.raw` gives."""
    original = copy.deepcopy(model).float().cpu().eval()

    def run(images: np.ndarray) -> RawOutputs:
        with torch.inference_mode(), ops.without_kernels():
            return by_name(original.raw(torch.from_numpy(images)))

    return run


def by_name(raw: torch.Tensor | Mapping[str, torch.Tensor]) -> RawOutputs:
    """What `Model.raw` gives, by name, on the host."""
    named = {OUTPUT: raw} if isinstance(raw, torch.Tensor) else raw
    return {name: output.cpu().numpy() for name, output in named.items()}


def files_of(path: Path) -> list[Path]:
    """The files that make up an exported one, itself last: an .xml file without its weights is refused."""
    return [path.with_suffix(".bin"), path] if SUFFIXES[path.suffix.lower()] == "openvino" else [path]
