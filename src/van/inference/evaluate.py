"""Evaluate models on labelled images: `van.evaluate("model.safetensors", "my_data")["top1"]`, for every task."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ..checkpoints.find import find_checkpoints
from ..errors import ConfigError, DataError, VanNotice, with_article
from ..files import why_no_path
from ..tasks import Task, parse_options
from ..tasks.base import DataSet, EvalOptions, EvaluationData, Evaluator, Pass
from ..tasks.base import Evaluation as AnyEvaluation
from ..tasks.classification.evaluation import Evaluation as Evaluation
from ..tasks.segmentation.evaluation import MaskEvaluation as MaskEvaluation
from .counting import Counter
from .devices import count_on, listed
from .optimizing import AUTO, Optimize
from .prefetch import default_workers, reason_of
from .session import Parse, Session, Source, open_session

Data: TypeAlias = str | Path | DataSet[Any]
Progress: TypeAlias = Callable[[int, int], None]

BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how an evaluation runs; whatever else is given belongs to the task.

    batch_size: images at a time, 32 by default, halved when memory runs out; for tasks whose images run
        together. workers: threads that read images.
    engine, precision, ema, optimize, trust, name: see `session.open_session`.
    device: "cpu", "cuda", …; several with commas, "cuda:0,cuda:1", or `devices`, share the images, a process each (so
        a script needs `if __name__ == "__main__":`): the totals are exactly those of one device that computes the same.
    """

    batch_size: int | None = None
    workers: int | None = None
    engine: str = "torch"
    device: str = "cpu"
    devices: Sequence[str] = ()
    precision: str = "fp32"
    ema: bool = False
    optimize: Optimize = AUTO
    trust: bool = False
    name: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Devices that share the images; none: everything in this process."""
        several = listed(self.device)
        return tuple(self.devices) or (several if len(several) > 1 else ())

    @property
    def on_gpus(self) -> bool:
        """Whether some of the targets are no CPU."""
        return not all(target.startswith("cpu") for target in self.targets)


@dataclass(frozen=True)
class Failure:
    """A checkpoint that could not be evaluated, and why."""

    checkpoint: str
    reason: str


def evaluate(source: Source, data: Data, *, progress: Progress | None = None, **options: object) -> AnyEvaluation:
    """Evaluate one model on labelled images: `evaluate("model.safetensors", "digits")["top1"]`, `["mIoU"]`.

    source: what `van.load` takes, an exported file, a model (taken over: moved to `device`, into eval mode), or what
    `open_session` opened. data: what `van eval --data` takes, or an opened data set.
    progress: called with (images done, images in all).
    options: fields of RunOptions, and of the task's `eval_options`.
    An Evaluation of a classifier, a MaskEvaluation of a segmenter, whatever the model's task gives.
    Raises CheckpointError, ConfigError, DataError; an image that cannot be read is a DataError, never left out.
    """
    return Evaluations.of(data, options, progress).one(source)


def evaluate_many(
    sources: Iterable[str | Path] | str | Path,
    data: Data,
    *,
    progress: Progress | None = None,
    on_result: Callable[[AnyEvaluation | Failure], None] | None = None,
    **options: object,
) -> list[AnyEvaluation | Failure]:
    """Evaluate several checkpoints of one task alike, the best first; one that fails becomes a Failure at the end.

    sources: files, folders, globs, hub ids, as `checkpoints.find_checkpoints` takes them; data, options: see
    `evaluate`. on_result: called with each as soon as it is there.
    Raises CheckpointError when there is none, DataError and ConfigError for data that cannot be opened, ConfigError
    for checkpoints of several tasks.
    """
    checkpoints = find_checkpoints([sources] if isinstance(sources, str | Path) else sources)
    return Evaluations.of(data, options, progress).many(checkpoints, on_result)


class SharedError(Exception):
    """Carries an error that no checkpoint is to blame for."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Evaluations:
    """Evaluations on one data set; it is opened once for every way to split it that a checkpoint was trained with.

    run: where and how. parse: the task's own options. progress: see `evaluate`.
    """

    def __init__(self, data: Data, run: RunOptions, parse: Parse, progress: Progress | None = None) -> None:
        if isinstance(data, str) and (reason := why_no_path(data)):
            raise DataError(f"data {data!r} {reason}; expected a folder, or the name of an embedded data set")
        self.data, self.how, self.parse, self.progress = data, run, parse, progress
        self.opened: dict[str, EvaluationData] = {}
        self.first: tuple[Task, str] | None = None

    @classmethod
    def of(cls, data: Data, options: Mapping[str, object], progress: Progress | None) -> Evaluations:
        """With options by name: of the run, and of the task."""
        known = [each.name for each in fields(RunOptions)]
        run: dict[str, Any] = {name: value for name, value in options.items() if name in known}
        own = {name: value for name, value in options.items() if name not in known}

        def parse(task: Task, name: str) -> object:
            return parse_options(task.eval_options, own, task=task, name=name, others=known)

        return cls(data, RunOptions(**run), parse, progress)

    def one(self, source: Source) -> AnyEvaluation:
        """Evaluate one model."""
        try:
            return self._evaluate(source)
        except SharedError as error:
            raise error.cause from error.cause.__cause__

    def many(
        self, checkpoints: Sequence[str], on_result: Callable[[AnyEvaluation | Failure], None] | None = None
    ) -> list[AnyEvaluation | Failure]:
        """Evaluate checkpoints, see `evaluate_many`."""
        results: list[AnyEvaluation | Failure] = []
        for checkpoint in checkpoints:
            with _notices_of(checkpoint, named=len(checkpoints) > 1):
                try:
                    results.append(self._evaluate(checkpoint))
                except SharedError as error:
                    raise error.cause from error.cause.__cause__
                except Exception as error:  # whatever is wrong with one checkpoint, the others still count
                    results.append(Failure(checkpoint, reason_of(error)))
            if on_result is not None:
                on_result(results[-1])
        failed = [each for each in results if isinstance(each, Failure)]
        done = [each for each in results if not isinstance(each, Failure)]
        return [*sorted(done, key=lambda each: -each.score), *failed]

    def _evaluate(self, source: Source) -> AnyEvaluation:
        session, targets = self._open(source), self.how.targets
        options = session.options
        assert isinstance(options, EvalOptions)
        images = self._images(session, options)
        evaluator = session.task.evaluator(session.subject, images, options)
        counter = self._counter(evaluator, session)
        total, start, done = evaluator.metric.empty(), time.perf_counter(), 0
        for count, metric in count_on(counter, targets) if targets else counter.count(evaluator.indices):
            total, done = total + metric, done + count
            if self.progress is not None:
                self.progress(done, len(evaluator.indices))
        run = Pass(
            checkpoint=session.name,
            data=images.name,
            split=images.split,
            runtime=session.runtime,
            optimized=session.optimized,
            count=done,
            seconds=time.perf_counter() - start,
            batch_size=counter.run.batch_size,
        )
        return evaluator.evaluation(total, run)

    def _open(self, source: Source) -> Session:
        how = self.how
        return open_session(
            source,
            engine=how.engine,
            device="cpu" if how.targets else how.device,
            precision=how.precision,
            ema=how.ema,
            optimize=False if how.optimize == AUTO and how.on_gpus else how.optimize,
            trust=how.trust,
            name=how.name,
            parse=self._parsed,
        )

    def _parsed(self, task: Task, name: str) -> object:
        """The task's own options; what is wrong with them is no checkpoint's fault."""
        if self.first is None:
            self.first = task, name
        try:
            if self.first[0] is not task:
                first, earlier = self.first
                raise ConfigError(
                    f"{earlier} is {with_article(first.noun)}, {name} is {with_article(task.noun)}; evaluate them one "
                    "kind at a time"
                )
            return self.parse(task, name)
        except ConfigError as error:
            raise SharedError(error) from error

    def _counter(self, evaluator: Evaluator[Any, Any, Any], session: Session) -> Counter:
        how = self.how
        if how.batch_size is not None and not evaluator.processor.batched:
            raise ConfigError(
                f"batch_size would do nothing: {session.task.noun}s take one image at a time; leave it out"
            )
        return Counter(
            evaluator=evaluator,
            engine=session.engine,
            batch_size=BATCH_SIZE if how.batch_size is None else how.batch_size,
            workers=default_workers() if how.workers is None else how.workers,
        )

    def _images(self, session: Session, options: EvalOptions) -> EvaluationData:
        key = repr((session.task.name, options.drawn(session.provenance)))
        if key not in self.opened:
            try:
                self.opened[key] = session.task.evaluation_data(self.data, options, session.provenance)
            except Exception as error:
                raise SharedError(error) from error
        return self.opened[key]


@contextmanager
def _notices_of(checkpoint: str, *, named: bool) -> Iterator[None]:
    """Notices begin with the checkpoint that they are about."""
    if not named:
        yield
        return
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_named(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, VanNotice) and not str(message).startswith(f"{checkpoint}: "):
                message = category(f"{checkpoint}: {message}")
            show(message, category, *rest, **more)

        warnings.showwarning = show_named
        yield


class _Evaluate(ModuleType):
    """This module, called as `van.evaluate(…)`."""

    def __call__(
        self, source: Source, data: Data, *, progress: Progress | None = None, **options: object
    ) -> AnyEvaluation:
        return evaluate(source, data, progress=progress, **options)


sys.modules[__name__].__class__ = _Evaluate
