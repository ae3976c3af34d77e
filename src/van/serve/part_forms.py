"""The files that a batch job writes: JSON lines and Parquet of predictions, Parquet and .npy of features.

A row of results is a dict with "id", "image" and either "reason", why there is no result, or values: of a prediction
"label", "index", "score" (of the class that stands out, if one does) and "result", its JSON; of features "features", an
array. A form writes rows as a part, gives back what is in one, and makes one file of many.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError, DataError, MissingExtraError
from ..files import UNSAFE, atomic_output, atomic_outputs

Row = dict[str, Any]
Job = Mapping[str, Any]  # what rows depend on, JSON-ready
KEY = "van"  # of the job in a Parquet file
READ = 256  # rows of a part that are in memory together


class Form(ABC):
    """A format of results. suffix: of the file of results; part: of a part. name: on the command line."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    part: ClassVar[str]

    @abstractmethod
    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Write a part; the file is there whole or not at all."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """The rows of a part; raises DataError for a file that is none."""

    def ids(self, path: Path) -> Iterator[tuple[str, bool]]:
        """(id, whether it has a result) of every row of a part."""
        return ((row["id"], row.get("reason") is None) for row in self.read(path))

    @abstractmethod
    def join(self, parts: Sequence[Path], out: Path, order: Iterable[str], job: Job) -> None:
        """Make one file of all parts, whole or not at all.

        order: ids as the inputs have them. job: what the rows depend on, which goes into the file where it can.
        """

    def job(self, out: Path) -> Job | None:
        """What the rows of such a file depend on; None where it does not say."""
        return None

    def reopen(self, out: Path) -> Iterator[Row]:
        """The rows of such a file."""
        return self.read(out)

    def remove_failures(self, path: Path) -> None:
        """Write a part again without the rows that have no result."""
        rows = [row for row in self.read(path) if row.get("reason") is None]
        if rows:
            self.write(path, rows)
        else:
            path.unlink()


class JsonLines(Form):
    """One line of JSON per image: id, image, and its values or the reason."""

    name, suffix, part = "jsonl", ".jsonl", ".jsonl"

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        with atomic_output(path, fsync=True) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{self.line(row)}\n" for row in rows)

    @staticmethod
    def line(row: Row) -> str:
        """A row as JSON."""
        values = {"reason": row["reason"]} if row.get("reason") is not None else json.loads(row["result"])
        return json_line({"id": row["id"], "image": row["image"], **values})

    def read(self, path: Path) -> Iterator[Row]:
        with path.open(encoding="utf-8") as file:
            for text in file:
                try:
                    entry = json.loads(text)
                    key, image, reason = entry.pop("id"), entry.pop("image"), entry.get("reason")
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise DataError(f"{path} is no file of this command; give another --out") from error
                yield {"id": key, "image": image, "reason": reason, "result": json_line(entry)}

    def join(self, parts: Sequence[Path], out: Path, order: Iterable[str], job: Job) -> None:
        with atomic_output(out, fsync=True, follow_links=True) as temporary, temporary.open("wb") as file:
            for part in parts:
                file.write(part.read_bytes())


class ParquetForm(Form):
    """Parquet, whose columns a subclass names."""

    suffix, part = ".parquet", ".parquet"

    @abstractmethod
    def schema(self) -> Any:
        """Columns and types."""

    @abstractmethod
    def table(self, rows: Sequence[Row]) -> Any:
        """Rows as a table of that schema."""

    @abstractmethod
    def rows(self, table: Any) -> Iterator[Row]:
        """The rows of such a table."""

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        with atomic_output(path, fsync=True) as temporary:
            parquet().write_table(self.table(rows), temporary)

    def read(self, path: Path) -> Iterator[Row]:
        for table in self._tables(path):
            yield from self.rows(table)

    def _tables(self, path: Path, columns: list[str] | None = None) -> Iterator[Any]:
        import pyarrow

        try:
            with parquet().ParquetFile(path) as file:
                if not set(self.schema().names) <= set(file.schema_arrow.names):
                    raise DataError(f"{path} is no file of this command; give another --out")
                for batch in file.iter_batches(batch_size=READ, columns=columns or self.schema().names):
                    yield pyarrow.Table.from_batches([batch])
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); remove it") from error

    def ids(self, path: Path) -> Iterator[tuple[str, bool]]:
        failures = "reason" in self.schema().names
        for table in self._tables(path, ["id", "reason"] if failures else ["id"]):
            for row in table.to_pylist():
                yield row["id"], row.get("reason") is None

    def join(self, parts: Sequence[Path], out: Path, order: Iterable[str], job: Job) -> None:
        with (
            atomic_output(out, fsync=True, follow_links=True) as temporary,
            parquet().ParquetWriter(temporary, self.schema().with_metadata({KEY: json.dumps(job)})) as writer,
        ):
            for part in parts:
                for table in self._tables(part):
                    writer.write_table(table.replace_schema_metadata(writer.schema.metadata))

    def job(self, out: Path) -> Job | None:
        found = (parquet().read_schema(out).metadata or {}).get(KEY.encode())
        return None if found is None else json.loads(found)


class PredictionParquet(ParquetForm):
    """Columns id, image, label, index, score of the class that stands out, result as JSON, reason."""

    name = "parquet"

    def schema(self) -> Any:
        import pyarrow as pa

        kinds = {"id": pa.string(), "image": pa.string(), "label": pa.string(), "index": pa.int64()}
        more = {"score": pa.float64(), "result": pa.large_string(), "reason": pa.string()}
        return pa.schema(list((kinds | more).items()))

    def table(self, rows: Sequence[Row]) -> Any:
        import pyarrow

        return pyarrow.Table.from_pylist(list(rows), schema=self.schema())

    def rows(self, table: Any) -> Iterator[Row]:
        yield from table.to_pylist()


class FeatureParquet(ParquetForm):
    """Columns id, image, features (flat, float32) and shape: (C,), or (C, h, w) of maps."""

    name = "parquet"

    def schema(self) -> Any:
        import pyarrow as pa

        kinds = {"id": pa.string(), "image": pa.string(), "features": pa.large_list(pa.float32())}
        return pa.schema(list((kinds | {"shape": pa.list_(pa.int32())}).items()))

    def table(self, rows: Sequence[Row]) -> Any:
        import pyarrow as pa

        flat = [np.asarray(row["features"], np.float32).ravel() for row in rows]
        ends = np.cumsum([0, *map(len, flat)]).astype(np.int64)
        features = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(flat or [np.zeros(0, "f4")])))
        named = [pa.array([row[name] for row in rows], pa.string()) for name in ("id", "image")]
        shapes = pa.array([[*row["features"].shape] for row in rows], pa.list_(pa.int32()))
        return pa.Table.from_arrays([*named, features, shapes], schema=self.schema())

    def rows(self, table: Any) -> Iterator[Row]:
        names = zip(table["id"].to_pylist(), table["image"].to_pylist(), table["shape"].to_pylist(), strict=True)
        for number, (key, image, shape) in enumerate(names):
            features = table["features"][number].values.to_numpy(zero_copy_only=False).reshape(shape)
            yield {"id": key, "image": image, "features": features}


class FeatureArray(Form):
    """One array (N, C) or (N, C, h, w) float32 in the order of the inputs, and its ids, in that order, beside it.

    `features.npy` has them in `features.ids.json`, under "ids", after checkpoint, stage, pooling; parts are .npz.
    """

    name, suffix, part = "npy", ".npy", ".npz"

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        texts = {name: json.dumps([row[name] for row in rows]).encode() for name in ("id", "image")}
        joined = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
        with atomic_output(path, fsync=True) as temporary, temporary.open("wb") as file:
            np.savez(file, features=np.stack([row["features"] for row in rows]), **joined)  # type: ignore[arg-type]

    def read(self, path: Path) -> Iterator[Row]:
        try:
            with np.load(path) as file:
                ids, images = (json.loads(file[name].tobytes()) for name in ("id", "image"))
                features = file["features"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error}); remove it") from error
        for key, image, each in zip(ids, images, features, strict=True):
            yield {"id": key, "image": image, "features": each}

    def ids(self, path: Path) -> Iterator[tuple[str, bool]]:
        with np.load(path) as file:
            yield from ((key, True) for key in json.loads(file["id"].tobytes()))

    def join(self, parts: Sequence[Path], out: Path, order: Iterable[str], job: Job) -> None:
        have = {key for part in parts for key, _ in self.ids(part)}
        ids = [key for key in order if key in have]
        place = {key: number for number, key in enumerate(ids)}
        shape = next(self.read(parts[0]))["features"].shape
        with atomic_outputs(ids_file(out), out) as (names, array):
            names.write_text(json.dumps({**job, "ids": ids}, indent=1), encoding="utf-8")
            whole = np.lib.format.open_memmap(array, "w+", np.float32, (len(ids), *shape))
            for part in parts:
                for row in self.read(part):
                    whole[place[row["id"]]] = row["features"]
            whole.flush()
            del whole

    def reopen(self, out: Path) -> Iterator[Row]:
        try:
            ids = json.loads(ids_file(out).read_text(encoding="utf-8"))["ids"]
            features = np.load(out, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{out} cannot be resumed ({error}); remove it, or leave --resume out") from error
        for key, each in zip(ids, features, strict=True):
            yield {"id": key, "image": key, "features": np.array(each)}

    def job(self, out: Path) -> Job | None:
        try:
            found = json.loads(ids_file(out).read_text(encoding="utf-8"))
            return {name: value for name, value in found.items() if name != "ids"}
        except (OSError, ValueError, AttributeError):
            return None  # which reading the rows says better


def ids_file(out: Path) -> Path:
    """Where the ids of an array of features are."""
    return out.with_name(f"{out.stem}.ids.json")


def json_line(value: Mapping[str, Any]) -> str:
    """JSON on one line that any reader takes: lone surrogates and what steers a terminal as `\\u001b`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def parquet() -> Any:
    """pyarrow's module for Parquet; raises MissingExtraError without it."""
    try:
        from pyarrow import parquet as module
    except ImportError:
        raise MissingExtraError.of("pyarrow", "ray", "for Parquet files") from None
    return module


PREDICTIONS: tuple[Form, ...] = (PredictionParquet(), JsonLines())
FEATURES: tuple[Form, ...] = (FeatureParquet(), FeatureArray())


def form_of(out: str, wanted: str | None, forms: Sequence[Form]) -> Form:
    """The form that is wanted, else that of the file's suffix; the first for a folder. Raises ConfigError."""
    suffix = Path(out).suffix.lower()
    by_suffix = next((form for form in forms if suffix == form.suffix), None)
    by_name = next((form for form in forms if wanted == form.name), None)
    names, suffixes = ", ".join(form.name for form in forms), ", ".join(form.suffix for form in forms)
    if wanted is not None and by_name is None:
        raise ConfigError(f"--format is {wanted!r}; this writes {names}")
    if by_name is not None and by_suffix not in (None, by_name):
        raise ConfigError(f"--out {out} and --format {wanted} do not fit; leave --format out")
    if by_name or by_suffix:
        return by_name or by_suffix  # type: ignore[return-value]
    if suffix and not Path(out).is_dir():
        raise ConfigError(f"--out {out}: expected a folder, or a file that ends in {suffixes}")
    return forms[0]
