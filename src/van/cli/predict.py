"""Predict images: files, folders (searched to any depth) and quoted globs.

A classifier labels each image. A segmenter writes an overlay with a legend and an index PNG of each into --out
(default: segmentation/). Detectors, instance and panoptic segmenters draw what they find into --out (default:
objects/, panoptic/), or list it in a file: --out found.json, found.csv. A bad image is reported and skipped; exit code
1 when some failed, 2 when none could be done.

Batch jobs: --ray runs on one or many machines; images may be in Parquet files and object stores (s3://…), results go
into --out NAME.parquet, NAME.jsonl or a folder of parts, one row per image, masks included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from ..files import fitting_stem
from .batch import (
    add_batch_arguments,
    check_device,
    find_inputs,
    is_parquet_input,
    placed,
    refuse_batch_options,
    run_batch,
)
from .inference import BATCH_SIZE, TaskArguments, add_inference_arguments, add_task_arguments, command_line
from .output import check_writable, progress_bar, say
from .results import COMPLAINTS, FORMATS, SUFFIXES, Earlier, Results, result_format
from .startup import importing

if TYPE_CHECKING:
    from ..inference.predictor import Predictor
    from ..inference.session import Session
    from ..tasks.base import Output, ResultTable


def add_arguments(parser: Any) -> None:
    """Options of `van predict`."""
    parser.add_argument("checkpoint", help="a checkpoint file, folder, hub id, published weights, or exported file")
    parser.add_argument(
        "paths", nargs="+", help="images, folders, globs such as 'photos/**/*.jpg', Parquet files, addresses (s3://…)"
    )
    add_task_arguments(parser, "predict_options")
    parser.add_argument("--format", help=f"{', '.join(FORMATS)}, parquet (default: by the suffix of --out, else table)")
    parser.add_argument(
        "--out",
        help=f"write into this file ({', '.join(SUFFIXES)}), do not print; all but classifiers: the folder of the "
        "pictures (segmenters: nothing else)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave out what an earlier run wrote into --out (.jsonl, .csv, .parquet, a folder)",
    )
    parser.add_argument("--classes", help="names of the classes: a text or JSON file in their order, or imagenet-1k")
    add_inference_arguments(parser)
    add_batch_arguments(parser)


def run(options: Any) -> int:
    """Predict; print or write results as they come; name bad images on stderr."""
    with importing():
        from ..inference.predictor import find_images

    parquet = is_parquet_input(options)
    if options.ray is None:
        refuse_batch_options(options, parquet=parquet)
    if options.ray is not None or parquet or is_parquet_output(options):
        return _run_batch(options)
    images, failures = find_images(options.paths)
    session = _open(options, len(images))
    table = session.task.results
    place = _Folder(options, table) if _draws(table, options.out) else _Entries(options, table)
    if not images:
        raise DataError("; ".join(f"{failure.image}: {failure.reason}" for failure in failures[:COMPLAINTS]))
    wanted = place.to_do(images)
    if not wanted and not place.keeps_entries:
        return 0
    predictor = _predictor(session, options)
    head = {
        "command": command_line("predict", add_arguments, options),
        "checkpoint": session.name,
        **predictor.processor.facts(),
    }
    total = len(images) if place.keeps_entries else len(wanted)
    with Results(table, place.form, place.file, head=head, total=total) as results:
        wanted = results.resume(wanted, place.earlier)
        for failure in failures:
            results.fail(failure)
        _predict(predictor, wanted, results, place.entry)
    return 1 if results.failures else 0


def is_parquet_output(options: Any) -> bool:
    """Whether Parquet is to be written, which batch jobs do."""
    return options.format == "parquet" or str(options.out or "").lower().endswith(".parquet")


def _run_batch(options: Any) -> int:
    from ..serve.batch_work import PredictWork
    from ..serve.part_forms import PREDICTIONS, form_of

    check_device(options)
    if options.out is None:
        raise ConfigError(
            "a batch job writes into a file or a folder of parts; give --out NAME.parquet, NAME.jsonl or a folder"
        )
    form = form_of(options.out, options.format, PREDICTIONS)
    given = {"batch_size": options.batch_size, "workers": options.workers, "exif": not options.ignore_exif}
    work = PredictWork(_predictor(_open(options), options).opened, **given)
    return run_batch(options, work, find_inputs(options), form, keep_failures=True)


def _open(options: Any, images: int | None = None) -> Session:
    """images: how many there are at most; None: unknown."""
    from ..inference.session import open_session

    chosen = {name: getattr(options, name) for name in ("precision", "ema", "trust")} | placed(options)
    return open_session(options.checkpoint, **chosen, images=images, parse=TaskArguments(options, "predict_options"))


def _draws(table: ResultTable, out: str | None) -> bool:
    """Whether results get files of their own; where entries say everything, a file of them can be had instead."""
    listed = out is not None and Path(out).suffix.lower() in SUFFIXES and not Path(out).is_dir()
    return table.folder is not None and not (listed and table.entries_suffice)


def _predictor(session: Session, options: Any) -> Predictor:
    from ..inference.predictor import Predictor

    given = {"workers": options.workers, "exif": not options.ignore_exif, "classes": options.classes}
    predictor = Predictor(session, batch_size=options.batch_size, **given)
    if options.batch_size != BATCH_SIZE and not predictor.processor.batched:
        raise ConfigError(f"--batch-size would do nothing: {session.task.noun}s take one image at a time; leave it out")
    return predictor


def _predict(
    predictor: Predictor, images: Sequence[Path], results: Results, entry: Callable[[Path, Output], dict[str, Any]]
) -> None:
    from ..inference.predictor import Failure

    with progress_bar() as bar:
        found = bar.track(predictor.predict_many(images), total=len(images), description="predicting")
        for image, result in zip(images, found, strict=True):
            if isinstance(result, Failure):
                results.fail(result)
            else:
                results.add(entry(image, result))


class _Entries:
    """Results that are entries only: in a file, or printed."""

    keeps_entries = True

    def __init__(self, options: Any, table: ResultTable) -> None:
        check_writable(options.out)
        self.file = options.out
        self.form = result_format(options.out, options.format)
        self.earlier = Earlier.find(table, self.form, options.out) if options.resume else None

    def to_do(self, images: list[Path]) -> list[Path]:
        """All: what is left of them is found when the results are opened."""
        return images

    def entry(self, image: Path, result: Output) -> dict[str, Any]:
        """The values of a result."""
        return result.to_dict()


class _Folder:
    """Results with files of their own in a folder; their entries are printed."""

    keeps_entries = False
    file = None
    earlier = None

    def __init__(self, options: Any, table: ResultTable) -> None:
        self.form, self.table, self.resume = result_format(None, options.format), table, options.resume
        self.folder = Path(options.out or table.folder or "")
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"cannot write into {self.folder}: a file is there; give a folder")
        self.names: dict[Path, str] = {}

    def to_do(self, images: list[Path]) -> list[Path]:
        """Those whose files are not all there."""
        self.names = stems_of(images, longest=max(self.table.endings, key=len))
        if not self.resume:
            return images
        left = [
            image
            for image in images
            if not all((self.folder / f"{self.names[image]}{end}").is_file() for end in self.table.endings)
        ]
        done = len(images) - len(left)
        say(f"van: note: {done} image(s) are in {self.folder} already; {len(left)} to do", error=True)
        return left

    def entry(self, image: Path, result: Output) -> dict[str, Any]:
        """Writes the files of a result."""
        return result.save(self.folder, self.names[image])


def stems_of(images: Sequence[Path], *, longest: str) -> dict[Path, str]:
    """A file name for each image: its stem, with the folder's name before it where two share one."""
    sharing = Counter(image.stem for image in images)
    taken: dict[str, int] = {}  # and how often it was asked for
    chosen: dict[Path, str] = {}
    for image in images:
        name = image.stem if sharing[image.stem] == 1 else f"{image.parent.name}_{image.name.replace('.', '_')}"
        name = fitting_stem(name, longest=longest)
        while name in taken:
            taken[name] += 1
            name += "_" if taken[name] == 2 else f"_{taken[name]}"
        taken[name] = 1
        chosen[image] = name
    return chosen
