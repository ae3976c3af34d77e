"""Image in, result out, for every task: what the command line, the service and batch jobs use."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..checkpoints.find import matching
from ..data.folder import is_image
from ..errors import DataError
from ..files import why_no_path
from ..images.sources import URL, ImageSource, source_of
from ..tasks import Task, parse_options
from ..tasks.base import Output, Processor
from ..tasks.classification.output import Prediction as Prediction
from ..tasks.segmentation.output import MaskPrediction as MaskPrediction
from .batch_backoff import BatchBackoff
from .class_names import class_names
from .optimizing import AUTO, Optimize
from .prefetch import default_workers, in_order, reason_of
from .session import Source, open_session

if TYPE_CHECKING:
    from ..images.sources import Picture

_NOTHING = "no such file or folder, and nothing matches it as a pattern"
_AHEAD = 4  # images that are read ahead for a task that takes them one at a time


@dataclass(frozen=True)
class Failure:
    """An image that could not be predicted, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class PreparedImage:
    """An image that is ready for the network, or the reason why it cannot be used.

    source: where it came from. content: what the processor made of it. processor: what makes its result.
    error: what went wrong, None for an image that can be run.
    """

    source: ImageSource
    content: Any = field(repr=False)
    processor: Processor[Any, Any] = field(repr=False)
    error: Exception | None = None

    @property
    def failure(self) -> Failure | None:
        """Why the image cannot be used; None when it can."""
        return None if self.error is None else Failure(self.source.name, reason_of(self.error))


class Predictor:
    """A network with its own preprocessing and labels: `Predictor("model.safetensors")("cat.jpg").label`.

    A classifier gives a Prediction, a segmenter a MaskPrediction: `Predictor("segmenter.safetensors")("cat.jpg").mask`;
    `result.draw()` is a picture of either. Any number of threads may call it at once; it can be pickled.

    source: what `van.load` takes, an exported file (.onnx, .xml, .pt2; or what `open_exported` returns), a
    model (taken over: moved to `device`, into eval mode), or a Session.
    optimize: "auto" folds the network at once, here, where that makes it faster, so that an image's result never
    depends on how many came before; True always, False never. Results differ by rounding alone. With "auto" a model
    that you give and change later, by training or hooks, is run as it is from then on; writes to `parameter.data` are
    not noticed.
    batch_size: images at a time, halved when memory runs out, for tasks whose images run together.
    workers: threads that read images; precision, ema: as in `session.open_session`.
    classes: names to use instead of the checkpoint's, as `inference.class_names` takes them ("imagenet-1k").
    exif: images are turned as their EXIF orientation says; False: pixels as stored.
    trust: open also a .pt2 file that this machine did not write, though it runs its author's programs.
    options: of the task's `predict_options`. Classifiers: top (how many classes a prediction lists), test_time_pool,
    and size, crop_pct, interpolation, mean, std, resize, which override the checkpoint's preprocessing. Segmenters:
    fields of `Inference`, or `inference` with a mapping of them (`{"scales": (0.5, 1.0), "flip": True}`), and
    opacity of what is drawn.
    Raises CheckpointError, ConfigError as `session.open_session` does, also for an option that belongs to another task.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 32,
        workers: int | None = None,
        ema: bool = False,
        optimize: Optimize = AUTO,
        trust: bool = False,
        exif: bool = True,
        classes: str | Path | Sequence[str] | None = None,
        **options: object,
    ) -> None:
        def parse(task: Task, name: str) -> object:
            return parse_options(task.predict_options, options, task=task, name=name)

        session = open_session(
            source,
            device=device,
            precision=precision,
            ema=ema,
            optimize=optimize,
            trust=trust,
            parse=parse,
        )
        if classes is not None:
            session = session.with_metadata(classes=class_names(classes, session.num_classes))
        self.workers, self.exif, self.opened = default_workers() if workers is None else workers, exif, session
        self.processor = session.processor()
        run = partial(self.processor.run, session.engine)
        self._run: BatchBackoff[Any, Any] = BatchBackoff(run, batch_size if self.processor.batched else 1)

    def __repr__(self) -> str:
        return f"Predictor({self.opened.name!r})"

    @property
    def task(self) -> Task:
        """What the network is for."""
        return self.opened.task

    @property
    def classes(self) -> tuple[str, ...] | None:
        """One name per class, None when the checkpoint has none."""
        return self.opened.classes

    @overload
    def __call__(self, image: Picture) -> Output: ...

    @overload
    def __call__(self, image: list[Picture] | tuple[Picture, ...]) -> list[Output]: ...

    def __call__(self, image: Picture | list[Picture] | tuple[Picture, ...]) -> Output | list[Output]:
        """Predict one image, or each of a list: a path, encoded bytes, an open file, a PIL image, or uint8 pixels.

        Pixels are numpy's (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or torch's (H, W), (1, H, W) or (3, H, W).
        The task's result, such as a Prediction or a MaskPrediction; a list of them for a list or tuple.
        Raises DataError for an image that cannot be used.
        """
        if isinstance(image, list | tuple):
            return [_or_raise(result) for result in self.predict_many(image)]
        prepared = self.prepare(image)
        if prepared.error is not None:
            raise prepared.error
        return _or_raise(next(self._results([prepared])))

    def predict_many(self, images: Iterable[Picture]) -> Iterator[Output | Failure]:
        """One result, or Failure for an image that cannot be used, per image and in order."""
        waiting: list[PreparedImage] = []
        ahead = 2 * self._run.batch_size if self.processor.batched else _AHEAD
        sources = (source_of(image, number, exif=self.exif) for number, image in enumerate(images))
        for source, found in in_order(self._content, sources, workers=self.workers, ahead=ahead):
            waiting.append(self._prepared(source, found))
            if len(waiting) >= self._run.batch_size:
                yield from self._results(waiting)
                waiting = []
        yield from self._results(waiting)

    def prepare(self, image: Picture, number: int = 0) -> PreparedImage:
        """Read an image and make it ready for `run`: for threads that read while another one runs the network.

        An image that cannot be used is prepared as well: `run` gives its Failure.
        number: what to call an image without a name by, as `image 3`.
        """
        source = source_of(image, number, exif=self.exif)
        try:
            return self._prepared(source, self._content(source))
        except Exception as error:
            return self._prepared(source, error)

    def run(self, prepared: Sequence[PreparedImage]) -> list[Output | Failure]:
        """One result per prepared image, in order; a Failure never keeps the others from theirs.

        Images of this predictor and of its copies that list other numbers of classes (`listing`) run together.
        """
        return list(self._results(prepared))

    def listing(self, top: int) -> Predictor:
        """A copy on the same engine whose predictions list `top` classes, all where there are fewer.

        Raises ConfigError below 1, and for a task whose results list no classes, but for the default.
        """
        kind = self.task.predict_options
        options: Any = parse_options(kind, {"top": top}, task=self.task, name=self.opened.name)
        if "top" not in {each.name for each in fields(kind)}:
            return self
        made = copy.copy(self)
        made.opened = replace(self.opened, options=replace(self.opened.options or options, top=top))  # type: ignore[type-var]
        made.processor = made.opened.processor()
        return made

    def _content(self, source: ImageSource) -> Any:
        return self.processor.prepare(source.open())

    def _prepared(self, source: ImageSource, found: Any) -> PreparedImage:
        """Of what `_content` gave, or of the exception in its place."""
        if isinstance(found, Exception):
            return PreparedImage(source, None, self.processor, found)
        return PreparedImage(source, found, self.processor)

    def _results(self, waiting: Sequence[PreparedImage]) -> Iterator[Output | Failure]:
        """Results of prepared images, made when they are asked for."""
        raw = iter(self._raw([each.content for each in waiting if each.error is None]))
        for each in waiting:
            result = next(raw) if each.error is None else each.error
            try:
                if isinstance(result, Exception):
                    yield Failure(each.source.name, reason_of(result))
                else:
                    yield each.processor.output(result, each.content, each.source)
            except DataError as error:
                yield Failure(each.source.name, reason_of(error))

    def _raw(self, contents: Sequence[Any]) -> list[Any]:
        """A raw result per image, or the DataError of one that cannot be run."""
        try:
            return self._run(contents) if contents else []
        except DataError as error:  # of one image: the others are none the worse
            if len(contents) == 1:
                return [error]
            return [each for one in contents for each in self._raw([one])]


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
            found_no = "is an address; download it first" if URL.match(pattern) else _NOTHING
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


def _or_raise(result: Output | Failure) -> Output:
    if isinstance(result, Failure):
        known = result.image in result.reason
        raise DataError(result.reason if known else f"{result.image}: {result.reason}")
    return result
