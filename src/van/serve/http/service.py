"""The state of the service: its models, what is in flight, whether it begins, runs or ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import ConfigError
from ...inference.predictor import Predictor
from ...inference.prefetch import default_workers
from .admission import Places, overloaded
from .bodies import BodyBudget
from .lane import Lane
from .logs import JsonLog
from .metrics import Metrics
from .problems import Problem
from .settings import Settings

_MOST_NAME = 64
_BODY_THREADS = 2  # that parse bodies and write PNGs
# Makes the predictors by name; called in a thread, raises what opening raises.
Open = Callable[[], Mapping[str, Predictor]]


class Service:
    """Everything that requests share.

    open_models: called when the service starts, in a thread. lanes: the models by name, empty until they are open.
    failed: why they could not be opened. draining: nothing new is accepted. active: requests that are being answered.
    """

    def __init__(self, open_models: Open, settings: Settings | None = None, *, log: JsonLog | None = None) -> None:
        self.settings = settings or Settings()
        self.log, self.metrics = log or JsonLog(), Metrics()
        self.budget, self.places = BodyBudget(self.settings), Places(self.settings.max_queue)
        self.lanes: dict[str, Lane] = {}
        self.failed: Exception | None = None
        self.draining = False
        self.active = 0
        self.opening: asyncio.Task[None] | None = None
        self.requests = 0  # that read or hold a body
        self._open_models = open_models
        readers = default_workers()
        self.readers = ThreadPoolExecutor(readers, thread_name_prefix="van-decode")
        self.bodies = ThreadPoolExecutor(_BODY_THREADS, thread_name_prefix="van-body")
        self._reader_count = readers

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return bool(self.lanes) and not self.draining and all(lane.alive for lane in self.lanes.values())

    async def start(self) -> None:
        """Begin to open the models."""
        self.opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        try:
            self.lanes = await asyncio.to_thread(self._opened)
        except Exception as error:
            self.failed = error

    def _opened(self) -> dict[str, Lane]:
        lanes = {
            name: Lane(
                name,
                predictor,
                self.settings,
                places=self.places,
                readers=self.readers,
                reader_count=self._reader_count,
                metrics=self.metrics.of_model(name),
            )
            for name, predictor in self._open_models().items()
        }
        for lane in lanes.values():
            lane.warm_up()
        return lanes

    async def close(self) -> None:
        """End the threads; requests have been answered by now."""
        if self.opening is not None:
            await self.opening
        for lane in self.lanes.values():
            await asyncio.to_thread(lane.close)
        self.readers.shutdown(cancel_futures=True)
        self.bodies.shutdown(cancel_futures=True)

    def lane(self, name: str | None) -> Lane:
        """The model of that name, the first for None; raises Problem where there is none."""
        if not self.lanes:
            raise Problem(503, "loading", "the models are being opened; try again", retry_after_s=2)
        if name is None:
            return next(iter(self.lanes.values()))
        if name not in self.lanes:
            detail = "there is no such model here; ask for one of `models`, or for none: the first is the default"
            raise Problem(404, "unknown-model", detail, models=list(self.lanes))
        return self.lanes[name]

    def summary(self) -> list[str]:
        """A line for people on each model."""
        lines = []
        for lane in self.lanes.values():
            opened, seconds = lane.predictor.opened, lane.admission.run.value
            lines.append(f"{lane.name}: {opened.task.noun}, {opened.runtime}, {1000 * seconds:.1f} ms per image")
        return lines

    def check_room(self, lane: Lane) -> None:
        """Before a body is read: raises Problem where there is no room for even one image of it."""
        if self.requests >= self.settings.max_queue:
            raise overloaded(f"{self.requests} requests are being read", lane.admission.retry_after_s)
        lane.admission.check(1)


def model_names(sources: Sequence[str | Path]) -> list[str]:
    """A name for each source: its file's stem, cleaned for addresses, with a number where two share one.

    Raises ConfigError for no sources.
    """
    if not sources:
        raise ConfigError("no model to serve; give at least one checkpoint or exported file")
    names: list[str] = []
    for source in map(str, sources):
        stem = Path(source).name.rsplit(".", 1)[0] if Path(source).suffix else Path(source).name
        kept = "".join(each if (each.isalnum() and each.isascii()) or each in "._-" else "_" for each in stem)
        name = kept.strip(".")[:_MOST_NAME] or "model"
        number = 2
        while name in names:
            name, number = f"{kept[:_MOST_NAME]}-{number}", number + 1
        names.append(name)
    return names
