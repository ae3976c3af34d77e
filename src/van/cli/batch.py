"""What `van predict` and `van embed` share as batch jobs: where images come from, Ray, parts, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .inference import wanted_optimize
from .output import progress_bar, say
from .results import COMPLAINTS

if TYPE_CHECKING:
    from ..serve.batch_work import Work
    from ..serve.image_rows import ImageRows
    from ..serve.part_forms import Form, Row

GROUP = "batch jobs (docs/batch.md)"


def add_batch_arguments(parser: Any) -> None:
    """Ray, and the columns of Parquet files."""
    group = parser.add_argument_group(GROUP)
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run on Ray: auto, HOST:PORT or ray://HOST:PORT joins that cluster, local starts one on this machine; "
        "without a value: joins one that runs here, else starts one",
    )
    group.add_argument("--actors", type=int, help="with --ray: copies of the network (default: as many as fit)")
    group.add_argument(
        "--cpus-per-actor", type=int, default=1, help="with --ray: CPUs of each copy; with --device cuda also one GPU"
    )
    group.add_argument(
        "--image-column", default="image", help="of Parquet files: paths, encoded images, or structs with bytes"
    )
    group.add_argument("--id-column", help="of Parquet files (default: the file and the number of the row)")


def is_parquet_input(options: Any) -> bool:
    """Whether a path names a Parquet file, an address, or a folder with Parquet files in it and no images."""
    from ..inference.predictor import find_images
    from ..serve.stores import is_address

    for path in map(str, options.paths):
        if is_address(path) or path.lower().endswith(".parquet"):
            return True
        if Path(path).is_dir() and any(Path(path).glob("*.parquet")) and not find_images([path])[0]:
            return True
    return False


def placed(options: Any) -> dict[str, Any]:
    """Where the network is opened, and whether optimised: Ray's actors take their copies to a GPU from here."""
    optimize = wanted_optimize(options)
    if options.ray is None:
        return {"device": options.device, "optimize": optimize}
    return {"device": "cpu", "optimize": False if optimize == "auto" and options.device != "cpu" else optimize}


def check_device(options: Any) -> None:
    """Raises ConfigError for a device that cannot be one of every actor's."""
    if options.ray is not None and options.device not in ("cpu", "cuda"):
        raise ConfigError(
            f"--device is {options.device!r}; with --ray it is cpu or cuda, of which Ray gives each actor one"
        )


def refuse_batch_options(options: Any, *, parquet: bool) -> None:
    """Raises ConfigError for options of Ray where it is not used, and of Parquet files where none is read."""
    given = {
        "--actors": options.actors is not None,
        "--cpus-per-actor": options.cpus_per_actor != 1,
        "--image-column": options.image_column != "image" and not parquet,
        "--id-column": options.id_column is not None and not parquet,
    }
    if name := next((name for name, there in given.items() if there), None):
        raise ConfigError(f"{name} belongs to {'Parquet files' if 'column' in name else '--ray'}; leave it out")


def find_inputs(options: Any) -> ImageRows:
    """The images; raises DataError where there are none."""
    from ..serve.image_rows import find_rows

    rows = find_rows(options.paths, image_column=options.image_column, id_column=options.id_column)
    if not len(rows):
        raise DataError("; ".join(f"{each.image}: {each.reason}" for each in rows.failures[:COMPLAINTS]) or "no images")
    return rows


def run_batch(options: Any, work: Work, rows: ImageRows, form: Form, *, keep_failures: bool) -> int:
    """Run a job, here or on Ray, with a progress bar; the exit code: 1 where images or inputs could not be used."""
    from ..serve.batch_job import LocalRunner, Runner, run_job
    from ..serve.parts import Parts
    from ..serve.ray_runner import RayRunner, connected

    for failure in rows.failures[:COMPLAINTS]:
        say(f"van: skipped: {failure.image}: {failure.reason}", error=True)
    parts = Parts(options.out, form, job=work.job(), resume=options.resume, keep_failures=keep_failures)
    report = _Report(parts.folder)
    try:
        with progress_bar() as bar:
            counted = bar.add_task(work.job()["verb"], total=None)

            def done(row: Row) -> None:
                bar.advance(counted)
                report.row(row)

            def started(total: int) -> None:
                bar.update(counted, total=total)
                if options.resume:
                    say(
                        f"van: note: {len(rows) - total} image(s) are in {parts.out} already; {total} to do", error=True
                    )

            arguments = (work, rows, parts)
            if options.ray is None:
                runner: Runner = LocalRunner()
                finished = run_job(*arguments, runner, started=started, done=done)
            else:
                runner = RayRunner(
                    device=options.device, actors=options.actors, cpus=options.cpus_per_actor, workers=options.workers
                )
                with connected(options.ray):
                    finished = run_job(*arguments, runner, started=started, done=done)
    except BaseException:
        parts.close()
        report.kept(len(parts.done))
        raise
    report.end()
    say(f"{parts.out}: {finished.images - finished.failed} of {finished.images} image(s)")
    return 1 if finished.failed or rows.failures else 0


class _Report:
    """Names images that could not be used, the first ones, and says what is kept of a job that is interrupted."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.failures, self.rows = folder, 0, 0

    def row(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        if (reason := row.get("reason")) is None:
            return
        self.failures += 1
        if self.failures <= COMPLAINTS:
            image = row["image"]
            say(f"van: skipped: {reason if image in reason else f'{image}: {reason}'}", error=True)

    def end(self) -> None:
        """How many there were."""
        if self.failures > COMPLAINTS:
            say(f"van: skipped: … {self.failures} in all", error=True)

    def kept(self, count: int) -> None:
        """What is committed."""
        self.end()
        if self.rows and self.folder.is_dir():
            say(
                f"van: kept: {count} image(s) done so far are in {self.folder}; --resume goes on from there", error=True
            )
