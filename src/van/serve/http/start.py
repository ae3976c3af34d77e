"""What `van serve` does: listen, open the models, answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .models import ModelOptions, exported_sources, open_models
from .server import address_of, bind, run
from .service import Service, model_names
from .settings import Settings

Say = Callable[[str], None]


def serve(
    sources: Sequence[str], settings: Settings, options: ModelOptions, *, host: str, port: int, workers: int, say: Say
) -> int:
    """Serve models until SIGTERM or SIGINT; the exit code. say: prints a line for people.

    Raises ConfigError for what cannot be served and where it cannot listen; what opening and exporting raise.
    """
    names = model_names(sources)
    with bind(host, port) as sock, exported_sources(sources, options) as files:
        address = address_of(sock)
        say(f"van: listening on {address}, opening {', '.join(names)}")
        service = Service(partial(open_models, names, files, options), settings)

        def ready() -> None:
            for lane in service.lanes.values():
                opened = lane.predictor.opened
                seconds = lane.admission.run.value
                say(f"van: {lane.name}: {opened.task.noun}, {opened.runtime}, {1000 * seconds:.1f} ms per image")
            say(f"van: ready on {address}")

        run(service, sock, ready)
    return 0
