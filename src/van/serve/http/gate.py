"""What every request passes: its id, the token, errors as problems, the count, the log."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from .bodies import ClientGone, Receive
from .logs import RequestRecord, described
from .problems import MEDIA_TYPE, Problem
from .service import Service

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RECORD = "van.record"  # where endpoints find the record of their request
# What needs no token and is answered while the service ends.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
_GOOD_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_GONE = 499  # in logs, for a client that did not wait for its answer
_DRAIN_S = 2.0  # that a refused body is read and thrown away: an answer to a client that still sends may be lost


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        name = given if _GOOD_ID.fullmatch(given) else uuid.uuid4().hex
        scope[RECORD] = record = RequestRecord(name, scope["method"], "other")
        exchange = _Exchange(self.service, record, headers, receive, send)
        self.service.active += 1
        try:
            await self._answer(scope, exchange, headers)
        finally:
            self.service.active -= 1
            self._note(scope, record)

    async def _answer(self, scope: Scope, exchange: _Exchange, headers: MutableMapping[str, str]) -> None:
        try:
            self._admit(scope["path"], headers)
            await self.app(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await exchange.refuse(problem)
        except ClientGone:
            exchange.record.status = _GONE
        except Exception as error:
            self.service.log.write("error", id=exchange.record.id, **described(error))
            if exchange.started:
                raise
            detail = f"the service failed; its log says more under the id {exchange.record.id}"
            await exchange.refuse(Problem(500, "failure", detail))

    def _admit(self, path: str, headers: MutableMapping[str, str]) -> None:
        """Raises Problem for a request without the token, and for any while the service ends."""
        if path in OPEN_PATHS:
            return
        token = self.service.settings.token
        if token is not None:
            scheme, _, shown = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(shown.strip().encode("latin-1"), token.encode())
            if scheme.lower() != "bearer" or not same:
                detail = "this service needs a token; send it as: Authorization: Bearer TOKEN"
                raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
        if self.service.draining:
            detail = "this service is ending; try again, another instance may answer"
            raise Problem(503, "ending", detail, retry_after_s=1, close=True)

    def _note(self, scope: Scope, record: RequestRecord) -> None:
        route = scope.get("route")
        record.path = getattr(route, "path", None) or (scope["path"] if scope["path"] in OPEN_PATHS else "other")
        metrics, seconds = self.service.metrics, time.perf_counter() - record.start
        method = record.method if record.method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE") else "other"
        metrics.requests.labels(method, record.path, str(record.status)).inc()
        metrics.seconds.labels(record.path).observe(seconds)
        if record.problem is not None:
            metrics.refused.labels(record.problem).inc()
        if record.path not in OPEN_PATHS or record.status >= 400:
            self.service.log.write("request", **record.to_dict())


class _Exchange:
    """A request's two directions: what was read of its body, what was sent."""

    def __init__(
        self, service: Service, record: RequestRecord, headers: MutableMapping[str, str], receive: Receive, send: Send
    ) -> None:
        self.service, self.record = service, record
        self._receive, self._send = receive, send
        self._expects = "expect" in headers  # and has not sent its body yet
        self._unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self.started = False

    async def receive(self) -> MutableMapping[str, Any]:
        self._expects = False
        message = await self._receive()
        self.record.bytes += len(message.get("body", b""))
        self._unread = self._unread and message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started, self.record.status = True, message["status"]
            extra = [(b"x-request-id", self.record.id.encode())]
            if self.service.draining and not _has_close(message["headers"]):
                extra.append((b"connection", b"close"))
            message["headers"] = [*message["headers"], *extra]
        try:
            async with asyncio.timeout(self.service.settings.timeout_s):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None  # it does not read its answer; the server closes the connection

    async def refuse(self, problem: Problem) -> None:
        """Send a problem, once the body has been read or its client was given the time to send it."""
        self.record.problem = problem.kind
        closing = "Connection" in problem.headers  # a slow client has had its time
        if self._unread and (closing or not await self._drained()):
            problem.headers["Connection"] = "close"
        content = json.dumps(problem.to_dict()).encode()
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(content)), **problem.headers}
        raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": content})

    async def _drained(self) -> bool:
        """Read what is left of the body and throw it away; whether that was all of it."""
        if self._expects:
            return False
        most = self.record.bytes + 4 * self.service.settings.max_bytes
        try:
            async with asyncio.timeout(_DRAIN_S):
                while self._unread and self.record.bytes <= most:
                    if (await self.receive())["type"] == "http.disconnect":
                        raise ClientGone
        except TimeoutError:
            pass
        return not self._unread


def _has_close(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"connection" for name, _ in headers)
