"""What a batch job does with images, here or in the actors of a cluster: predictions, or features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import tee
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import ConfigError
from ..inference.embed import Embedder
from ..inference.predictor import Failure, Predictor
from .image_row import ImageRow
from .part_forms import Row, json_line

if TYPE_CHECKING:
    from ..inference.session import Session

MEMBERS = ("id", "image", "reason")


class Work(ABC):
    """Turns images into rows of results, of which an image that cannot be used has one, too; it can be pickled."""

    session: Session
    options: dict[str, Any]

    @abstractmethod
    def rows(self, images: Iterable[ImageRow]) -> Iterator[Row]:
        """One row per image, in order, as `part_forms` describes them; images are read ahead, some at a time."""

    @abstractmethod
    def on(self, device: str, workers: int) -> Self:
        """The same on another device, with so many threads that read images."""

    @abstractmethod
    def job(self) -> dict[str, Any]:
        """What the results depend on, JSON-ready."""

    @abstractmethod
    def columns(self) -> Mapping[str, str]:
        """Column -> pyarrow's name of its type, of the values that rows have on their way."""

    def __getstate__(self) -> dict[str, Any]:
        return {"session": self.session, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["session"], **state["options"])  # type: ignore[misc]

    def packed(self, row: Row) -> Row:
        """A row as it goes from one process to another."""
        return row

    def unpacked(self, row: Row) -> Row:
        """The row that was packed."""
        return row


class PredictWork(Work):
    """Predictions of any task, masks in them as PNG files in base64 (`Output.to_json`)."""

    def __init__(self, session: Session, **options: Any) -> None:
        """options: batch_size, workers, exif of a Predictor."""
        self.session, self.options = session, options
        self.predictor = Predictor(session, **options)

    def rows(self, images: Iterable[ImageRow]) -> Iterator[Row]:
        rows, again = tee(images)
        results = self.predictor.predict_many(row.picture for row in again)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Failure):
                yield failed(row, result)
                continue
            label, index, score = result.leading() or (None, None, None)
            values = result.to_json()
            values.pop("image", None)
            found = {"label": label, "index": index, "score": score, "result": json_line(values)}
            yield {"id": row.id, "image": row.image, "reason": None, **found}

    def on(self, device: str, workers: int) -> PredictWork:
        return PredictWork(moved(self.session, device), **self.options | {"workers": workers})

    def job(self) -> dict[str, Any]:
        return {"verb": "predict", "checkpoint": self.session.name, **self.predictor.processor.facts()}

    def columns(self) -> Mapping[str, str]:
        return {"label": "string", "index": "int64", "score": "float64", "result": "large_string"}


class EmbedWork(Work):
    """Features of a stage."""

    def __init__(self, session: Session, **options: Any) -> None:
        """options: stage, pool, batch_size, workers, exif of an Embedder."""
        self.session, self.options = session, options
        self.embedder = Embedder(session, **options)

    def rows(self, images: Iterable[ImageRow]) -> Iterator[Row]:
        rows, again = tee(images)
        found = self.embedder.embed_many(row.picture for row in again)
        for row, features in zip(rows, found, strict=True):
            if isinstance(features, Failure):
                yield failed(row, features)
            else:
                yield {"id": row.id, "image": row.image, "reason": None, "features": features}

    def on(self, device: str, workers: int) -> EmbedWork:
        return EmbedWork(moved(self.session, device), **self.options | {"workers": workers})

    def job(self) -> dict[str, Any]:
        own = self.embedder
        where = {"checkpoint": self.session.name, "stage": own.stage, "pool": own.pool}
        return {"verb": "embed", **where, **own.processor.facts()}

    def columns(self) -> Mapping[str, str]:
        return {"features": "large_binary", "shape": "large_string"}

    def packed(self, row: Row) -> Row:
        features = row.get("features")
        if features is None:
            return row
        return row | {"features": features.tobytes(), "shape": ",".join(map(str, features.shape))}

    def unpacked(self, row: Row) -> Row:
        if row["features"] is None:
            return {name: row[name] for name in MEMBERS}
        shape = [int(side) for side in row.pop("shape").split(",")]
        return row | {"features": np.frombuffer(row["features"], np.float32).reshape(shape)}


def failed(row: ImageRow, failure: Failure) -> Row:
    """The row of an image that could not be used."""
    return {"id": row.id, "image": row.image, "reason": failure.reason}


def moved(session: Session, device: str) -> Session:
    """A session whose network is on another device; raises ConfigError where it cannot run there."""
    return session if device == "cpu" else replace(session, engine=session.engine.on(device))


def arrow_results(work: Work, rows: Sequence[Row], error: str | None = None) -> Any:
    """Rows as a table of Arrow, to be sent elsewhere; error: why the whole job cannot go on."""
    import pyarrow as pa

    kinds = {**dict.fromkeys(("id", "image", "reason", "error"), "string"), **work.columns()}
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in kinds.items()])
    values = [{"error": error}] if error is not None else [work.packed(row) for row in rows]
    return pa.Table.from_pylist(values, schema=schema)


def results_of(work: Work, table: Any) -> Iterator[Row]:
    """The rows of such a table; raises ConfigError where the job cannot go on."""
    for row in table.to_pylist():
        if (error := row.pop("error")) is not None:
            raise ConfigError(error)
        yield work.unpacked(row)
