"""The application: every endpoint, behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ... import __version__
from . import health, open_inference, predict
from .gate import Gate
from .problems import Problem, problem_of_status
from .service import Service

_TITLE = "Visual Attention Network"


def create_app(service: Service) -> FastAPI:
    """An ASGI application on a service; its lifespan begins to open the models, and ends their threads."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title=_TITLE,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page comes from the net
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    for each in (predict, open_inference, health):
        app.include_router(each.router(service))
    app.add_exception_handler(HTTPException, _raise_problem)
    app.add_exception_handler(RequestValidationError, _raise_invalid)
    app.add_middleware(Gate, service=service)
    return app


async def _raise_problem(request: Request, error: Exception) -> None:
    """An error that the framework found, as a problem; the gate makes the response."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    details = {
        404: f"there is nothing at {path}; GET /openapi.json lists what there is",
        405: f"{path} does not take {request.method[:20]}; GET /openapi.json says what it takes",
    }
    raise problem_of_status(error.status_code, details.get(error.status_code, error.detail), error.headers)


async def _raise_invalid(request: Request, error: Exception) -> None:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))
    raise Problem(422, "bad-parameter", f"{where}: {first['msg'].lower()}; GET /openapi.json says what it takes")
