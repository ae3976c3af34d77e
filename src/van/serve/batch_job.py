"""A batch job: every image once, whatever happens to those who do the work.

Whoever runs the rows may lose or repeat some; the job commits each id once, counts at the end what lies on the disk,
and has missing ones run again, in ever smaller blocks, so that an image that ends its process takes no other with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import DataError, VanError
from .batch_work import Work
from .image_rows import ImageRows
from .part_forms import Row
from .parts import Parts

BLOCKS = (256, 16, 1)  # most images of a block in the first, second and every later attempt
PAUSES_S = (2.0, 10.0)  # after attempts, one after another, that brought nothing: a lost node takes seconds to be known
NAMED = 5  # missing images that an error names


class LostRowsError(VanError):
    """An attempt ended before it had given every row."""


class Runner(Protocol):
    """Runs a job's images somewhere."""

    def run(self, work: Work, rows: ImageRows, block: int) -> Iterator[Row]:
        """Rows of results in any order; some may be missing or come twice. block: most images that are run together.

        Raises LostRowsError where an attempt cannot go on, other errors where no attempt can.
        """


class LocalRunner:
    """Runs the images in this process, in order."""

    def run(self, work: Work, rows: ImageRows, block: int) -> Iterator[Row]:
        """See Runner.run."""
        return work.rows(rows)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What became of a job. images: in all; earlier: done by an earlier run; failed: without a result."""

    images: int
    earlier: int
    failed: int


def run_job(
    work: Work,
    rows: ImageRows,
    parts: Parts,
    runner: Runner,
    *,
    started: Callable[[int], None] = lambda total: None,
    done: Callable[[Row], None] = lambda row: None,
) -> Finished:
    """Run every image that has no row yet, commit the rows, and write what was asked for.

    started: called with the number of images to do; done: with every row that is new.
    Raises DataError for images that get no row in three attempts, and where not a single image could be used; what is
    done stays committed then, as after any other error.
    """
    order = list(rows.ids())
    earlier = len(parts.done.intersection(order))
    started(len(order) - earlier)
    try:
        trouble = _attempts(work, rows, parts, runner, done)
        parts.commit()
        _require_all(parts.verify(order), len(order), parts, trouble)
        parts.finish(order)
    finally:
        parts.close()
    if parts.failed and len(parts.failed) == len(order):
        key, reason = next(iter(parts.failed.items()))
        raise DataError(
            f"none of {len(order)} image(s) could be used; the first: {reason if key in reason else f'{key}: {reason}'}"
        )
    return Finished(images=len(order), earlier=earlier, failed=len(parts.failed))


def _attempts(work: Work, rows: ImageRows, parts: Parts, runner: Runner, done: Callable[[Row], None]) -> str:
    """Run what is missing until nothing is, or three attempts in a row, in ever smaller blocks, brought nothing new.

    What ended the last attempt that did not end well, in words; "" where all did.
    """
    attempt, fruitless, trouble = 0, 0, ""
    while len(left := rows.without(parts.done)):
        before = len(parts.done)
        try:
            for row in runner.run(work, left, BLOCKS[min(attempt, len(BLOCKS) - 1)]):
                if parts.add(row):
                    done(row)
        except LostRowsError as error:
            trouble = str(error)
        attempt += 1
        fruitless = fruitless + 1 if len(parts.done) == before else 0
        if fruitless > len(PAUSES_S):
            break
        if fruitless:
            time.sleep(PAUSES_S[fruitless - 1])
    return trouble


def _require_all(missing: list[str], total: int, parts: Parts, trouble: str) -> None:
    if not missing:
        return
    named = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
    because = f" ({trouble})" if trouble else ""
    raise DataError(
        f"{len(missing)} of {total} image(s) have no result after several attempts{because}: {named}; the processes "
        f"that ran them ended, perhaps for want of memory; the others are in {parts.folder}, --resume tries again"
    )
