"""Logs: one JSON object per line on stderr. No content of images, no names of files, no tokens."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class RequestRecord:
    """What is known of a request when it ends; times in milliseconds."""

    id: str
    method: str
    path: str
    status: int = 0
    model: str | None = None
    images: int = 0
    bad_images: int = 0
    bytes: int = 0
    queued_ms: float = 0.0
    run_ms: float = 0.0
    problem: str | None = None
    start: float = field(default_factory=time.perf_counter)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        values = {name: value for name, value in vars(self).items() if name != "start"}
        milliseconds = {name: round(values[name], 2) for name in ("queued_ms", "run_ms")}
        return {**values, **milliseconds, "ms": round(1000 * (time.perf_counter() - self.start), 2)}


class JsonLog:
    """Writes one JSON object per line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, event: str, **values: Any) -> None:
        """Write a line: time, event, and the values."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        line = json.dumps({"time": stamp, "event": event, **values}, default=str)
        with suppress(OSError):  # of a full disk or a closed pipe: requests are worth more than their log
            print(line, file=self._stream or sys.stderr, flush=True)


class LogHandler(logging.Handler):
    """Python's log records, of the HTTP server, as JSON lines."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, with the type and place of an exception but without its values."""
        values = {"level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            values |= described(record.exc_info[1])
        self._log.write("server", **values)


def described(error: BaseException) -> dict[str, str]:
    """What a log says of an unexpected exception: its type, its text, and where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
    return {"error": type(error).__name__, "reason": " ".join(str(error).split())[:300], "where": where}
