"""Runs the service on a socket until it is asked to end, and then finishes what was accepted."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from PIL import Image
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import ConfigError
from .app import create_app
from .logs import JsonLog, LogHandler
from .problems import MEDIA_TYPE, Problem
from .service import Service

BACKLOG = 2048
_HEADERS_S = 10.0  # for the headers of a request to arrive, from the connection or their first byte on
_KEEP_ALIVE_S = 75  # longer than proxies keep theirs, or they would send into a connection that is closing
_MOST_FILES = 65_536  # descriptors, one per connection
_TICK_S = 0.05
_GRACE_S = 0.3  # for a client that connected just before the socket closed
_ENDING_S = 1.0  # that new requests are still refused in words, so that whoever routes them can take note


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: one that is free. Raises ConfigError where that cannot be."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(f"host {host!r} cannot be found ({error}); give an address of this machine") from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another --port or --host") from error
    sock.set_inheritable(True)
    return sock


def address_of(sock: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(service: Service, sock: socket.socket, ready: Callable[[], None], *, interruptible: bool = True) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted; ready: called once the models are open.

    interruptible: a second SIGINT ends it at once.

    Raises what opening the models raised.
    """
    _log_warnings(service.log)
    _allow_connections()
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [LogHandler(service.log)], False
    config = uvicorn.Config(
        create_app(service),
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(service.settings.timeout_s) + 5,
    )
    _Server(config, service, ready, interruptible).run([sock])
    if service.failed is not None:
        raise service.failed


def _allow_connections() -> None:
    """As many open connections as this process may have at most; many systems begin with 1,024."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log_warnings(log: JsonLog) -> None:
    """Warnings as lines of the log, but for those of PIL, which are of what clients sent."""

    def show(message: Warning | str, category: type[Warning], *rest: object, **named: object) -> None:
        log.write("warning", message=" ".join(str(message).split())[:500])

    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # max_pixels decides
    warnings.showwarning = show


class _Server(uvicorn.Server):
    """uvicorn's server, which ends once the service has answered what it accepted."""

    def __init__(
        self, config: uvicorn.Config, service: Service, ready: Callable[[], None], interruptible: bool
    ) -> None:
        super().__init__(config)
        self.service, self._ready, self._interruptible = service, ready, interruptible

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the service gracefully, a second SIGINT at once."""
        if self._interruptible and self.service.draining and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
        self.service.draining = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            await super().serve(sockets)
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Say when the models are open; end the server when they cannot be, and when nothing is left to answer."""
        service, said, waited = self.service, False, 0.0
        while service.failed is None:
            if service.lanes and not said:
                said = True
                self._ready()
            if service.draining:
                waited += _TICK_S
                if waited >= _ENDING_S and not service.active:
                    break
            await asyncio.sleep(_TICK_S)
        self.should_exit = True


class _Protocol(H11Protocol):
    """uvicorn's HTTP protocol, which waits for a request only so long, and answers what is no HTTP with a problem."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = None
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """A request that has begun to arrive has to begin in full: one byte now and then keeps no connection."""
        super().data_received(data)
        if self._idle:
            self._expect_request()
        else:
            self._expect_nothing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_request(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(_HEADERS_S, self._close_if_idle)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close_if_idle(self) -> None:
        self._late = None
        if self._idle:
            self.transport.close()

    def shutdown(self) -> None:
        """Let a client that has just connected have its refusal in words; others as uvicorn does."""
        if self.cycle is None:
            self.loop.call_later(_GRACE_S, self._close_if_idle)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        problem = Problem(400, "bad-request", "this is no HTTP request that can be understood; send HTTP/1.1")
        content = json.dumps(problem.to_dict()).encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        events: list[Any] = [h11.Response(status_code=400, headers=headers), h11.Data(data=content), h11.EndOfMessage()]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
