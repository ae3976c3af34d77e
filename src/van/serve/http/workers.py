"""Several processes on one socket: started together, replaced when one dies, ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

import torch
from prometheus_client.multiprocess import mark_process_dead

from ...errors import VanError
from .logs import JsonLog, described
from .metrics import SHARED_FOLDER
from .models import ModelOptions, open_models
from .server import run
from .service import Service
from .settings import Settings

_TICK_S = 0.2
_KILL_S = 20.0  # beyond the time of a request, that a worker may take to end
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0  # before a worker that could not start is tried again


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker serves; count: workers that share the processor's cores."""

    names: Sequence[str]
    files: Sequence[str]
    options: ModelOptions
    settings: Settings
    count: int


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    messages: Connection
    ready: bool = False
    started_at: float = field(default_factory=time.monotonic)


def run_workers(job: Job, sock: socket.socket, ready: Callable[[Sequence[str]], None]) -> None:
    """Serve with several workers until SIGTERM or SIGINT; ready: called with lines on the models once all are there.

    Raises VanError when no worker can start.
    """
    with tempfile.TemporaryDirectory(prefix="van-metrics-") as folder, _environment(SHARED_FOLDER, folder):
        supervisor = _Supervisor(job, sock, folder, ready)
        with _signals(supervisor.stop):
            supervisor.run()


class _Supervisor:
    """The parent of the workers."""

    def __init__(self, job: Job, sock: socket.socket, folder: str, ready: Callable[[Sequence[str]], None]) -> None:
        self.job, self.sock, self.folder, self.ready = job, sock, folder, ready
        self.log = JsonLog()
        self.workers: list[_Worker] = []
        self.stopping = self.announced = False
        self.due: list[float] = []  # when workers are to be started
        self.pause_s = _FIRST_WAIT_S

    def stop(self, signal_number: int, frame: FrameType | None) -> None:
        """End all workers once they have answered what they accepted."""
        self.stopping = True

    def run(self) -> None:
        self.due = [0.0] * self.job.count
        try:
            while not self.stopping:
                self._start_due()
                self._listen()
        finally:
            self._end()

    def _start_due(self) -> None:
        now = time.monotonic()
        for _ in [moment for moment in self.due if moment <= now]:
            self.workers.append(_start(self.job, self.sock))
        self.due = [moment for moment in self.due if moment > now]

    def _listen(self) -> None:
        """Wait for a message or the end of a worker."""
        sources = [each for worker in self.workers for each in (worker.messages, worker.process.sentinel)]
        if not sources:
            time.sleep(_TICK_S)
        happened = wait(sources, timeout=_TICK_S)
        for worker in list(self.workers):
            said: tuple[str, Sequence[str]] | None = None
            if worker.messages in happened:
                with suppress(EOFError, OSError):
                    said = worker.messages.recv()
            if said is not None and said[0] == "ready":
                self._note_ready(worker, said[1])
            elif not worker.process.is_alive() and not self.stopping:
                self._replace(worker, said[1][0] if said else f"it ended with code {worker.process.exitcode}")

    def _note_ready(self, worker: _Worker, lines: Sequence[str]) -> None:
        worker.ready, self.pause_s = True, _FIRST_WAIT_S
        if not self.announced and not self.due and all(each.ready for each in self.workers):
            self.announced = True
            self.ready(lines)

    def _replace(self, worker: _Worker, reason: str) -> None:
        self.workers.remove(worker)
        worker.messages.close()
        mark_process_dead(worker.process.pid, self.folder)
        if not worker.ready and not any(each.ready for each in self.workers):
            raise VanError(reason)
        self.log.write("worker", pid=worker.process.pid, message="a worker died and is replaced", reason=reason)
        self.due.append(time.monotonic() + (0 if worker.ready else self.pause_s))
        self.pause_s = min(2 * self.pause_s, _LONGEST_WAIT_S)

    def _end(self) -> None:
        self.sock.close()  # or clients would still be let in once the workers have closed theirs
        for worker in self.workers:
            worker.process.terminate()  # SIGTERM
        until = time.monotonic() + self.job.settings.timeout_s + _KILL_S
        for worker in self.workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _start(job: Job, sock: socket.socket) -> _Worker:
    context = multiprocessing.get_context("spawn")
    messages, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, sock, theirs), name="van-worker")
    process.start()
    theirs.close()
    return _Worker(process, messages)


def _work(job: Job, sock: socket.socket, parent: Connection) -> None:
    """A worker: serves until SIGTERM, or until its parent is gone."""
    torch.set_num_threads(max(1, torch.get_num_threads() // job.count))
    service = Service(partial(open_models, job.names, job.files, job.options), job.settings)

    def watch_parent() -> None:
        with suppress(EOFError, OSError):
            parent.recv()
        service.draining = True

    def ready() -> None:
        threading.Thread(target=watch_parent, daemon=True).start()
        parent.send(("ready", service.summary()))

    try:
        run(service, sock, ready, interruptible=False)
    except Exception as error:
        own = isinstance(error, VanError | OSError)
        reason = str(error) if own else " ".join(f"{key}: {text}" for key, text in described(error).items())
        with suppress(OSError):
            parent.send(("failed", [reason]))
        raise SystemExit(2) from None


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
