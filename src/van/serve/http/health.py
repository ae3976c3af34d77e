"""`/healthz`, `/readyz` and `/metrics`, for whoever runs the service."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from . import schemas
from .metrics import MEDIA_TYPE
from .problems import Problem
from .service import Service


def router(service: Service) -> APIRouter:
    """The endpoints; they need no token."""
    routes = APIRouter(tags=["health"])

    @routes.head("/healthz", include_in_schema=False)  # what some load balancers ask
    @routes.get("/healthz", **schemas.HEALTH)
    async def healthz() -> JSONResponse:
        check_alive(service)
        return JSONResponse({"status": "ok"})

    @routes.head("/readyz", include_in_schema=False)  # what some load balancers ask
    @routes.get("/readyz", **schemas.HEALTH)
    async def readyz() -> JSONResponse:
        check_ready(service)
        return JSONResponse({"status": "ready", "models": list(service.lanes)})

    @routes.get("/metrics", **schemas.METRICS)
    async def metrics() -> Response:
        for lane in service.lanes.values():
            lane.metrics.pending.set(lane.admission.pending)
        service.metrics.body_bytes.set(service.budget.used)
        return Response(service.metrics.text(), headers={"Content-Type": MEDIA_TYPE})

    return routes


def check_alive(service: Service) -> None:
    """Raises Problem for a service that has to be started again."""
    dead = [lane.name for lane in service.lanes.values() if not lane.alive]
    if service.failed is not None or dead:
        raise Problem(503, "broken", "a model cannot be run any more; start the service again", retry_after_s=10)


def check_ready(service: Service) -> None:
    """Raises Problem for a service that takes no requests now."""
    check_alive(service)
    if service.draining:
        raise Problem(503, "ending", "this service is ending; send requests to another instance", retry_after_s=1)
    if not service.ready:
        raise Problem(503, "loading", "the models are being opened; ask again", retry_after_s=2)
