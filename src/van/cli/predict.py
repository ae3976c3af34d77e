"""Label images: files, folders (searched to any depth) and quoted globs.

A segmenter writes an overlay with a legend and an index PNG of every image into --out (default: segmentation/).
A bad image is reported and skipped; exit code 1 when some failed, 2 when none could be done.
"""

from __future__ import annotations

from typing import Any

from ..errors import DataError
from .inference import (
    OF_LABELS,
    OF_MASKS,
    add_inference_arguments,
    add_mask_arguments,
    command_line,
    inference_options,
    mask_options,
    refuse,
)
from .output import cell, check_writable, progress_bar
from .results import COMPLAINTS, FORMATS, SUFFIXES, Earlier, Layout, Results, result_format


def add_arguments(parser: Any) -> None:
    """Options of `van predict`."""
    parser.add_argument("checkpoint", help="a checkpoint file, folder, hub id, published weights, or exported file")
    parser.add_argument("paths", nargs="+", help="images, folders, globs such as 'photos/**/*.jpg'")
    parser.add_argument("--top", type=int, default=5, help="classes to list per image")
    parser.add_argument("--format", help=f"{', '.join(FORMATS)} (default: by the suffix of --out, else table)")
    parser.add_argument(
        "--out",
        help=f"write into this file ({', '.join(SUFFIXES)}), do not print; segmenters: the folder of the pictures",
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out what an earlier run wrote into --out (.jsonl, .csv, a folder)"
    )
    parser.add_argument("--opacity", type=float, default=0.5, help="segmenters: of the overlays, 0 … 1")
    parser.add_argument("--classes", help="names of the classes: a text or JSON file in their order, or imagenet-1k")
    add_inference_arguments(parser)
    add_mask_arguments(parser)


def run(options: Any) -> int:
    """Predict; print or write results as they come; name bad images on stderr."""
    from ..inference.segmenter_session import is_segmenter

    if is_segmenter(options.checkpoint):
        from .predict_masks import run_masks

        refuse(options, add_arguments, (*OF_LABELS, "top"), "classifiers, which this is not")
        return run_masks(options, mask_options(options), add_arguments)
    refuse(options, add_arguments, (*OF_MASKS, "opacity"), "segmenters, which this is not")
    check_writable(options.out)
    form = result_format(options.out, options.format)
    earlier = Earlier.find(LABELS, form, options.out) if options.resume else None
    from ..inference.predictor import Prediction, Predictor, find_images

    images, failures = find_images(options.paths)
    if not images:
        raise DataError("; ".join(f"{failure.image}: {failure.reason}" for failure in failures[:COMPLAINTS]))
    predictor = Predictor(options.checkpoint, top=options.top, classes=options.classes, **inference_options(options))
    head = {
        "command": command_line("predict", add_arguments, options),
        "checkpoint": predictor.opened.name,
        "preprocess": predictor.opened.preprocess.to_dict(),  # type: ignore[union-attr]
    }
    with Results(LABELS, form, options.out, head=head, total=len(images)) as results:
        wanted = results.resume(images, earlier)
        for failure in failures:
            results.fail(failure)
        with progress_bar() as bar:
            for result in bar.track(predictor.predict_many(wanted), total=len(wanted), description="predicting"):
                if isinstance(result, Prediction):
                    results.add(result.to_dict())
                else:
                    results.fail(result)
    return 1 if results.failures else 0


def _rows(entry: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(entry["image"], rank, *each.values()) for rank, each in enumerate(entry["top"], start=1)]


def _table(entries: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("label", style="bold", overflow="fold")
    table.add_column("probability", justify="right")
    others = len(entries[0]["top"]) > 1
    if others:
        table.add_column("then", overflow="fold", style="dim")
    for entry in entries:
        row: list[Any] = [cell(entry["image"]), cell(entry["label"]), f"{entry['probability']:.1%}"]
        rest = ", ".join(f"{each['label']} {each['probability']:.1%}" for each in entry["top"][1:])
        table.add_row(*row, *[cell(rest)] * others)
    return table


LABELS = Layout(("image", "rank", "label", "index", "probability"), _rows, _table)
