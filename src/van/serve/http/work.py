"""From the body of a request to results: what every endpoint that predicts has in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fastapi import Request, Response

from ...inference.predictor import Predictor, PreparedImage
from .admission import overloaded
from .bodies import ClientGone, read_body
from .gate import RECORD
from .lane import Lane, Timing, unusable
from .logs import RequestRecord
from .problems import Problem
from .service import Service
from .uploads import Upload, check_image

Body = TypeVar("Body")
Result = TypeVar("Result")
# Makes an image's result of its body; called in a reading thread.
Prepare = Callable[[], Any]


async def handle(
    request: Request,
    service: Service,
    lane: Lane,
    parse: Callable[[bytes], Body],
    count: Callable[[Body], int],
    predict: Callable[[Body, Timing], Awaitable[Result]],
) -> Result:
    """What `predict` makes of the body of a request, within the bounds.

    parse: called in a thread; count: images in what it gave, which are accepted before `predict` is called.
    Raises Problem, ClientGone.
    """
    record: RequestRecord = request.scope[RECORD]
    record.model = lane.name
    service.check_room(lane)
    until = asyncio.get_running_loop().time() + service.settings.timeout_s
    service.requests += 1
    try:
        with service.budget.request() as take:
            body = await read_body(request.receive, request.headers, service.settings, take, until=until)
            parsed = await _in_time(request, service, lane, until, _threaded(service, parse, body))
            del body
            record.images = count(parsed)
            lane.admission.enter(record.images)
            timing = Timing()
            try:
                return await _in_time(request, service, lane, until, predict(parsed, timing))
            finally:
                record.queued_ms, record.run_ms = 1000 * timing.queued_s, 1000 * timing.run_s
    finally:
        service.requests -= 1


async def answer(service: Service, content: dict[str, Any]) -> Response:
    """A response of JSON; it is written in a thread, for masks and tensors are long."""
    text = await asyncio.get_running_loop().run_in_executor(service.bodies, _json, content)
    return Response(text, media_type="application/json")


def _json(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")  # a lone surrogate, of a name that was no UTF-8, as JSON escapes it


async def _threaded(service: Service, function: Callable[[bytes], Body], body: bytes) -> Body:
    return await asyncio.get_running_loop().run_in_executor(service.bodies, function, body)


async def _in_time(request: Request, service: Service, lane: Lane, until: float, work: Awaitable[Result]) -> Result:
    """The result of some work, unless the client goes away or the time is over: then it is cancelled."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        left = until - asyncio.get_running_loop().time()
        await asyncio.wait((doing, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if gone.done():
            raise ClientGone
        waited = f"the request took more than {service.settings.timeout_s:g} s and was given up"
        raise overloaded(waited, lane.admission.retry_after_s)
    finally:
        for task in (doing, gone):
            if not task.done():
                task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def predicted(
    service: Service, lane: Lane, predictor: Predictor, uploads: Sequence[Upload], timing: Timing
) -> list[dict[str, Any]]:
    """An entry per image, in order: name and result, or name and error."""

    async def one(number: int, upload: Upload) -> dict[str, Any]:
        try:
            output = await lane.submit(lambda: prepared(service, predictor, upload, number), timing)
        except Problem as problem:
            return {"name": upload.name, "error": problem.to_dict()}
        entry = await asyncio.get_running_loop().run_in_executor(service.bodies, output.to_json)
        return {"name": upload.name} | {key: value for key, value in entry.items() if key != "image"}

    return await together([one(number, each) for number, each in enumerate(uploads)])


async def together(works: Sequence[Awaitable[Result]]) -> list[Result]:
    """The results of all; when one fails the others are cancelled, and have ended when that is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def prepared(service: Service, predictor: Predictor, upload: Upload, number: int) -> PreparedImage:
    """An image ready to run; raises Problem for one that cannot be used."""
    if isinstance(upload.data, Problem):
        raise upload.data
    check_image(upload.data, service.settings.max_pixels)
    found = predictor.prepare(upload.data, number)
    if found.failure is not None:
        raise unusable(found.failure.reason)
    return found
