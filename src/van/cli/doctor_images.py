"""`van doctor` of a folder of labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .output import print_table, progress_bar, to_json, write_file

if TYPE_CHECKING:
    from ..tools.doctor.images import ImageReport


def run_images(options: Any) -> int:
    """Examine, print what was found, write what was asked for."""
    from ..tools.doctor.images import examine_images

    if options.sheet:
        raise ConfigError("--sheet draws label maps; a folder of labelled images has none: leave it out")
    with progress_bar() as bar:
        task = bar.add_task("reading")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        splits = None if options.split is None else [options.split]
        report = examine_images(options.data, splits, limit=options.limit, progress=progress)
    if options.json:
        write_file(options.json, to_json(report.to_dict()) + "\n")
    _print(report)
    return 0 if report.healthy else 1


def _print(report: ImageReport) -> None:
    print(f"{report.data}: class folders, {len(report.classes)} classes")
    for split, part in report.parts.items():
        sizes = [each.size for each in part.readable] or [(0, 0)]
        narrow, wide = min(sizes), max(sizes)
        text = f"{narrow[0]} x {narrow[1]}" + ("" if narrow == wide else f" … {wide[0]} x {wide[1]}")
        modes = ", ".join(f"{count} {mode}" for mode, count in part.modes().most_common())
        print(f"{split}: {sum(part.total)} images of {text} pixels; {modes or 'none was read'}")
    print_table(_table(report))
    for finding in report.findings:
        print(f"{finding.level}: {finding.text}")
    if report.healthy:
        print("fit for training" if not report.findings else "nothing that breaks training was found")


def _table(report: ImageReport) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("label", "class")
    for split in report.parts:
        table.add_column(f"{split} images", justify="right")
        table.add_column(f"{split} unreadable", justify="right")
    for row in report.table():
        cells = [str(row[split][name]) for split in report.parts for name in ("images", "unreadable")]
        table.add_row(str(row["label"]), escape(row["name"]), *cells)
    return table
