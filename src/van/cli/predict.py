"""Label images: files, folders (searched to any depth) and quoted globs.

A segmenter writes an overlay with a legend and an index PNG of every image into --out (default: segmentation/).
A bad image is reported and skipped; exit code 1 when some failed, 2 when none could be done.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UnknownNameError
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
from .output import check_writable, print_table, progress_bar, table_text, to_csv, to_json, write_file

if TYPE_CHECKING:
    from ..predict import Failure, Prediction, Predictor

FORMATS = ("table", "json", "csv")
COMPLAINTS = 20  # bad images named one by one


def add_arguments(parser: Any) -> None:
    """Options of `van predict`."""
    parser.add_argument("checkpoint", help="a checkpoint file, folder, hub id, published weights, or exported file")
    parser.add_argument("paths", nargs="+", help="images, folders, globs such as 'photos/**/*.jpg'")
    parser.add_argument("--top", type=int, default=5, help="classes to list per image")
    parser.add_argument("--format", help="table, json or csv (default: by the suffix of --out, else table)")
    parser.add_argument("--out", help="write here instead of printing; segmenters: the folder of the pictures")
    parser.add_argument("--opacity", type=float, default=0.5, help="segmenters: of the overlays, 0 … 1")
    parser.add_argument("--classes", help="names of the classes: a text or JSON file in their order, or imagenet-1k")
    add_inference_arguments(parser)
    add_mask_arguments(parser)


def run(options: Any) -> int:
    """Predict; print or write the result; tell bad images on stderr."""
    from ..engines import is_segmenter

    if is_segmenter(options.checkpoint):
        from .predict_masks import run_masks

        refuse(options, add_arguments, (*OF_LABELS, "top"), "classifiers, which this is not")
        return run_masks(options, mask_options(options), add_arguments)
    refuse(options, add_arguments, (*OF_MASKS, "opacity"), "segmenters, which this is not")
    form = _format(options)
    check_writable(options.out)
    from ..predict import Prediction, Predictor, find_images

    images, failures = find_images(options.paths)
    if not images:
        raise DataError("; ".join(f"{failure.image}: {failure.reason}" for failure in failures[:COMPLAINTS]))
    predictor = Predictor(options.checkpoint, top=options.top, classes=options.classes, **inference_options(options))
    done: list[Prediction] = []
    with progress_bar() as bar:
        for result in bar.track(predictor.predict_many(images), total=len(images), description="predicting"):
            if isinstance(result, Prediction):
                done.append(result)
            else:
                failures.append(result)
    _complain(failures)
    if not done:
        raise DataError(f"none of {len(images)} image(s) could be predicted; the first: {failures[0].reason}")
    if form == "table" and not options.out:
        print_table(_table(done))
        return 1 if failures else 0
    text = {
        "table": lambda: table_text(_table(done)),
        "json": lambda: _json(done, failures, predictor, options),
        "csv": lambda: _csv(done),
    }[form]()
    if options.out:
        write_file(options.out, text)
    else:
        sys.stdout.write(text)
    return 1 if failures else 0


def _format(options: Any) -> str:
    if options.format is None:
        suffix = Path(options.out or "").suffix.lower()[1:]
        return suffix if suffix in FORMATS else "table"
    if options.format not in FORMATS:
        raise UnknownNameError.of("format", options.format, FORMATS)
    return options.format


def _complain(failures: list[Failure]) -> None:
    for failure in failures[:COMPLAINTS]:
        reason = failure.reason if failure.image in failure.reason else f"{failure.image}: {failure.reason}"
        print(f"van: skipped: {reason}", file=sys.stderr)
    if len(failures) > COMPLAINTS:
        print(f"van: skipped: … {len(failures)} in all", file=sys.stderr)


def _table(done: list[Prediction]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("label", style="bold", overflow="fold")
    table.add_column("probability", justify="right")
    others = len(done[0].top) > 1
    if others:
        table.add_column("then", overflow="fold", style="dim")
    for prediction in done:
        row = [escape(prediction.image), escape(prediction.label), f"{prediction.probability:.1%}"]
        rest = ", ".join(f"{label} {probability:.1%}" for label, _, probability in prediction.top[1:])
        table.add_row(*row, *[escape(rest)] * others)
    return table


def _json(done: list[Prediction], failures: list[Failure], predictor: Predictor, options: Any) -> str:
    predictions = [
        {
            "image": each.image,
            "label": each.label,
            "index": each.index,
            "probability": each.probability,
            "top": [{"label": label, "index": index, "probability": p} for label, index, p in each.top],
        }
        for each in done
    ]
    content = {
        "command": command_line("predict", add_arguments, options),
        "checkpoint": predictor.opened.name,
        "preprocess": predictor.opened.preprocess.to_dict(),  # type: ignore[union-attr]
        "predictions": predictions,
        "failures": [{"image": each.image, "reason": each.reason} for each in failures],
    }
    return to_json(content) + "\n"


def _csv(done: list[Prediction]) -> str:
    rows = (
        (each.image, rank, label, index, probability)
        for each in done
        for rank, (label, index, probability) in enumerate(each.top, start=1)
    )
    return to_csv(("image", "rank", "label", "index", "probability"), rows)
