"""Read a data set before training, and print what is wrong with it.

Label maps: label histogram, unknown and off-by-one labels, missing pairs, suggested weights. Labelled images:
unreadable files, duplicates, imbalance, tiny images, other modes, classes that differ between the parts. Objects
(COCO's files, YOLO's folders) and panoptic segments: boxes outside the image, masks that cannot be decoded or have no
pixel, unknown categories, duplicate ids, missing images, crowds, balance, maps that differ from their JSON file.

`--write FOLDER` writes the digit scenes as a COCO data set first, and examines that.

Exit code 1 when something was found that would break training or evaluation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .output import cell, check_writable, print_table, progress_bar, say, to_json, write_file

if TYPE_CHECKING:
    from ..tools.doctor import Report


def add_arguments(parser: Any) -> None:
    """Options of `van doctor`."""
    parser.add_argument(
        "data",
        help="a data set's folder, its dataset.yaml, data.yaml or JSON file, or 'scenes'; a folder of class folders",
    )
    parser.add_argument("--split", choices=("train", "val"), help="this part only (default: all there are)")
    parser.add_argument("--limit", type=int, help="look at so many images per split, spread over it")
    parser.add_argument("--json", help="write everything here")
    parser.add_argument("--sheet", help="write a contact sheet of overlays with a legend here, as PNG")
    parser.add_argument("--write", metavar="FOLDER", help="write the scenes as a COCO data set here, and examine it")
    for name, default in (("train", "200"), ("val", "50")):
        parser.add_argument(
            f"--{name}-scenes", type=int, help=f"{name} scenes that --write writes (default: {default})"
        )
    parser.add_argument(
        "--scene-size", type=int, help="side of the scenes that --write writes, in pixels (default: 64)"
    )


def run(options: Any) -> int:
    """Examine, print what was found, write what was asked for."""
    for path, suffix in ((options.json, ".json"), (options.sheet, ".png")):
        check_writable(path, suffix)
    from ..tools.doctor import contact_sheet_of, examine

    data = _written(options)
    draw = contact_sheet_of(data) if options.sheet else None
    splits = None if options.split is None else [options.split]
    with _progress("reading") as progress:
        report = examine(data, splits, limit=options.limit, progress=progress)
    _print(report)
    if options.json:
        write_file(options.json, to_json(report.to_dict()) + "\n")
    if draw is not None:
        png = io.BytesIO()
        draw(report).save(png, "PNG")
        write_file(options.sheet, png.getvalue())
    return 0 if report.healthy else 1


def _written(options: Any) -> str:
    """What to examine: the data set that was given, or the folder that the scenes were written to."""
    given = {name: getattr(options, name) for name in ("train_scenes", "val_scenes", "scene_size")}
    chosen = {name: value for name, value in given.items() if value is not None}
    if options.write is None:
        if chosen:
            raise ConfigError(f"--{next(iter(chosen)).replace('_', '-')} is of --write FOLDER, which is not given")
        return str(options.data)
    if options.data != "scenes":
        raise ConfigError(f"--write writes the digit scenes, not {options.data!r}: van doctor scenes --write FOLDER")
    from ..data.scene_files import DEFAULT_COUNTS, write_scenes

    counts = {split: chosen.get(f"{split}_scenes", count) for split, count in DEFAULT_COUNTS.items()}
    with _progress("writing") as progress:
        folder = write_scenes(options.write, counts=counts, size=chosen.get("scene_size", 64), progress=progress)
    say(f"wrote {folder}: images, annotations of objects and of panoptic segments in COCO's formats")
    return str(folder)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    with progress_bar() as bar:
        task = bar.add_task(what)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress


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
