"""A model that is served: its admission, its reading threads, its batches.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ...errors import VanError
from ...inference.batch_backoff import is_out_of_memory
from ...inference.predictor import Failure, Predictor
from .admission import Admission, Places
from .dynamic_batches import DynamicBatches, Item
from .metrics import ModelMetrics
from .problems import Problem
from .settings import Settings

_LINGER = 0.05  # of the bound of latency, that an incomplete batch waits for images that are being decoded
_WARM_UP = 3  # runs before the first request, of which the last is the first measurement
IMAGES = "images"  # the key of prepared images


@dataclass
class Timing:
    """How long an image, or the slowest of a request, waited for the network and ran in it."""

    queued_s: float = 0.0
    run_s: float = 0.0

    def include(self, item: Item) -> None:
        """Take in another image."""
        self.queued_s, self.run_s = max(self.queued_s, item.queued_s), max(self.run_s, item.run_s)


class Lane:
    """One model's way from encoded image to result.

    name: what clients call it. predictor: of the model. readers: threads that decode, shared by all models.
    """

    def __init__(
        self,
        name: str,
        predictor: Predictor,
        settings: Settings,
        *,
        places: Places,
        readers: ThreadPoolExecutor,
        reader_count: int,
        metrics: ModelMetrics,
    ) -> None:
        self.name, self.predictor, self.metrics = name, predictor, metrics
        self.batched = predictor.processor.batched
        most = settings.max_batch if self.batched else 1
        self.admission = Admission(places, latency_s=settings.latency_s, readers=reader_count)
        self._readers = readers
        # Decoded images that may wait: of a task that takes pictures one at a time each is a whole picture.
        self._slots = asyncio.Semaphore(3 * most if self.batched else 2 + reader_count)
        self._batches = DynamicBatches(
            self._run,
            max_batch=most,
            linger_s=_LINGER * settings.latency_s,
            coming=lambda: self._preparing,
            observe=self._observe,
            name=name,
        )
        self._preparing = 0
        self._siblings: dict[int, Predictor] = {}
        config = predictor.opened.config
        self.channels: int = config.backbone.in_chans
        self.fixed_size: tuple[int, int] | None = config.graph_size if predictor.opened.runtime != "torch" else None
        self.outputs: dict[str, tuple[int, ...]] = {}  # of the network by name, -1 where a side depends on the image

    @property
    def alive(self) -> bool:
        """Whether the thread that runs the network is there."""
        return self._batches.alive

    def listing(self, top: int) -> Predictor:
        """The predictor that lists so many classes; raises ConfigError as `Predictor.listing` does."""
        if top not in self._siblings:
            self._siblings[top] = self.predictor.listing(top)
        return self._siblings[top]

    def warm_up(self) -> None:
        """Run the network before the first request, and measure it; called before anything is submitted."""
        pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
        image, classes = Image.fromarray(pixels), self.predictor.opened.num_classes
        raw = self.predictor.opened.engine.run(next(self.predictor.processor.inputs(image))[None])
        self.outputs = {name: _open_shape(each.shape, classes) for name, each in raw.items()}
        for _ in range(_WARM_UP):
            start = time.perf_counter()
            prepared = self.predictor.prepare(image)
            middle = time.perf_counter()
            self.predictor.run([prepared])
            end = time.perf_counter()
        self.admission.prepare.update(middle - start)
        self.admission.run.update(end - middle)

    async def submit(self, prepare: Callable[[], Any], timing: Timing, *, tensor: bool = False) -> Any:
        """The result of an image that was accepted (`admission.enter`).

        prepare: makes the work of it, in a reading thread: a prepared image; tensor: an array (C, H, W), whose result
        are the network's outputs (1, …) by name. Raises Problem for an image that cannot be used.
        """
        unprepared = True
        try:
            async with self._slots:
                self._preparing += 1
                try:
                    work = await self._prepared(prepare)
                finally:
                    self._preparing -= 1
                    self.admission.prepared()
                    unprepared = False
                return await self._ran((work.shape if tensor else IMAGES), work, timing)
        finally:
            if unprepared:
                self.admission.prepared()
            self.admission.leave()

    async def _prepared(self, prepare: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()

        def timed() -> tuple[Any, float]:
            start = time.perf_counter()
            return prepare(), time.perf_counter() - start

        work, seconds = await loop.run_in_executor(self._readers, timed)
        self.admission.prepare.update(seconds)
        return work

    async def _ran(self, key: Hashable, work: Any, timing: Timing) -> Any:
        item = Item(key, work, asyncio.get_running_loop().create_future())
        self._batches.put(item)
        try:
            result = await item.future
        except asyncio.CancelledError:
            self._batches.drop(item)
            raise
        timing.include(item)
        self.metrics.queued(item.queued_s)
        return result

    def close(self) -> None:
        """Finish what waits and end the thread."""
        self._batches.close()

    def _observe(self, images: int, seconds: float) -> None:
        self.admission.run.update(seconds / images)
        self.metrics.batch(images, seconds)

    # ---- in the thread that runs the network

    def _run(self, key: Hashable, works: Sequence[Any]) -> list[Any]:
        """A result or an exception per work; what one of them breaks, the others are run without."""
        try:
            return self._run_images(works) if key == IMAGES else self._run_tensors(works)
        except Exception as error:
            if len(works) == 1:
                return [_problem_of(error)]
            return [each for work in works for each in self._run(key, [work])]

    def _run_images(self, prepared: Sequence[Any]) -> list[Any]:
        found = self.predictor.run(prepared)
        return [unusable(each.reason) if isinstance(each, Failure) else each for each in found]

    def _run_tensors(self, arrays: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Outputs (1, …) by name of each array (C, H, W)."""
        outputs = self.predictor.opened.engine.run(np.stack(arrays))
        return [{name: each[i : i + 1] for name, each in outputs.items()} for i in range(len(arrays))]


def unusable(reason: object) -> Problem:
    """The problem of an image that cannot be predicted."""
    return Problem(422, "unusable-image", f"{' '.join(str(reason).split())[:500]}; send another image")


def _open_shape(shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    """The shape of an output without the sides that depend on the image."""
    return (-1, *(side if len(shape) == 2 or side == classes else -1 for side in shape[1:]))


def _problem_of(error: Exception) -> Exception:
    """A problem for what the package raises on purpose and for want of memory; else it is an error of the service."""
    if isinstance(error, VanError):
        return unusable(error)
    if is_out_of_memory(error):
        return Problem(413, "no-memory", "memory does not suffice for this image; send a smaller one")
    return error
