"""Features of images: the map of a stage of any model's backbone, or its mean.

Shapes: N images, C channels of the stage, h, w sides of its map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError
from ..images.sources import source_of
from ..nn.backbone import Backbone
from ..nn.stage_features import StageFeatures
from ..tasks import parse_options
from .batch_backoff import BatchBackoff
from .engines.torch_engine import TorchEngine
from .optimizing import AUTO, Optimize
from .predictor import Failure
from .prefetch import default_workers, in_order, reason_of
from .session import Session, Source, open_session

if TYPE_CHECKING:
    from ..images.sources import Picture
    from ..tasks import Task


class Embedder:
    """Images in, features out: `Embedder("model.safetensors")("cat.jpg")` is (C,) float32.

    An image is prepared as for a prediction: cropped for a classifier, stretched or padded for the others; the mean is
    over all of what the network gets. Threads may share one; it can be pickled.

    source, device, precision, ema, optimize, batch_size, workers, exif: as of Predictor; exported files have no stages.
    stage: whose output, after its LayerNorm, from 1. pool: "avg" for its mean over all positions, "none" for the map,
    (C, h, w). options: of the task's `predict_options`, such as `size`.
    Raises CheckpointError, ConfigError as Predictor does, also for a stage that the backbone does not have.
    """

    def __init__(
        self,
        source: Source,
        *,
        stage: int = 4,
        pool: str = "avg",
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 32,
        workers: int | None = None,
        ema: bool = False,
        optimize: Optimize = AUTO,
        exif: bool = True,
        **options: object,
    ) -> None:
        def parse(task: Task, name: str) -> object:
            return parse_options(task.predict_options, options, task=task, name=name)

        if isinstance(source, Session):
            session = source
        else:
            chosen = {"device": device, "precision": precision, "ema": ema, "optimize": optimize}
            session = open_session(source, **chosen, parse=parse)  # type: ignore[arg-type]
        self.opened, self.stage, self.pool, self.exif = session, stage, pool, exif
        self.workers = default_workers() if workers is None else workers
        self.processor = session.processor()
        self.engine = _engine(session, stage, pool)
        self._run: BatchBackoff[np.ndarray, np.ndarray] = BatchBackoff(self._features, batch_size)

    @property
    def channels(self) -> int:
        """C of the features."""
        config = self.opened.config.backbone
        return config.embed_dims[self.stage - 1]

    def __call__(self, image: Picture) -> np.ndarray:
        """Features of one image, (C,) or (C, h, w) float32; raises DataError for one that cannot be used."""
        found = next(self.embed_many([image]))
        if isinstance(found, Failure):
            known = found.image in found.reason
            raise DataError(found.reason if known else f"{found.image}: {found.reason}")
        return found

    def embed_many(self, images: Iterable[Picture]) -> Iterator[np.ndarray | Failure]:
        """Features, or Failure for an image that cannot be used, per image and in order; memory does not grow."""
        sources = (source_of(image, number, exif=self.exif) for number, image in enumerate(images))
        waiting: list[tuple[str, np.ndarray | Exception]] = []
        ahead = 2 * self._run.batch_size
        for source, inputs in in_order(
            lambda each: self._inputs(each.open()), sources, workers=self.workers, ahead=ahead
        ):
            waiting.append((source.name, inputs))
            if len(waiting) >= self._run.batch_size:
                yield from self._results(waiting)
                waiting = []
        yield from self._results(waiting)

    def _inputs(self, image: object) -> np.ndarray:
        """What the network gets of an image; raises DataError for one that is cut into several."""
        views = self.processor.inputs(image)  # type: ignore[arg-type]
        first = next(views)
        if next(views, None) is not None:
            raise DataError(
                "this model takes the image in several windows or scales, which have no features in common; use a "
                "smaller image, or predict options for one view"
            )
        return first

    def _results(self, waiting: Sequence[tuple[str, np.ndarray | Exception]]) -> Iterator[np.ndarray | Failure]:
        """Images of one size, one after another, go through the network together."""
        for shape, some in groupby(waiting, key=lambda each: getattr(each[1], "shape", None)):
            together = list(some)
            if shape is None:
                yield from (Failure(name, reason_of(error)) for name, error in together)  # type: ignore[arg-type]
                continue
            for (name, _), found in zip(together, self._run([each for _, each in together]), strict=True):  # type: ignore[misc]
                finite = np.isfinite(found).all()
                yield found if finite else Failure(name, "the features are not finite; try precision fp32")

    def _features(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(self.engine.run(np.stack(inputs))["logits"])


def embed(source: Source, images: Iterable[Picture], **options: object) -> np.ndarray:
    """Features of images, (N, C), or (N, C, h, w) with pool="none": `van.embed("model.safetensors", ["a.jpg"])`.

    options: of Embedder, whose `embed_many` is for more images than fit into memory.
    Raises DataError for an image that cannot be used, and for maps of different sizes.
    """
    embedder = Embedder(source, **options)  # type: ignore[arg-type]
    found: list[np.ndarray] = []
    for each in embedder.embed_many(images):
        if isinstance(each, Failure):
            raise DataError(f"{each.image}: {each.reason}")
        if found and each.shape != found[0].shape:
            raise DataError(
                f"image {len(found)} has features of shape {each.shape}, image 0 of {found[0].shape}; one array needs "
                "one shape: use pool='avg', or a fixed size"
            )
        found.append(each)
    return np.stack(found) if found else np.zeros((0, embedder.channels), np.float32)


def _engine(session: Session, stage: int, pool: str) -> TorchEngine:
    """What runs the stages; raises ConfigError for a model without a backbone of stages."""
    engine = session.engine
    backbone = getattr(engine.network, "backbone", None)
    if not isinstance(engine, TorchEngine) or not isinstance(backbone, Backbone):
        raise ConfigError(f"{session.name} has no stages that can be run by themselves; give a checkpoint of a VAN")

    def part(network: Any) -> StageFeatures:
        return StageFeatures(network.backbone, stage=stage, pool=pool)

    return engine.of(part)
