"""Read a data set before training, and tell what is wrong with it.

Label maps: label histogram, unknown and off-by-one labels, missing pairs, suggested weights. Labelled images:
unreadable files, duplicates, imbalance, tiny images, other modes, classes that differ between the parts.

Exit code 1 when something was found that would break training or evaluation.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import why_no_path
from .doctor_images import run_images
from .output import cell, check_writable, print_table, progress_bar, say, to_json, write_file

if TYPE_CHECKING:
    from ..tools.doctor import Part, Report


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
    from ..data.segmentation import is_label_maps
    from ..tools.doctor import draw, examine
    from ..tools.doctor.images import is_image_folder

    if not is_label_maps(options.data):
        _check_folder(options.data)
        if is_image_folder(options.data):
            return run_images(options)

    with progress_bar() as bar:
        task = bar.add_task("reading")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        splits = None if options.split is None else [options.split]
        report = examine(options.data, splits, limit=options.limit, progress=progress)
    _print(report)
    if options.json:
        write_file(options.json, to_json(report.to_dict()) + "\n")
    if options.sheet:
        png = io.BytesIO()
        draw(report).save(png, "PNG")
        write_file(options.sheet, png.getvalue())
    return 0 if report.healthy else 1


def _check_folder(data: str) -> None:
    """Raises DataError for what can be neither class folders nor label maps."""
    from ..data.split_folders import folder_names

    root = Path(data)
    found = why_no_path(data) or ("" if root.is_dir() else "is a file" if root.exists() else "does not exist")
    if not found and not folder_names(root):
        found = "holds no folders"
    if found:
        raise DataError(
            f"{data!r} {found}; expected a folder with a folder per class, with train/ and val/ of them, or with label "
            "maps in a published layout; a dataset.yaml; or 'scenes'"
        )


def _print(report: Report) -> None:
    zero = ", 0 counts as no label" if report.reduce_zero_label else ""
    ignored = f"{report.ignore_index} is ignored{zero}"
    say(f"{report.data}: {report.layout}, {len(report.classes)} classes, {ignored}")
    for split, part in report.parts.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in part.kinds.items())
        say(f"{split}: {part.total} images{_sizes(part)}; masks: {kinds or 'none'}")
    print_table(_table(report))
    print("weight: suggested for the loss, median frequency balancing (--json has inverse-log ones too)")
    for finding in report.findings:
        say(f"{finding.level}: {finding.text}")
    if report.healthy and not report.missing:
        print("fit for training" if not report.findings else "nothing that breaks training was found")


def _sizes(part: Part) -> str:
    """Nothing where no image could be read."""
    if not part.sizes:
        return ""
    narrow, wide = min(part.sizes), max(part.sizes)
    return f" of {narrow[0]} x {narrow[1]}" + ("" if narrow == wide else f" … {wide[0]} x {wide[1]}") + " pixels"


def _table(report: Report) -> Any:
    from rich.table import Table

    table = Table("label", "class")
    for split in report.parts:
        table.add_column(f"{split} pixels", justify="right")
        table.add_column(f"{split} images", justify="right")
    table.add_column("weight", justify="right")
    for row in report.table():
        cells = [cell for split in report.parts for cell in (f"{row[split]['share']:.3%}", str(row[split]["images"]))]
        table.add_row(str(row["label"]), cell(row["name"]), *cells, f"{row['weights']['median_frequency']:.3f}")
    return table
