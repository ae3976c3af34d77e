"""`van.export`: a network as one file for a runtime, and proof that it computes the same."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__, models, ops
from ..configs.catalog import why_created_only
from ..errors import ConfigError, UnknownNameError, VanError, VanNotice
from ..files import atomic_outputs, why_no_path
from ..images.preprocess import IMAGENET
from ..inference.description import Description
from ..inference.engines import written
from ..inference.engines.exported import SUFFIXES, open_exported
from ..nn import Classifier
from ..nn.model import Model
from ..nn.segmenter import Segmenter
from ..tasks.segmentation.inference import RECORDED, inference_of
from ..tasks.segmentation.processor import inference_for
from .formats import WRITERS, Program
from .graph import prepared, trace
from .parity import AGREEMENT, TOLERANCE, Parity, Run, check_limits, compare, random_batches
from .sample_images import Images, for_classifier, for_segmenter, pictures

FORMATS = tuple(WRITERS)
IGNORE_INDEX = 255


@dataclass(frozen=True, kw_only=True)
class Export:
    """A file that was written, read back, compared with the network and found to compute the same.

    path: the file; for OpenVINO the .xml file, its .bin lies beside it. bytes: of all files together.
    parity: the comparison, every case in it. description: what the file tells about itself.
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
        """Share of the images, of a segmenter the pixels, with the same likeliest class."""
        return self.parity.agreement

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
    """Write a classifier or segmenter for ONNX Runtime, OpenVINO or torch.export, after proof that it is the same.

    The graph takes any batch and image size and starts from the folded network of plain operators; everything that
    `van.Predictor` and `van eval` need (preprocessing, classes, palette, provenance) is inside the file.

    source: what `van.load` takes, or a model. ema: the averaged weights of a file that holds both.
    path: ends in .onnx, .xml (with the weights in a .bin file beside it) or .pt2; format: "onnx", "openvino" or
    "torch" for a path without such an end, which it then gets.
    size: pixels that a classifier's images are brought to; None: the checkpoint's own.
    fold: BatchNorm and layer scales go into the convolutions, exactly. dilation_free: dilated convolutions as dense
    ones, for accelerators without dilation.
    tolerance: the largest difference of a logit that passes, as a part of the largest logit; agreement: the share of
    likeliest classes that must be the same. images: a folder or PIL images to compare on besides random ones; None:
    photographs and digits that come with scikit-learn.
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
    program = trace(prepared(model, fold=fold, dilation_free=dilation_free), description.in_chans)
    with atomic_outputs(*files_of(target)) as (*_, file):
        _write(program, description, file, kind)
        limits = {"tolerance": tolerance, "minimal_agreement": agreement}
        parity = compare(runner(file), reference(model), shown, **limits)
        parity.check(f"the {kind} file")
        if kind == "torch":
            _note_written(file, target)
    size_bytes = sum(each.stat().st_size for each in files_of(target))
    seconds = time.perf_counter() - start
    return Export(path=target, format=kind, bytes=size_bytes, parity=parity, description=description, seconds=seconds)


def _note_written(file: Path, target: Path) -> None:
    """Remember the file, so that it opens here without trust; says so where nothing can be remembered."""
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
    suffixes = {kind: suffix for suffix, kind in SUFFIXES.items()}
    if format is not None and format not in suffixes:
        raise UnknownNameError.of("export format", format, suffixes)
    if format and path.suffix.lower() not in SUFFIXES:
        path = path.with_name(path.name + suffixes[format])
    told = SUFFIXES.get(path.suffix.lower())
    if told is None or told != (format or told):
        wanted = suffixes[format] if format else ", ".join(SUFFIXES)
        raise ConfigError(f"cannot export to {path}: its name ends in {path.suffix or 'nothing'!r}; expected {wanted}")
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: a folder is there; give a file name")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    return path, told


def network(source: str | Path | nn.Module, *, ema: bool = False) -> Classifier | Segmenter:
    """The classifier or segmenter to export, loaded or as given; raises ConfigError for anything else."""
    name = str(source) if isinstance(source, str | Path) else type(source).__name__
    if not isinstance(source, nn.Module):
        source = models.load(source, ema=ema)
    elif ema:
        raise ConfigError("ema chooses between the weights of a file; a model in memory has one set only")
    if reason := why_created_only(source):
        raise ConfigError(reason)
    if not isinstance(source, Classifier | Segmenter) or not source.num_classes:
        found = "has no classification head" if isinstance(source, Classifier) else "is neither"
        raise ConfigError(f"{name} {found}; expected a classifier or a segmenter")
    return source


def describe(model: Model, *, size: int | tuple[int, int] | None = None, options: Mapping[str, Any]) -> Description:
    """What the file will say about the network; raises ConfigError for a `size` where it means nothing."""
    metadata = model.metadata
    if size is not None:
        if isinstance(model, Segmenter) or metadata.preprocess is None:
            raise ConfigError("size is of a classifier's preprocessing, which this network has none of; leave it out")
        metadata = replace(metadata, preprocess=metadata.preprocess.with_overrides(size=size))
    facts: dict[str, Any] = {}
    if isinstance(model, Segmenter):
        facts = {"ignore_index": IGNORE_INDEX, "inference": _recorded(model)}
    return Description(config=model.config, metadata=metadata, options=dict(options), version=__version__, **facts)


def _recorded(segmenter: Segmenter) -> dict[str, Any]:
    """How the network looks at pictures, as plain values: its training's record, else its method's published way."""
    if own := segmenter.provenance.get("inference"):
        return dict(own)
    how = inference_of(segmenter.preprocess or IMAGENET, {}, {}, method=segmenter.config.method)
    values = {name: getattr(how, name) for name in RECORDED}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def batches(description: Description, images: Images | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """What the gate looks at: named batches (N, C, H, W), random ones of even, odd and tiny sizes, then real ones."""
    preprocess = description.preprocess
    classifies = description.task == "classification"
    height, width = preprocess.size if preprocess is not None and classifies else (128, 160)
    sizes = [(1, height, width), (3, height // 2 | 1, width * 3 // 4 | 1), (2, 29, 45)]
    yield from random_batches(sizes, description.in_chans)
    if preprocess is None:  # of a network that takes no images
        if images is not None:
            raise ConfigError(f"images cannot be shown to a network of {description.in_chans} channels; leave them out")
        return
    real = pictures(images)
    if classifies:
        yield from for_classifier(real, preprocess)
    else:
        yield from for_segmenter(real, inference_for(description.subject))


def runner(path: Path) -> Run:
    """The engine of a file that was just exported: (N, C, H, W) -> logits."""
    engine = open_exported(path, trust=True)
    return lambda images: engine.run(images)["logits"]


def reference(model: nn.Module) -> Run:
    """The network itself, on the library's convolutions: (N, C, H, W) -> logits, a segmenter's at its head's size."""
    original = copy.deepcopy(model).float().cpu().eval()
    run: Any = original.decode if isinstance(original, Segmenter) else original

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), ops.without_kernels():
            return run(torch.from_numpy(images)).numpy()

    return logits


def files_of(path: Path) -> list[Path]:
    """The files that make up an exported one, itself last: an .xml file without its weights is refused."""
    return [path.with_suffix(".bin"), path] if SUFFIXES[path.suffix.lower()] == "openvino" else [path]
