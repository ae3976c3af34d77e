"""Batch jobs on Ray: the images of a job as a Ray data set, whose rows go through actors that hold the network.

Paths travel, images do not: an actor reads what it predicts; only images stored in Parquet files are read by tasks of
their own. Ray is left no retries: what is lost with an actor or a node is missed by the job, which runs it again.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from ..errors import ConfigError, MissingExtraError, VanError
from .batch_job import BLOCKS, LostRowsError
from .batch_work import Work, arrow_results, results_of
from .image_row import ImageRow, arrow_table, rows_of
from .image_rows import ImageRows
from .parquet_rows import READ, StoredImages
from .stores import is_address

_ADDRESS = re.compile(r"auto|local|ray://\S+|[\w.\-\[\]]+:\d+")


class RayRunner:
    """Runs images on a cluster that this process is connected to.

    device: of the actors, "cpu" or "cuda"; actors: how many (None: as many as the cluster has CPUs or GPUs for);
    cpus: of each; workers: threads that read images in each (None: as many as it has CPUs).
    """

    def __init__(
        self, *, device: str = "cpu", actors: int | None = None, cpus: int = 1, workers: int | None = None
    ) -> None:
        for name, value in (("actors", actors), ("cpus-per-actor", cpus)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} is {value}; expected at least 1")
        self.device, self.actors, self.cpus = device, actors, cpus
        self.workers = cpus if workers is None else workers

    def run(self, work: Work, rows: ImageRows, block: int) -> Iterator[dict[str, Any]]:
        """See Runner.run."""
        import ray

        _set_up(ray)
        actors = self._actors(ray, rows)
        size = max(1, min(block, -(-len(rows) // (4 * actors))))
        data = _dataset(ray, rows, size)
        shared = ray.put(work)
        # after a loss the cluster may be smaller than it says
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors if block == BLOCKS[0] else 1)
        with warnings.catch_warnings():  # named arguments have nothing for restarts yet
            warnings.simplefilter("ignore", DeprecationWarning)
            results = data.map_batches(
                RowsActor,
                fn_constructor_args=(shared, self.device, self.cpus, self.workers),
                batch_size=size,
                batch_format="pyarrow",
                compute=pool,
                num_cpus=self.cpus,
                num_gpus=0 if self.device == "cpu" else 1,
                ray_remote_args_fn=_no_retries,
            )
        try:
            for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from results_of(work, table)
        except (ray.exceptions.RayError, RuntimeError, OSError) as error:  # Ray Data raises its own as RuntimeError
            if isinstance(error, VanError):
                raise
            raise LostRowsError(_last_line(error)) from error

    def _actors(self, ray: Any, rows: ImageRows) -> int:
        """How many there is work and room for; raises ConfigError where there is no room for one."""
        has = ray.cluster_resources()
        kind = "CPU" if self.device == "cpu" else "GPU"
        room = int(has.get("CPU", 0) // self.cpus)
        room = room if kind == "CPU" else min(room, int(has.get("GPU", 0)))
        if room < 1:
            raise ConfigError(
                f"the cluster has {has.get('CPU', 0):g} CPU(s) and {has.get('GPU', 0):g} GPU(s), too few for an actor "
                f"with {self.cpus} CPU(s) on {self.device}"
            )
        return max(1, min(self.actors or room, room, len(rows)))


class RowsActor:
    """Runs batches of images with a network of its own."""

    def __init__(self, work: Any, device: str, cpus: int, workers: int) -> None:
        import ray
        import torch

        torch.set_num_threads(cpus)
        self.error: str | None = None
        self.work: Work = ray.get(work) if isinstance(work, ray.ObjectRef) else work
        try:
            self.work = self.work.on(device, workers)
        except VanError as error:
            self.error = str(error)

    def __call__(self, table: Any) -> Any:
        """A table of images to one of results; what no other attempt could change comes back as an error."""
        if (error := next(filter(None, table["error"].to_pylist()), None)) is not None:
            return arrow_results(self.work, [], error)
        if self.error is None:
            try:
                return arrow_results(self.work, list(self.work.rows(rows_of(table))))
            except VanError as error:
                self.error = str(error)
        return arrow_results(self.work, [], self.error)


def _blocks(rows: Iterable[ImageRow], size: int) -> Iterator[list[ImageRow]]:
    remaining = iter(rows)
    while some := list(islice(remaining, size)):
        yield some


def _dataset(ray: Any, rows: ImageRows, size: int) -> Any:
    """The images as a data set, so many to a block."""
    located = (replace(row, path=_absolute(row.path)) for row in rows.located)
    tables = [arrow_table(some) for some in _blocks(located, size)]
    sets = [ray.data.from_arrow(tables)] if tables else []
    if rows.stored:
        groups = ray.data.from_items(
            [{"group": _sent(each)} for each in rows.stored], override_num_blocks=len(rows.stored)
        )
        sets.append(groups.map_batches(_read, batch_size=1, fn_args=(size,), num_cpus=0))
    return sets[0] if len(sets) == 1 else sets[0].union(*sets[1:])


def _sent(images: StoredImages) -> bytes:
    return pickle.dumps(replace(images, file=_absolute(images.file)))


def _absolute(path: str | None) -> Any:
    """A path for processes that run in another folder."""
    return path if path is None or is_address(path) else os.path.abspath(path)  # noqa: PTH100 — a link stays one


def _read(groups: dict[str, Any], size: int) -> Iterator[Any]:
    """The images of row groups of Parquet files, so many at a time."""
    for group in groups["group"]:
        try:
            for some in _blocks(pickle.loads(group), min(size, READ)):
                yield arrow_table(some)
        except VanError as error:
            yield arrow_table([ImageRow("", "")], error=str(error))


def _no_retries() -> dict[str, int]:
    """Of actors. By default an actor is started again and its images with it, which waits for ever where the CPU that
    it had is gone and the others are taken."""
    return {"max_restarts": 0, "max_task_retries": 0}


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A cluster for as long as the block runs: a running one is joined and left as it is, one of our own is stopped.

    address: "auto", "HOST:PORT" or "ray://HOST:PORT" joins; "local" starts one on this machine; "" joins the one that
    RAY_ADDRESS names or this machine runs, else starts one. A process that is connected already stays so.
    Raises MissingExtraError without Ray, ConfigError for a cluster that is not there.
    """
    ray = _ray(address)
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR, **_own(address))
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"--ray {address}" if address else "--ray"
        raise ConfigError(
            f"{where}: no cluster ({_last_line(error)}); start one with ray start, or use --ray=local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _own(address: str) -> dict[str, Any]:
    return {"include_dashboard": False} if address == "local" else {}


def _ray(address: str) -> Any:
    if address and not _ADDRESS.fullmatch(address):
        raise ConfigError(
            f"--ray {address!r} is no address; expected auto, local, HOST:PORT or ray://HOST:PORT; images go before "
            "--ray, or write --ray=ADDRESS"
        )
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns that this will change
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.data
    except ImportError:
        raise MissingExtraError.of("ray", "ray", "for --ray") from None
    return ray


def _set_up(ray: Any) -> None:
    """Failing blocks are left out, which the job notices; no progress bars and log lines of Ray Data's between ours."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.ERROR)


def _last_line(error: Exception) -> str:
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
