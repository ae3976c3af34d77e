"""Download the published weights and check them (network).

Of every file: hash, size, strict load, format, model, LayerNorm's epsilon, classes, the label of a known image, and
what several engines see on the two photographs that come with scikit-learn. A download that was interrupted goes on
where it stopped; mirrors are asked in their order. Exit code 1 when a file failed.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .output import check_writable, json_line, one_line, say, to_json, write_file

if TYPE_CHECKING:
    from ..configs.published_weights import Weight
    from ..tools.verify_weights import Check

_JSON, _MARKDOWN = ".json", ".md"
_REPORT_EVERY_S = 30.0  # of the progress where no terminal shows a bar


def add_arguments(parser: Any) -> None:
    """Options of `van verify-weights`."""
    from ..tools.verify_photographs import ENGINES

    parser.add_argument("pattern", nargs="?", default="*", help="which ones, e.g. 'official/*', van_b0, van-tiny")
    parser.add_argument("--image", help="classify this file instead of the two cats of COCO 000000039769")
    parser.add_argument("--expect", help="its class: an index, or a part of the class name")
    parser.add_argument(
        "--engines",
        default=",".join(ENGINES),
        help="what runs the photographs, separated by commas, '' for nothing (default: %(default)s, as far as they are "
        "installed)",
    )
    parser.add_argument("--cache", help="folder for the downloads (default: the hub's cache, and ~/.cache/van)")
    parser.add_argument(
        "--report", nargs="+", default=[], metavar="FILE", help="write the report: a .json file, or a table (.md)"
    )
    parser.add_argument(
        "--write", metavar="FILE", help="write the table's new rows, as Python: van/configs/published_facts.py to be"
    )
    parser.add_argument("--list", action="store_true", help="only list what is known of them, as Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(options: Any) -> int:
    """Check one weight after the other, a line each as soon as it is done."""
    from ..configs import published_weights as weights
    from ..images.preprocess import read_image

    rows = weights.find(options.pattern)
    if options.list:
        print(weights.markdown(rows))
        return 0
    for path in options.report:
        check_writable(path, _JSON, _MARKDOWN)
    check_writable(options.write, ".py")
    if options.cache is not None and Path(options.cache).exists() and not Path(options.cache).is_dir():
        raise ConfigError(f"--cache {options.cache} is a file; give a folder for the downloads")
    if options.image is not None:
        read_image(options.image)  # a bad image is reported once, not for every weight
    from ..tools.verify_weights import verify

    width, checks = max(len(row.name) for row in rows), list[Any]()
    engines = [name.strip() for name in options.engines.split(",") if name.strip()]
    with _downloads() as progress:
        for check in verify(
            rows,
            image=options.image,
            expect=options.expect,
            cache=options.cache,
            engines=engines,
            progress=progress,
        ):
            checks.append(check)
            _print(check, width, as_json=options.json)
            _write(checks, options)
    count = Counter(check.status for check in checks)
    if not options.json:
        print(", ".join(f"{count[status]} {status}" for status in ("ok", "failed", "skipped")))
    return 1 if count["failed"] else 0


def _print(check: Check, width: int, *, as_json: bool) -> None:
    from ..tools.verify_report import differing_lines, photograph_lines, to_dict

    if as_json:
        print(json_line(to_dict(check)), flush=True)
        return
    say(f"{check.status:<7}  {check.weight.name:<{width}}  {check.detail}")
    lines = [f"sha256 {check.sha256}", f"{check.facts['bytes']:,} bytes"] if check.sha256 else []
    for line in (*lines, *photograph_lines(check.seen), *differing_lines(check), *check.notes):
        say(f"{'':<7}  {'':<{width}}  {one_line(line)}")


def _write(checks: list[Check], options: Any) -> None:
    """The files as of the checks so far: each is whole at any time."""
    from ..tools.verify_report import markdown, proposal, to_dict

    for path in options.report:
        as_json = path.lower().endswith(_JSON)
        write_file(path, to_json([to_dict(check) for check in checks]) + "\n" if as_json else markdown(checks))
    if options.write:
        write_file(options.write, proposal(checks))


def _downloads() -> AbstractContextManager[Callable[[Weight, int, int | None], None]]:
    """What shows the progress of downloads on stderr: a bar on a terminal, else a line now and then."""
    return _bar() if sys.stderr.isatty() else nullcontext(_Lines())


class _Lines:
    """`official/van_b3: 120 of 538 MB`, not too often."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, row: Weight, done: int, total: int | None) -> None:
        if time.monotonic() - self.last < _REPORT_EVERY_S:
            return
        self.last = time.monotonic()
        whole = f" of {total / 1e6:,.0f}" if total is not None else ""
        say(f"{row.name}: {done / 1e6:,.0f}{whole} MB", error=True)


class _bar(AbstractContextManager[Callable[..., None]]):  # noqa: N801
    """One bar for the download that runs, with its size, speed and the time left."""

    def __enter__(self) -> Callable[..., None]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True, redirect_stdout=False
        )
        self.bar.start()
        self.row: Weight | None = None
        return self._show

    def _show(self, row: Weight, done: int, total: int | None) -> None:
        if row is not self.row:
            for task in self.bar.task_ids:
                self.bar.remove_task(task)
            self.row, self.task = row, self.bar.add_task(row.name, total=total)
        self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
