"""The service on Ray Serve: every replica is the application of `van serve`, with its batches, bounds and answers.

    pip install 'visual-attention-network[serve]' 'ray[serve]>=2.50'
    cd examples/deploy && serve run ray_serve:application models='["/models/b0.safetensors"]' max_batch=8

Ray Serve starts, watches and scales replicas, and its proxy takes the requests: /v1/predict, /v2 and /metrics,
where each answer is that of one replica. kuberay.yaml gives the same arguments. Batches are made within a replica,
which is why there is no `serve.batch` here: two queues in a row would wait twice.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from van.serve.http.app import create_app
from van.serve.http.health import check_alive
from van.serve.http.models import ModelOptions, open_models
from van.serve.http.problems import Problem
from van.serve.http.service import Service, model_names
from van.serve.http.settings import Settings, read_token


class Arguments(BaseModel):
    """What `application` takes; what is left out is the default of `van serve`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: list[str]
    max_bytes: int = Settings.max_bytes
    max_pixels: int = Settings.max_pixels
    max_batch: int = Settings.max_batch
    max_queue: int = Settings.max_queue
    latency_ms: float = Settings.latency_ms
    timeout_s: float = Settings.timeout_s
    token_file: str | None = None
    device: str = "cpu"


@serve.deployment(name="VanService", max_ongoing_requests=64, graceful_shutdown_timeout_s=45)
@serve.ingress()
class VanService:
    """A replica."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        given = Arguments(**arguments)
        bounds = given.model_dump(exclude={"models", "token_file", "device"})
        token = None if given.token_file is None else read_token(given.token_file)
        names, options = model_names(given.models), ModelOptions(device=given.device)
        opened = open_models(
            names, given.models, options
        )  # here: a replica whose models cannot be opened does not start
        self.service = Service(lambda: opened, Settings(**bounds, token=token))

    def __serve_build_asgi_app__(self) -> Any:
        """The application, which Ray Serve calls once the replica is made."""
        return create_app(self.service)

    def check_health(self) -> None:
        """Ray Serve replaces the replica when this raises."""
        try:
            check_alive(self.service)
        except Problem as problem:
            raise RuntimeError(problem.detail) from problem


def application(arguments: Arguments) -> Application:
    """What `serve run` and kuberay.yaml build."""
    return VanService.bind(arguments.model_dump())
