"""Results that are committed part by part: what a job has done survives whatever ends it, and no id stands twice.

Parts lie in the folder that was asked for, or in NAME.parts beside the file that was, until that file is written. A
part gets its name when all of it is on the disk. One process writes into a folder at a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..files import is_temporary, why_no_path, write_file
from .part_forms import Form, Row

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

JOB, LOCK = "_job.json", ".lock"
PART_ROWS, PART_BYTES, PART_S = 1000, 2**26, 30.0  # a part is committed when it has so many, or waits so long


class Parts:
    """The results of a job, in parts.

    out: a folder, or a file with the suffix of the form. job: what the rows depend on, JSON-ready; what was begun with
    another cannot be resumed. keep_failures: whether images without a result have a row, too.
    done: ids of the rows that are committed or wait to be. failed: id -> reason of this run's without a result.
    Raises ConfigError where nothing can be written, where another process writes, and where earlier results are in the
    way of a run that is not to resume them.
    """

    def __init__(
        self, out: str, form: Form, *, job: Mapping[str, Any], resume: bool, keep_failures: bool = True
    ) -> None:
        if reason := why_no_path(out):
            raise ConfigError(f"cannot write {out!r}: it {reason}; give a file or a folder")
        path = Path(out)
        single = path.suffix.lower() == form.suffix and not path.is_dir() and not out.endswith(("/", os.sep))
        self.out, self.form, self.keep_failures = path, form, keep_failures
        self.file = path if single else None
        self.folder = path.with_name(f"{path.name}.parts") if single else path
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self._shape: tuple[int, ...] | None = None
        self._waiting: list[Row] = []
        self._bytes, self._since = 0, time.monotonic()
        self._job: dict[str, Any] = json.loads(json.dumps(job))  # as it comes back from a file
        self._open(self._job, resume)

    def _open(self, job: dict[str, Any], resume: bool) -> None:
        if not self.folder.parent.is_dir():
            raise ConfigError(f"cannot write {self.out}: there is no folder {self.folder.parent}; create it first")
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"cannot write {self.out}: {self.folder} is a file; give a folder")
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = (self.folder / LOCK).open("w")
        except OSError as error:
            raise ConfigError(f"cannot write {self.out}: {error.strerror}") from error
        try:
            self._take_lock()
            if resume:
                self._resume(job)
            elif found := self.parts():
                raise ConfigError(
                    f"{self.folder} holds {len(found)} part(s) of an earlier run; --resume goes on with them, or give "
                    "another --out"
                )
            write_file(self.folder / JOB, json.dumps(job, indent=2) + "\n")
            self._number = 1 + max((int(path.stem.removeprefix("part-")) for path in self.parts()), default=-1)
        except BaseException:
            self._leave()
            raise

    def _take_lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process writes into {self.folder}; wait for it, or give another --out"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _resume(self, job: dict[str, Any]) -> None:
        """Take over what is there; images without a result are done again."""
        finished = self.file is not None and self.file.is_file() and not self.parts()
        earlier = self.form.job(self.out) if finished else self._begun_with()
        names = sorted({*job, *(earlier or {})}) if earlier is not None else []
        if changed := [name for name in names if job.get(name) != (earlier or {}).get(name)]:
            raise ConfigError(
                f"{self.out} was begun with another {changed[0]} ({(earlier or {}).get(changed[0])}, now "
                f"{job.get(changed[0])}); give the same, or another --out"
            )
        for path in self.folder.iterdir():
            if is_temporary(path, r"part-\d+\.\w+"):
                path.unlink()
        if finished:
            self._take_apart(self.out)
        for part in self.parts():
            rows = list(self.form.ids(part))
            if not all(good for _, good in rows):
                self.form.remove_failures(part)
            self.done |= {key for key, good in rows if good}

    def _begun_with(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / JOB).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder / JOB} cannot be read ({error}); give another --out") from error

    def _take_apart(self, file: Path) -> None:
        """Make parts of the file that an earlier run finished."""
        rows: list[Row] = []
        number = 0
        for row in self.form.reopen(file):
            rows.append(row)
            if len(rows) == PART_ROWS:
                self.form.write(self._path(number), rows)
                number, rows = number + 1, []
        if rows:
            self.form.write(self._path(number), rows)

    def parts(self) -> list[Path]:
        """Every committed part, in order."""
        name = re.compile(rf"part-\d+{re.escape(self.form.part)}")
        return sorted(path for path in self.folder.iterdir() if name.fullmatch(path.name))

    def add(self, row: Row) -> bool:
        """Take a row unless its id is there already; whether it was taken. Commits when enough rows wait.

        Raises DataError for features of another shape than those before, where the form needs one shape.
        """
        key, failed = row["id"], row.get("reason") is not None
        if key in self.done:
            return False
        self.done.add(key)
        if failed:
            self.failed[key] = row["reason"]
        if not failed or self.keep_failures:
            self._check_shape(row)
            self._waiting.append(row)
            self._bytes += _size(row)
        late = time.monotonic() - self._since > PART_S
        if len(self._waiting) >= PART_ROWS or self._bytes >= PART_BYTES or (late and self._waiting):
            self.commit()
        return True

    def _check_shape(self, row: Row) -> None:
        if "features" not in row or self.form.name != "npy":
            return
        shape = row["features"].shape
        if self._shape is None:
            first = next((next(self.form.read(part))["features"] for part in self.parts()), row["features"])
            self._shape = first.shape
        if shape != self._shape:
            raise DataError(
                f"{row['image']} has features of shape {shape}, others have {self._shape}; an array needs one shape: "
                "use --pool avg, a fixed --size, or --out NAME.parquet"
            )

    def commit(self) -> None:
        """Give the rows that wait a part of their own, under its name."""
        rows, self._waiting, self._bytes, self._since = self._waiting, [], 0, time.monotonic()
        if rows:
            self.form.write(self._path(self._number), rows)
            self._number += 1

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}{self.form.part}"

    def verify(self, ids: Iterable[str]) -> list[str]:
        """Count what lies on the disk: the ids of these that are missing.

        Raises DataError for an id that is there twice.
        """
        counts = Counter(key for part in self.parts() for key, _ in self.form.ids(part))
        if twice := [key for key, count in counts.items() if count > 1]:
            raise DataError(
                f"{self.folder} holds {twice[0]!r} {counts[twice[0]]} times; do it again into another --out"
            )
        dropped = {} if self.keep_failures else self.failed
        return [key for key in ids if key not in counts and key not in dropped]

    def finish(self, order: Sequence[str]) -> None:
        """Make the file that was asked for of the parts, which then go; a folder of parts stays one."""
        self.commit()
        parts = self.parts()
        if self.file is not None and parts:
            self.form.join(parts, self.file, order, self._job)
            shutil.rmtree(self.folder)
        self.close()

    def close(self) -> None:
        """Commit what waits and let the folder go."""
        if self._lock.closed:
            return
        try:
            self.commit()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Let the lock go, and the folder where nothing is in it."""
        lock, self._lock = self._lock, self._lock
        if self.folder.is_dir():
            if not self.parts():
                (self.folder / JOB).unlink(missing_ok=True)
            (self.folder / LOCK).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        lock.close()


def _size(row: Row) -> int:
    """Bytes of a row, roughly."""
    features = row.get("features")
    return features.nbytes if features is not None else len(row.get("result") or "") + 200
