"""A client that loads a service of this machine: plain asyncio, requests made beforehand, only 127.0.0.1.

It has to be light, because it shares the cores with the service: `Tally.client_share` is what it took of one core.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = b"X-Request-ID: "
_PATIENCE_S = 60.0
LOST, REFUSED = "connection lost", "no connection"


@dataclass
class Tally:
    """What a load gave: answers by status, seconds of those with 200, requests by id that were sent and answered.

    late: requests that an open load could not send in time for want of connections. busy_s: the client's own processor
    time, of wall_s.
    """

    statuses: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    answered: dict[str, int] = field(default_factory=dict)
    late: int = 0
    busy_s: float = 0.0
    wall_s: float = 0.0

    @property
    def client_share(self) -> float:
        """Of one core, what the client took."""
        return self.busy_s / self.wall_s

    def note(self, name: str, status: int, headers: bytes, seconds: float) -> None:
        self.statuses[status] += 1
        self.answered[name] = status
        if status == 200:
            self.seconds.append(seconds)
        elif status == 503 and b"\r\nretry-after: " not in headers.lower():
            self.without_retry_after += 1


@dataclass(frozen=True)
class Load:
    """Where and what to send. payloads: bodies, sent in turn."""

    port: int
    payloads: tuple[bytes, ...]
    content_type: str

    def request(self, number: int, name: str) -> bytes:
        """The bytes of a request with an id."""
        body = self.payloads[number % len(self.payloads)]
        head = f"POST /v1/predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n".encode() + _ID + name.encode() + b"\r\n\r\n" + body


class Connection:
    """A connection that is kept; opened when it is first needed, and again after the server closed it."""

    def __init__(self, load: Load, tally: Tally) -> None:
        self.load, self.tally = load, tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, number: int, prefix: str) -> int | str:
        """Send a request and note its answer: a status, LOST or REFUSED."""
        name, start = f"{prefix}-{number}", time.perf_counter()
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(HOST, self.load.port)
            except OSError:
                self.tally.statuses[REFUSED] += 1
                return REFUSED
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status, headers = await self._exchange(self.load.request(number, name))
        except (OSError, EOFError, TimeoutError):
            self.close()
            self.tally.statuses[LOST] += 1
            return LOST
        self.tally.note(name, status, headers, time.perf_counter() - start)
        if b"\r\nconnection: close" in headers.lower():
            self.close()
        return status

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(request)
        headers = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(headers)
        await reader.readexactly(int(length[1]) if length else 0)
        return int(headers[9:12]), headers

    def close(self) -> None:
        """End it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_load(
    load: Load, *, clients: int, seconds: float, prefix: str, until: Callable[[], bool] = lambda: False
) -> Tally:
    """So many clients, each of which sends its next request when it has the answer to the last.

    until: ends the load early. A client waits a moment after a refusal.
    """
    tally = Tally()
    end = time.perf_counter() + seconds

    async def client(first: int) -> None:
        connection, number = Connection(load, tally), first
        while time.perf_counter() < end and not until():
            if await connection.send(number, prefix) != 200:
                await asyncio.sleep(0.02)
            number += clients
        connection.close()

    await _timed(tally, asyncio.gather(*map(client, range(clients))))
    return tally


async def open_load(load: Load, *, rate: float, seconds: float, most: int, prefix: str) -> Tally:
    """So many requests a second, whatever becomes of them, over at most so many connections."""
    tally = Tally()
    free = [Connection(load, tally) for _ in range(most)]
    connections, sending = tuple(free), set[asyncio.Task[None]]()

    async def one(connection: Connection, number: int) -> None:
        await connection.send(number, prefix)
        free.append(connection)

    async def run() -> None:
        start, count = time.perf_counter(), int(rate * seconds)
        for number in range(count):
            if (wait := start + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if not free:
                tally.late += 1
                continue
            task = asyncio.create_task(one(free.pop(), number))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)

    await _timed(tally, run())
    for connection in connections:
        connection.close()
    return tally


async def _timed(tally: Tally, work: Awaitable[object]) -> None:
    wall, busy = time.perf_counter(), time.process_time()
    await work
    tally.wall_s, tally.busy_s = time.perf_counter() - wall, time.process_time() - busy
