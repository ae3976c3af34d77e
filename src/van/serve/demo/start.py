"""Starting and ending the page: address, files, headers; nothing goes to or comes from the internet."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .answers import Limits
from .examples import Example, examples_for, plain_image
from .models import checkpoints_or_quickstart, open_predictors, warmed_up

# What the browser may load: this page and what is in it, so that nothing is asked of another machine.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self'"
)
SESSIONS = 64  # of whom Gradio keeps the values of controls


def serve(
    checkpoints: Sequence[str],
    limits: Limits,
    *,
    host: str,
    port: int,
    open_browser: bool,
    say: Callable[[str], None],
    exif: bool = True,
    **options: Any,
) -> int:
    """Show the page until SIGINT or SIGTERM; returns the exit code.

    checkpoints: none for the quickstart's. options: of Predictor. say: gets the address.
    Raises VanError for a checkpoint that cannot be opened, ConfigError for an address that cannot be used.
    """
    named = checkpoints_or_quickstart(checkpoints)
    address = free_address(host, port)
    predictors = open_predictors(named, exif=exif, **options)
    examples = examples_for(next(iter(predictors.values())).opened)
    image = examples[0].image if examples else plain_image()
    models = {name: warmed_up(name, predictor, image) for name, predictor in predictors.items()}
    with _own_files(host) as folder, _ending() as ended:
        from .page import build  # imports Gradio, which reads its settings from the environment

        page = build(models, _saved(examples, folder), limits, exif=exif)
        _launch(page, host, address, limits, open_browser=open_browser)
        say(f"van: demo page at {page.local_url.rstrip('/')}; Ctrl-C ends it")
        try:
            ended.wait()
        finally:
            page.close(verbose=False)
    say("van: demo page closed")
    return 0


def free_address(host: str, port: int) -> int:
    """The port to listen on, a free one for 0; raises ConfigError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from error


def _saved(examples: Sequence[Example], folder: Path) -> list[tuple[Example, Path]]:
    """Examples with a file of each."""
    pairs = [(example, folder / f"{example.name}.png") for example in examples]
    for example, path in pairs:
        example.image.save(path)
    return pairs


@contextlib.contextmanager
def _own_files(host: str) -> Iterator[Path]:
    """A folder for uploads and examples, gone when the page ends; Gradio is kept from calling home.

    It also calls itself when it starts, which must not go through a proxy.
    """
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "localhost", "127.0.0.1", host)))
    with tempfile.TemporaryDirectory(prefix="van-demo-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_DISABLE_TELEMETRY": "1"}
        yield Path(folder)


@contextlib.contextmanager
def _ending() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _theme() -> Any:
    """Gradio's own with fonts of the system, and greys and accents that can be read on both grounds."""
    import gradio as gr

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    theme = gr.themes.Default(primary_hue=gr.themes.colors.blue, **fonts)
    grey, light = "*neutral_600", "*neutral_300"
    return theme.set(
        body_text_color_subdued=grey,
        body_text_color_subdued_dark=light,
        block_label_text_color=grey,
        block_label_text_color_dark=light,
        block_title_text_color=grey,
        block_title_text_color_dark=light,
    )


def _launch(page: Any, host: str, port: int, limits: Limits, *, open_browser: bool) -> None:
    from starlette.middleware import Middleware

    from .headers import Headers

    try:
        page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            allowed_paths=[],
            max_file_size=limits.max_bytes,
            max_threads=8,
            state_session_capacity=SESSIONS,
            app_kwargs={"middleware": [Middleware(Headers, policy=POLICY)]},
            theme=_theme(),
            head=f"<style>{(files(__package__) / 'style.css').read_text('utf-8')}</style>",  # `css` gets a prefix
        )
    except OSError as error:  # taken since it was found free
        raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another --port") from error
