"""What `van serve` does: listen, open the models, answer."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from .models import ModelOptions, exported, open_models, workspace
from .server import address_of, bind, run
from .service import Service, model_names
from .settings import Settings
from .workers import Job, run_workers

Say = Callable[[str], None]


def serve(
    sources: Sequence[str], settings: Settings, options: ModelOptions, *, host: str, port: int, workers: int, say: Say
) -> int:
    """Serve models until SIGTERM or SIGINT; the exit code. say: prints a line for people.

    Raises ConfigError for what cannot be served and where it cannot listen; what opening and exporting raise.
    """
    names = model_names(sources)
    with _ended_by_signal(), bind(host, port) as sock, workspace(sources, options) as folder:
        address = address_of(sock)
        say(f"van: listening on {address}, opening {', '.join(names)}")

        def ready(lines: Sequence[str]) -> None:
            for line in lines:
                say(f"van: {line}")
            say(f"van: ready on {address}{f' with {workers} workers' if workers > 1 else ''}")

        if workers > 1:
            files = exported(names, sources, options, folder)
            job = Job(names=names, files=files, options=options, settings=settings, count=workers)
            run_workers(job, sock, ready)
        else:
            service = Service(lambda: open_models(names, exported(names, sources, options, folder), options), settings)
            run(service, sock, lambda: ready(service.summary()))
    return 0


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM before the server has its own handlers ends the process in order: folders are removed."""

    def end(signal_number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
