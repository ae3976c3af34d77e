"""`POST /v1/predict` and `GET /v1/models`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...errors import ConfigError
from ...inference.predictor import Predictor
from . import schemas
from .gate import RECORD
from .lane import Lane, Timing
from .problems import Problem
from .service import Service
from .uploads import Upload, uploads_of
from .work import answer, handle, predicted

_DEFAULT_TOP = 5


def router(service: Service) -> APIRouter:
    """The endpoints of this package's own interface."""
    routes = APIRouter(tags=["predict"])

    @routes.post("/v1/predict", **schemas.predict(service.settings.max_images))
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="name of a model; default: the first")] = None,
        top: Annotated[int | None, Query(ge=1, description="classes to list per image, of classifiers")] = None,
    ) -> Response:
        lane = service.lane(model)
        predictor = _listing(lane, top)
        content_type = request.headers.get("content-type", "")

        async def results(uploads: list[Upload], timing: Timing) -> list[dict[str, Any]]:
            return await predicted(service, lane, predictor, uploads, timing)

        parse = partial(uploads_of, content_type, settings=service.settings)
        entries = await handle(request, service, lane, parse, len, results)
        bad = [entry for entry in entries if "error" in entry]
        request.scope[RECORD].bad_images = len(bad)
        lane.metrics.done(len(entries) - len(bad), len(bad))
        if len(bad) == len(entries):
            raise _nothing_good(entries)
        return await answer(service, {"model": lane.name, "results": entries})

    @routes.get("/v1/models", **schemas.MODELS)
    async def models() -> Response:
        service.lane(None)  # raises while there are none
        return await answer(service, {"models": [describe(lane) for lane in service.lanes.values()]})

    return routes


def describe(lane: Lane) -> dict[str, Any]:
    """What a client can know of a model."""
    opened = lane.predictor.opened
    return {
        "name": lane.name,
        "task": opened.task.name,
        "runtime": opened.runtime,
        "num_classes": opened.num_classes,
        "classes": list(opened.subject.classes),
        "batched": lane.batched,
    }


def _listing(lane: Lane, top: int | None) -> Predictor:
    if top is None:
        return lane.predictor
    number = lane.predictor.opened.num_classes
    if top > max(number, _DEFAULT_TOP):
        raise Problem(422, "bad-top", f"top is {top}; {lane.name} has {number} classes: expected 1 to {number}")
    try:
        return lane.listing(top)
    except ConfigError as error:
        raise Problem(422, "bad-top", str(error)) from None


def _nothing_good(entries: list[dict[str, Any]]) -> Problem:
    """The problem of a request without one image that can be used: that of its image, or of all."""
    errors = [entry["error"] for entry in entries]
    statuses = {error["status"] for error in errors}
    if len(entries) == 1:
        error = errors[0]
        kind = error["type"].rpartition(":")[2]
        more = {name: value for name, value in error.items() if name not in ("type", "title", "status", "detail")}
        return Problem(error["status"], kind, error["detail"], results=entries, **more)
    detail = f"none of the {len(entries)} images can be used; `results` says why"
    return Problem(statuses.pop() if len(statuses) == 1 else 422, "no-usable-image", detail, results=entries)
