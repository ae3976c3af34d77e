"""Evaluate checkpoints: top-1, top-5, loss of classifiers, aAcc, mIoU, mAcc of segmenters, AP of detectors and
instance segmenters, PQ of panoptic segmenters, tables, confusion matrix.

Several checkpoints (files, folders, quoted globs) make one table, best first; exit code 1 when some failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..tasks import TASKS
from ..tasks.options import plural
from .inference import (
    BATCH_SIZE,
    TaskArguments,
    add_inference_arguments,
    add_task_arguments,
    command_line,
    wanted_optimize,
)
from .output import check_writable, print_table, progress_bar, say, to_csv, to_json, write_file
from .tables import print_titled, rich_table

if TYPE_CHECKING:
    from ..inference.evaluate import Failure
    from ..tasks.base import Evaluation, Table

    Found = list[tuple[str, Evaluation]]  # engine and what it gave


def add_arguments(parser: Any) -> None:
    """Options of `van eval`."""
    parser.add_argument(
        "checkpoints",
        nargs="+",
        help="checkpoint files, folders of them (a run's or a repository's folder is one), globs, hub ids, published "
        "weights, exported files",
    )
    kinds: dict[str, list[str]] = {}
    for task in TASKS.values():
        kinds.setdefault(task.data_help, []).append(task.noun)
    data = "; ".join(f"{plural(nouns)}: {text}" for text, nouns in kinds.items())
    parser.add_argument("--data", required=True, help=data)
    add_task_arguments(parser, "eval_options")
    parser.add_argument(
        "--engine", default="torch", help="torch; keras: both engines and their difference (KERAS_BACKEND: which)"
    )
    add_inference_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--per-class", action="store_true", help="print the per-class table")
    group.add_argument("--json", help="write everything here, confusion matrix and preprocessing included")
    group.add_argument("--csv", help="write the table of checkpoints here")
    group.add_argument("--confusion", help="write the confusion matrix here as a PNG picture")


def run(options: Any) -> int:
    """Evaluate; print the tables; write what was asked for."""
    for path, suffix in ((options.json, ".json"), (options.csv, ".csv"), (options.confusion, ".png")):
        check_writable(path, suffix)
    from ..checkpoints.find import find_checkpoints
    from ..inference.evaluate import Failure

    checkpoints = find_checkpoints(options.checkpoints)
    arguments = TaskArguments(options, "eval_options", exif=not options.ignore_exif)
    arguments.check_single(len(checkpoints), confusion=options.confusion)
    done: Found = []
    failed: list[Failure] = []
    stopped: KeyboardInterrupt | None = None
    engines = tuple(dict.fromkeys((options.engine, "torch")))
    try:
        for engine in engines:

            def keep(result: Evaluation | Failure, engine: str = engine) -> None:
                if isinstance(result, Failure):
                    failed.append(result)
                else:
                    done.append((engine, result))

            _evaluate(checkpoints, options, arguments, engine, keep)
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    done.sort(key=lambda each: (engines[::-1].index(each[0]), -each[1].score))  # torch is shown first
    for failure in failed:
        say(f"van: failed: {failure.checkpoint}: {failure.reason}", error=True)
    if not done:
        raise stopped or ConfigError(f"none of {len(checkpoints)} checkpoints could be evaluated")
    evaluations = [each for _, each in done]
    _write(evaluations, failed, options)  # before printing: a reader of the output may stop reading
    _print(done, per_class=options.per_class)
    if stopped:
        raise KeyboardInterrupt(f"{len(done)} of {len(checkpoints)} checkpoint(s) were evaluated and are kept")
    return 1 if failed else 0


def _evaluate(
    checkpoints: list[str],
    options: Any,
    arguments: TaskArguments,
    engine: str,
    on_result: Callable[[Evaluation | Failure], None],
) -> None:
    from ..inference.evaluate import Evaluations, RunOptions

    passed = ("workers", "device", "precision", "ema", "trust")
    chosen = {name: getattr(options, name) for name in passed}
    chosen |= {"engine": engine, "optimize": wanted_optimize(options)}
    batch_size = None if options.batch_size == BATCH_SIZE else options.batch_size
    with progress_bar() as bar:
        task = bar.add_task("evaluating")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        evaluations = Evaluations(options.data, RunOptions(batch_size=batch_size, **chosen), arguments, progress)
        if len(checkpoints) == 1:  # its error is the command's error
            on_result(evaluations.one(checkpoints[0]))
        else:
            evaluations.many(checkpoints, on_result)


def _print(done: Found, *, per_class: bool) -> None:
    from ..tasks.base import Column, Table

    headings = done[0][1].columns()
    columns = [Column("checkpoint"), *(Column(heading, right=True) for heading in headings)]
    print_table(rich_table(Table(columns, [[each.checkpoint, *each.columns().values()] for _, each in done])))
    if len({engine for engine, _ in done}) > 1:
        print_titled(_engines(done))
    for _, each in done:
        for note in each.notes():
            say(note)
        # of one checkpoint also without being asked, where that is short
        for table in each.tables(per_class=True if per_class else None if len(done) == 1 else False):
            print_titled(table)


def _engines(done: Found) -> Table:
    """The first scores by both engines, and the second's less the first's."""
    from ..tasks.base import Column, Table

    torch = {each.checkpoint: each.headline() for engine, each in done if engine == "torch"}
    columns = [Column("checkpoint"), Column("engine"), *(Column(name, right=True) for name in done[0][1].headline())]
    rows = []
    for engine, each in done:
        if engine == "torch" or (one := torch.get(each.checkpoint)) is None:
            continue
        other = each.headline()
        rows.append([each.checkpoint, "torch", *(f"{value:.2f}" for value in one.values())])
        rows.append([each.checkpoint, engine, *(f"{value:.2f}" for value in other.values())])
        rows.append([each.checkpoint, "difference", *(f"{other[name] - one[name]:+.2f}" for name in one)])
    return Table(columns, rows)


def _write(done: Sequence[Evaluation], failed: Sequence[Failure], options: Any) -> None:
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
        names = list(done[0].row())
        rows = [[each.checkpoint, *(row.get(name) for name in names)] for each in done for row in [each.row()]]
        write_file(options.csv, to_csv(("checkpoint", *names), rows))
    if options.confusion:
        write_file(options.confusion, done[0].picture())
