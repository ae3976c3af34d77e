"""Image in, labelled result (or label map) out: what the command line, the service and batch jobs use."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ..checkpoints.find import matching
from ..data.folder import is_image
from ..errors import ConfigError, DataError
from ..files import why_no_path
from ..images.label_maps import Palette, overlay
from ..images.preprocess import read_image, to_color, upright
from ..models import load
from ..nn.segmenter import Segmenter
from ..tasks.classification.meter import softmax
from .batch_backoff import HalvingEngine
from .class_names import class_names
from .engines.exported import ExportedEngine, is_exported, open_exported
from .prefetch import default_workers, in_order, reason_of
from .segmenter_session import OpenedSegmenter, open_segmenter
from .session import Opened, open_classifier

# A path, encoded bytes, an open file, a PIL image, or uint8 pixels.
Picture = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor
EXPECTED = (
    "a path, the bytes of an image file, an open file, a PIL image, or uint8 pixels: numpy (H, W), (H, W, 3), torch "
    "(H, W), (3, H, W)"
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:image/")
_NOTHING = "no such file or folder, and nothing matches it as a pattern"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says about one image.

    image: the path, or a description of an image in memory; label, index, probability: of the likeliest class.
    top: the likeliest classes, best first, as (label, index, probability).
    """

    image: str
    top: tuple[tuple[str, int, float], ...]

    @property
    def label(self) -> str:
        """Name of the likeliest class, its index as text when the checkpoint has no names."""
        return self.top[0][0]

    @property
    def index(self) -> int:
        """Position of the likeliest class among the logits."""
        return self.top[0][1]

    @property
    def probability(self) -> float:
        """Softmax of the likeliest class, 0 … 1."""
        return self.top[0][2]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        top = [{"label": label, "index": index, "probability": probability} for label, index, probability in self.top]
        return {"image": self.image, **top[0], "top": top}


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPrediction:
    """The class of every pixel of one picture.

    image: the path, or a description of an image in memory; picture: the image itself.
    mask: class numbers, (H, W). classes, palette: a name and a colour per class.
    """

    image: str
    picture: Image.Image
    mask: np.ndarray
    classes: tuple[str, ...]
    palette: Palette

    @property
    def shares(self) -> tuple[tuple[str, int, float], ...]:
        """(name, number, share of the pixels) of the classes present, largest first."""
        numbers, counts = np.unique(self.mask, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return tuple((self.classes[numbers[i]], int(numbers[i]), float(counts[i] / self.mask.size)) for i in order)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; the mask and the picture are not among them."""
        classes = [{"class": label, "index": number, "share": share} for label, number, share in self.shares]
        return {"image": self.image, "size": [*self.mask.shape], "classes": classes}

    def __repr__(self) -> str:
        shares = ", ".join(f"{label} {share:.1%}" for label, _, share in self.shares[:5])
        height, width = self.mask.shape
        return f"MaskPrediction(image={self.image!r}, {height} x {width}: {shares})"

    def overlay(self, opacity: float = 0.5, *, legend: bool = True) -> Image.Image:
        """The picture with its classes painted over it and, on the right, their names; opacity 0 … 1."""
        names = self.classes if legend else None
        return overlay(self.picture, self.mask, self.palette, opacity=opacity, classes=names)


@dataclass(frozen=True)
class Failure:
    """An image that could not be predicted, and why."""

    image: str
    reason: str


class Predictor:
    """A network with its own preprocessing and labels: `Predictor("model.safetensors")("cat.jpg").label`.

    A classifier gives a Prediction, a segmenter a MaskPrediction: `Predictor("segmenter.safetensors")("cat.jpg").mask`.
    Any number of threads may call it at once; it can be pickled.

    source: what `van.load` takes, an exported file (.onnx, .xml, .pt2; or what `engines.open_exported` makes of it), a
    model (taken over: moved to `device`, into eval mode), or an `engines.Opened`.
    top: how many classes a prediction lists; batch_size: images at a time, halved when memory runs out.
    workers: threads that read images; ema, test_time_pool, optimize: as in `engines.open_classifier`.
    size, crop_pct, interpolation, mean, std, resize: override the checkpoint's preprocessing.
    classes: names to use instead of the checkpoint's, as `engines.class_names` takes them ("imagenet-1k").
    inference: fields of `segment.Inference` to override, for segmenters (`{"scales": (0.5, 1.0), "flip": True}`).
    exif: images are turned as their EXIF orientation says; False: pixels as stored.
    trust: open also a .pt2 file that this machine did not write, though it runs its author's programs.
    Raises CheckpointError, ConfigError as `engines.open_classifier` and `open_segmenter` do, also for an option that
    belongs to the other task.
    """

    def __init__(
        self,
        source: str | Path | nn.Module | ExportedEngine | Opened,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        top: int = 5,
        batch_size: int = 32,
        workers: int | None = None,
        ema: bool = False,
        test_time_pool: bool = False,
        optimize: bool = False,
        size: int | tuple[int, int] | None = None,
        crop_pct: float | None = None,
        interpolation: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: str | None = None,
        classes: str | Path | Sequence[str] | None = None,
        inference: Mapping[str, Any] | None = None,
        trust: bool = False,
        exif: bool = True,
    ) -> None:
        if top < 1:
            raise ConfigError(f"top is {top}; expected at least 1")
        self.workers, self.exif = default_workers() if workers is None else workers, exif
        name = str(source) if isinstance(source, str | Path) else None
        if is_exported(source):
            source = open_exported(source, trust=trust)
        elif isinstance(source, str | Path):
            source, ema = load(source, ema=ema), False
        if _segments(source):
            refused = {"size": size, "crop_pct": crop_pct, "interpolation": interpolation, "resize": resize}
            _refuse({**refused, "test_time_pool": test_time_pool or None}, "classifiers", name or "the model")
            chosen = {**(inference or {}), **_given(mean=mean, std=std)}
            engine_options: dict[str, Any] = {"device": device, "precision": precision, "ema": ema}
            self.opened: Opened | OpenedSegmenter = open_segmenter(
                source, **engine_options, optimize=optimize, overrides=chosen, name=name
            )
            if classes is not None:
                self.opened = replace(self.opened, classes=class_names(classes, self.opened.num_classes))
            return
        _refuse({"inference": inference or None}, "segmenters", name or "the model")
        overrides: dict[str, Any] = {"size": size, "crop_pct": crop_pct, "interpolation": interpolation}
        overrides |= {"mean": mean, "std": std, "resize": resize}
        opened = open_classifier(
            source,
            device=device,
            precision=precision,
            ema=ema,
            test_time_pool=test_time_pool,
            optimize=optimize,
            overrides=overrides,
            name=name,
        )
        if classes is not None:
            opened = replace(opened, classes=class_names(classes, opened.num_classes))
        self.opened = opened
        self.top = min(top, opened.num_classes)
        self._engine = HalvingEngine(opened.engine, batch_size)

    def __repr__(self) -> str:
        return f"Predictor({self.opened.name!r})"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """One name per logit, None when the checkpoint has none."""
        return self.opened.classes

    def __call__(self, image: Picture | list[Picture] | tuple[Picture, ...]) -> Any:
        """Predict one image, or each of a list: a path, encoded bytes, an open file, a PIL image, or uint8 pixels.

        Pixels are numpy's (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or torch's (H, W), (1, H, W) or (3, H, W).
        A Prediction, or a segmenter's MaskPrediction; a list of them for a list or tuple.
        Raises DataError for an image that cannot be used.
        """
        if isinstance(image, list | tuple):
            return [_or_raise(result) for result in self.predict_many(image)]
        if isinstance(self.opened, OpenedSegmenter):
            return self._masked(self.opened, _name(image, 0), _opened(image, self.exif))
        return _or_raise(self._predictions([_name(image, 0)], [self._array(image)])[0])

    def predict_many(self, images: Iterable[Picture]) -> Iterator[Any]:
        """One (Mask)Prediction, or Failure for an image that cannot be used, per image and in order.

        Classifiers run in batches, segmenters picture by picture.
        """
        if isinstance(self.opened, OpenedSegmenter):
            yield from self._masks(self.opened, images)
            return
        waiting: list[tuple[str, np.ndarray | Failure]] = []
        ahead = 2 * self._engine.batch_size
        decoded = in_order(lambda item: self._array(item[1]), enumerate(images), workers=self.workers, ahead=ahead)
        for (number, image), result in decoded:
            name = _name(image, number)
            waiting.append((name, Failure(name, reason_of(result)) if isinstance(result, Exception) else result))
            if len(waiting) >= self._engine.batch_size:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _masks(self, opened: OpenedSegmenter, images: Iterable[Picture]) -> Iterator[MaskPrediction | Failure]:
        decoded = in_order(lambda item: _opened(item[1], self.exif), enumerate(images), workers=self.workers, ahead=4)
        for (number, image), result in decoded:
            name = _name(image, number)
            if isinstance(result, Exception):
                yield Failure(name, reason_of(result))
                continue
            try:
                masked = self._masked(opened, name, result)
            except DataError as error:  # of one picture: the others are none the worse
                yield Failure(name, reason_of(error))
                continue
            yield masked

    def _masked(self, opened: OpenedSegmenter, name: str, image: Image.Image) -> MaskPrediction:
        picture = to_color(image, "RGB")
        return MaskPrediction(
            image=name, picture=picture, mask=opened.mask(picture), classes=opened.classes, palette=opened.palette
        )

    def _flush(self, waiting: Sequence[tuple[str, np.ndarray | Failure]]) -> Iterator[Prediction | Failure]:
        arrays = [(name, result) for name, result in waiting if isinstance(result, np.ndarray)]
        predictions = iter(self._predictions([name for name, _ in arrays], [array for _, array in arrays]))
        yield from (result if isinstance(result, Failure) else next(predictions) for _, result in waiting)

    def _predictions(self, names: Sequence[str], arrays: Sequence[np.ndarray]) -> list[Prediction | Failure]:
        logits = self._engine.logits(arrays) if arrays else np.empty((0, self.opened.num_classes))  # (N, K)
        return [self._prediction(name, row) for name, row in zip(names, logits, strict=True)]

    def _prediction(self, name: str, logits: np.ndarray) -> Prediction | Failure:
        if not np.isfinite(logits).all():
            return Failure(name, "the network's output is not finite; try precision fp32")
        assert isinstance(self.opened, Opened)
        probabilities = softmax(logits)
        best = np.argsort(-logits, kind="stable")[: self.top].tolist()
        return Prediction(image=name, top=tuple((self.opened.label(i), i, float(probabilities[i])) for i in best))

    def _array(self, image: Picture) -> np.ndarray:
        """float32 (C, H, W), preprocessed."""
        assert isinstance(self.opened, Opened)  # segmenters never come here
        return self.opened.preprocess(_opened(image, self.exif))


def _segments(source: Any) -> TypeGuard[Segmenter | ExportedEngine]:
    if isinstance(source, ExportedEngine):
        return source.description.task == "segmentation"
    return isinstance(source, Segmenter)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: Mapping[str, Any], owners: str, name: str) -> None:
    """Raises ConfigError for options of the other task that are set."""
    for option in _given(**options):
        raise ConfigError(f"{option} belongs to {owners}, which {name} is not; leave it out")


def find_images(patterns: Iterable[str | Path]) -> tuple[list[Path], list[Failure]]:
    """Images that paths, folders (searched to any depth) and globs ("photos/**/*.jpg") stand for, each once.

    A file or a glob's match counts whatever its name; of a folder, visible files with an image's suffix count.
    Patterns that stand for nothing come back as failures. Within a pattern the order is alphabetical.
    """
    found: dict[Path, None] = {}
    failures: list[Failure] = []
    for pattern in map(str, patterns):
        if reason := why_no_path(pattern):
            failures.append(Failure(repr(pattern), reason))
            continue
        matches = matching(pattern)
        images = [image for match in matches for image in _images(Path(match))]
        found |= dict.fromkeys(images)
        if not matches:
            found_no = "is an address; download it first" if _URL.match(pattern) else _NOTHING
            failures.append(Failure(pattern, found_no))
        elif not images:
            failures.append(Failure(pattern, "no images in this folder"))
    return list(found), failures


def _images(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = (Path(folder, name) for folder, _, names in os.walk(path, followlinks=False) for name in names)
    return sorted(file for file in inside if is_image(file) and not _hidden(file.relative_to(path)))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _or_raise(result: Any) -> Any:
    if isinstance(result, Failure):
        known = result.image in result.reason
        raise DataError(result.reason if known else f"{result.image}: {result.reason}")
    return result


def _opened(image: Picture, exif: bool) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright(image) if exif else image
    if isinstance(image, str) and (found := _URL.match(image)):
        raise DataError(f"{image} is an address ({found[0]}…); download it first, and give the file or its bytes")
    if isinstance(image, str | Path):
        return read_image(image, exif=exif)
    if isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read"):
        encoded: Any = image if hasattr(image, "read") else io.BytesIO(image)
        return read_image(encoded, exif=exif)
    if isinstance(image, np.ndarray | Tensor):
        return _from_pixels(image)
    raise DataError(f"got an image of type {type(image).__name__}; expected {EXPECTED}")


def _from_pixels(pixels: np.ndarray | Tensor) -> Image.Image:
    """uint8 (H, W[, C]) of numpy, ([C,] H, W) of torch; raises DataError with the remedy for other types and shapes."""
    first = isinstance(pixels, Tensor)
    array = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else pixels
    kind = f"{'a tensor' if first else 'an array'} of {array.dtype} with shape {array.shape}"
    if array.ndim == 4:
        raise DataError(f"got {kind}; expected uint8 pixels of one image; give several as a list: list(images)")
    if array.dtype != np.uint8:
        scale = ", as (255 * image).round() where values are 0 … 1" if array.dtype.kind == "f" else ""
        raise DataError(
            f"got {kind}; expected uint8 pixels, 0 … 255{scale}: the checkpoint's own preprocessing follows"
        )
    if array.ndim == 3 and first:
        array = array.transpose(1, 2, 0)
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        expected = "(H, W), (1, H, W), (3, H, W)" if first else "(H, W), (H, W, 1), (H, W, 3), (H, W, 4)"
        raise DataError(f"got {kind}; expected uint8 pixels {expected}")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and channels == 1 else array))


def _name(image: Picture, number: int) -> str:
    if isinstance(image, str | Path):
        return str(image)
    name = getattr(image, "filename", None) or getattr(image, "name", None)  # of PIL images and open files
    return name if isinstance(name, str) else f"image {number}"
