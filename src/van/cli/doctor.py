"""Read a data set before training, and print what is wrong with it.

Label maps: label histogram, unknown and off-by-one labels, missing pairs, suggested weights. Labelled images:
unreadable files, duplicates, imbalance, tiny images, other modes, classes that differ between the parts.

Exit code 1 when something was found that would break training or evaluation.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from .output import cell, check_writable, print_table, progress_bar, say, to_json, write_file

if TYPE_CHECKING:
    from ..tools.doctor import Report


def add_arguments(parser: Any) -> None:
    """Options of `van doctor`."""
    parser.add_argument("data", help="a data set's folder, its dataset.yaml, or 'scenes'; a folder of class folders")
    parser.add_argument("--split", choices=("train", "val"), help="this part only (default: all there are)")
    parser.add_argument("--limit", type=int, help="look at so many images per split, spread over it")
    parser.add_argument("--json", help="write everything here")
    parser.add_argument("--sheet", help="write a contact sheet of overlays with a legend here, as PNG")


def run(options: Any) -> int:
    """Examine, print what was found, write what was asked for."""
    for path, suffix in ((options.json, ".json"), (options.sheet, ".png")):
        check_writable(path, suffix)
    from ..tools.doctor import contact_sheet_of, examine

    draw = contact_sheet_of(options.data) if options.sheet else None
    with progress_bar() as bar:
        task = bar.add_task("reading")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        splits = None if options.split is None else [options.split]
        report = examine(options.data, splits, limit=options.limit, progress=progress)
    _print(report)
    if options.json:
        write_file(options.json, to_json(report.to_dict()) + "\n")
    if draw is not None:
        png = io.BytesIO()
        draw(report).save(png, "PNG")
        write_file(options.sheet, png.getvalue())
    return 0 if report.healthy else 1


def _print(report: Report[Any]) -> None:
    say(report.heading)
    for split, statistics in report.splits.items():
        say(f"{split}: {statistics.summary}")
    print_table(_table(report))
    if report.footnote:
        print(report.footnote)
    for finding in report.findings:
        say(f"{finding.level}: {finding.text}")
    if report.healthy and not report.missing:
        print("fit for training" if not report.findings else "nothing that breaks training was found")


def _table(report: Report[Any]) -> Any:
    from rich.table import Table

    table = Table()
    for number, column in enumerate(report.columns):
        table.add_column(column, justify="left" if number < 2 else "right")
    for row in report.rows():
        table.add_row(*map(cell, row))
    return table
