"""Bodies of requests, counted while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from .admission import overloaded
from .problems import Problem
from .settings import BODIES, Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class ClientGone(Exception):  # noqa: N818 - not an error of ours
    """The client closed the connection before it had its answer."""


class BodyBudget:
    """Memory for bodies of all requests together: a request that would need more is refused."""

    def __init__(self, settings: Settings) -> None:
        self.most, self.used = BODIES * settings.max_bytes, 0

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """What takes bytes for one request, all given back at the end; raises Problem when there are none left."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.used + size > self.most:
                raise overloaded(f"{self.most:,} bytes of request bodies are being held", 1)
            taken += size
            self.used += size

        try:
            yield take
        finally:
            self.used -= taken


def declared_length(headers: Mapping[str, str]) -> int | None:
    """The length that a request declares; raises Problem where it is no number."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise Problem(400, "bad-content-length", "Content-Length is no number; send the number of bytes of the body")
    return int(text[:20])


async def read_body(
    receive: Receive, headers: Mapping[str, str], settings: Settings, take: Callable[[int], None], *, until: float
) -> bytes:
    """The whole body.

    until: the loop's time by which it has to be there. Raises Problem for one that is too long, too slow or compressed,
    ClientGone.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "compressed-body", "the body is compressed; send it without Content-Encoding")
    if (length := declared_length(headers)) is not None and length > settings.max_bytes:
        raise _too_long(settings)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await _next(receive, until)
        part = message.get("body", b"")
        size += len(part)
        if size > settings.max_bytes:
            raise _too_long(settings)
        take(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _next(receive: Receive, until: float) -> Message:
    try:
        async with asyncio.timeout_at(until):
            message = await receive()
    except TimeoutError:
        detail = "the body did not arrive in time; send fewer or smaller images, or over a faster connection"
        raise Problem(408, "slow-request", detail, close=True) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _too_long(settings: Settings) -> Problem:
    most = settings.max_bytes
    detail = f"the body has more than {most:,} bytes, which is the limit; send fewer or smaller images"
    return Problem(413, "body-too-large", detail, limit_bytes=most)
