"""Evaluate checkpoints: top-1, top-5, loss of classifiers, aAcc, mIoU, mAcc of segmenters, tables, confusion matrix.

Several checkpoints (files, folders, quoted globs) make one table, best first; exit code 1 when some failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, VanError
from .inference import OF_MASKS, add_inference_arguments, add_mask_arguments, command_line, inference_options, refuse
from .output import cell, check_writable, print_table, progress_bar, say, to_csv, to_json, write_file

if TYPE_CHECKING:
    from ..inference.evaluate import Evaluation, Failure

_OF_MASKS = ("seeds", "out", "overlays", "opacity", "submission")
_FIGURES = ("top1", "top5", "loss", "count", "original_top1", "original_top5", "original_count", "images_per_second")


def add_arguments(parser: Any) -> None:
    """Options of `van eval`."""
    parser.add_argument(
        "checkpoints",
        nargs="+",
        help="checkpoint files, folders of them (a run's or a repository's folder is one), globs, hub ids, published "
        "weights, exported files",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="'digits', a folder with train/ and val/, or class folders; segmenters: 'scenes', a folder, dataset.yaml",
    )
    parser.add_argument("--split", help="train, val or all (default: val; everything for evaluation-only folders)")
    parser.add_argument("--seed", type=int, help="of the automatic split (default: the training's, else 0)")
    parser.add_argument("--val-fraction", type=float, help="of the automatic split (default: the training's, else 0.2)")
    parser.add_argument("--real-labels", help="ImageNet-ReaL JSON: a list of right labels per validation image")
    parser.add_argument("--classes-subset", help="text or JSON file of class names or indices to restrict to")
    parser.add_argument("--class-map", help="text or JSON file: folder name -> class name or index of the model")
    parser.add_argument(
        "--engine", default="torch", help="torch; keras: both engines and their difference (KERAS_BACKEND: which)"
    )
    add_inference_arguments(parser)
    add_mask_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--per-class", action="store_true", help="print the per-class table")
    group.add_argument("--json", help="write everything here, confusion matrix and preprocessing included")
    group.add_argument("--csv", help="write the table of checkpoints here")
    group.add_argument("--confusion", help="write the confusion matrix here as a PNG picture")
    group = parser.add_argument_group("segmenters")
    group.add_argument("--seeds", type=int, help="mean and spread over so many draws of a Hamburger's bases, too")
    group.add_argument("--out", help="folder: every label map as index PNG and as raw .npy")
    group.add_argument("--overlays", help="folder: every picture with its classes painted over it, and a legend")
    group.add_argument("--opacity", type=float, default=0.5, help="of the overlays, 0 … 1")
    group.add_argument("--submission", help="folder: label maps as the data set's test server wants them")


def run(options: Any) -> int:
    """Evaluate; print the tables; write what was asked for."""
    for path, suffix in ((options.json, ".json"), (options.csv, ".csv"), (options.confusion, ".png")):
        check_writable(path, suffix)
    from ..checkpoints.find import find_checkpoints
    from ..inference.evaluate import Evaluation, Failure

    checkpoints = find_checkpoints(options.checkpoints)
    if _are_segmenters(checkpoints):
        from .eval_masks import run_masks

        return run_masks(checkpoints, options, add_arguments)
    refuse(options, add_arguments, (*OF_MASKS, *_OF_MASKS), "segmenters, which this is not")
    if options.confusion and len(checkpoints) > 1:
        raise ConfigError(f"--confusion draws one checkpoint, got {len(checkpoints)}; evaluate them one at a time")
    results: list[Evaluation | Failure] = []
    stopped: KeyboardInterrupt | None = None
    try:
        for engine in dict.fromkeys((options.engine, "torch")):
            _evaluate(checkpoints, options, engine, results.append)
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    second = options.engine if options.engine != "torch" else None  # is shown after torch
    done = [each for each in results if isinstance(each, Evaluation)]
    done.sort(key=lambda each: (each.engine == second, -each.top1))
    failed = [each for each in results if isinstance(each, Failure)]
    for failure in failed:
        say(f"van: failed: {failure.checkpoint}: {failure.reason}", error=True)
    if not done:
        raise stopped or ConfigError(f"none of {len(checkpoints)} checkpoints could be evaluated")
    _write(done, failed, options)  # before printing: a reader of the output may stop reading
    _print(done, per_class=options.per_class)
    if stopped:
        raise KeyboardInterrupt(f"{len(done)} of {len(checkpoints)} checkpoint(s) were evaluated and are kept")
    return 1 if failed else 0


def _are_segmenters(checkpoints: list[str]) -> bool:
    """Whether all are segmenters; raises ConfigError for a mixture. What cannot be read is reported later."""
    from ..inference.segmenter_session import is_segmenter

    found: dict[bool, str] = {}
    for checkpoint in checkpoints:
        try:
            found.setdefault(is_segmenter(checkpoint), checkpoint)
        except VanError:
            continue
    if len(found) > 1:
        raise ConfigError(f"{found[True]} is a segmenter, {found[False]} is none; evaluate them one kind at a time")
    return True in found


def _evaluate(
    checkpoints: list[str], options: Any, engine: str, on_result: Callable[[Evaluation | Failure], None]
) -> None:
    from ..inference.evaluate import evaluate, evaluate_many

    names = ("split", "seed", "val_fraction", "real_labels", "classes_subset", "class_map")
    chosen = {name: getattr(options, name) for name in names} | inference_options(options) | {"engine": engine}
    with progress_bar() as bar:
        task = bar.add_task("evaluating")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if len(checkpoints) == 1:  # its error is the command's error
            on_result(evaluate(checkpoints[0], options.data, progress=progress, **chosen))
        else:
            evaluate_many(checkpoints, options.data, progress=progress, on_result=on_result, **chosen)


def _print(done: list[Evaluation], *, per_class: bool) -> None:
    from rich.table import Table

    real = done[0].original_top1 is not None
    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    words = ["top-1 %", "top-5 %", "loss", "images"] + ["own top-1 %", "own top-5 %"] * real + ["images/s"]
    for word in words:
        table.add_column(word, justify="right")
    for each in done:
        own = [f"{each.original_top1:.2f}", f"{each.original_top5:.2f}"] if real else []
        figures = [f"{each.top1:.2f}", f"{each.top5:.2f}", f"{each.loss:.4f}", str(each.count), *own]
        table.add_row(cell(each.checkpoint), *figures, f"{each.images_per_second:.1f}")
    print_table(table)
    if {"torch", "keras"} <= {each.engine for each in done}:
        say()
        print_table(_engines(done))
    for each in done if per_class else ():
        say()
        say(each.checkpoint)
        print_table(_per_class(each))


def _engines(done: list[Evaluation]) -> Any:
    """Top-1 and top-5 of both engines, and the second's less the first's."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    table.add_column("engine")
    for word in ("top-1 %", "top-5 %"):
        table.add_column(word, justify="right")
    torch = {each.checkpoint: each for each in done if each.engine == "torch"}
    for other in (each for each in done if each.engine != "torch" and each.checkpoint in torch):
        one, name = torch[other.checkpoint], cell(other.checkpoint)
        table.add_row(name, "torch", f"{one.top1:.2f}", f"{one.top5:.2f}")
        table.add_row(name, other.engine, f"{other.top1:.2f}", f"{other.top5:.2f}")
        table.add_row(name, "difference", f"{other.top1 - one.top1:+.2f}", f"{other.top5 - one.top5:+.2f}")
    return table


def _per_class(evaluation: Evaluation) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    for word in ("images", "top-1 %", "top-5 %", "precision %", "recall %", "F1 %"):
        table.add_column(word, justify="right")
    table.add_column("most confused with", overflow="fold")
    for score in evaluation.per_class:
        confused = f"{score.confused_with} ({score.confused_count})" if score.confused_with is not None else ""
        figures = (score.top1, score.top5, score.precision, score.recall, score.f1)
        cells = (f"{figure:.2f}" for figure in figures)
        table.add_row(cell(score.name), str(score.count), *cells, cell(confused))
    return table


def _write(done: list[Evaluation], failed: list[Failure], options: Any) -> None:
    if options.json:
        content = {
            "command": command_line("eval", add_arguments, options),
            "device": options.device,
            "precision": options.precision,
            "results": [each.to_dict() for each in done],
            "failures": [{"checkpoint": each.checkpoint, "reason": each.reason} for each in failed],
        }
        write_file(options.json, to_json(content) + "\n")
    if options.csv:
        header = ("checkpoint", "engine", *_FIGURES)
        write_file(options.csv, to_csv(header, [[getattr(each, name) for name in header] for each in done]))
    if options.confusion:
        write_file(options.confusion, _picture(done[0]))


def _picture(evaluation: Evaluation) -> bytes:
    from ..images.confusion_picture import confusion_picture

    if evaluation.confusion is None:
        raise VanError(f"{len(evaluation.classes)} classes are too many for a confusion matrix; take a subset")
    name = evaluation.checkpoint
    title = f"{name if len(name) <= 60 else '…' + name[-59:]}\n"
    title += f"{evaluation.data}, {evaluation.split}, {evaluation.count} images: "
    return confusion_picture(evaluation.confusion, evaluation.classes, f"{title}top-1 {evaluation.top1:.2f}%")
