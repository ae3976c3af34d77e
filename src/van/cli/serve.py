"""Serve models over HTTP: POST /v1/predict, the Open Inference Protocol (/v2), /healthz, /readyz, /metrics.

Several images are run together, and what cannot be done in time is refused with 503 and Retry-After. SIGTERM and Ctrl-C
end the service once it has answered what it accepted. Logs, one JSON object per request, go to stderr.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from ..errors import ConfigError, MissingExtraError
from .inference import add_optimize_arguments, add_trust_argument, wanted_optimize
from .output import say

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def add_arguments(parser: Any) -> None:
    """Options of `van serve`."""
    parser.add_argument(
        "checkpoints", nargs="+", metavar="CKPT", help="checkpoints or exported files; the first is the default model"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all of this machine")
    parser.add_argument("--port", type=int, default=8080, help="0: one that is free")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with its own models")
    group = parser.add_argument_group("bounds, beyond which a request is refused")
    group.add_argument("--max-bytes", type=int, default=32 * 2**20, help="bytes in the body of a request")
    group.add_argument("--max-pixels", type=int, default=50_000_000, help="pixels in an image, by its header")
    group.add_argument("--max-batch", type=int, default=16, help="images that run together, and images in a request")
    group.add_argument("--max-queue", type=int, default=256, help="images that are accepted and not done, per worker")
    group.add_argument(
        "--latency-ms", type=float, default=1000.0, help="how long an accepted image may be expected to take"
    )
    group.add_argument("--timeout-s", type=float, default=30.0, help="after which a request is given up")
    group.add_argument("--token-file", help="clients must send the token in this file: Authorization: Bearer TOKEN")
    group = parser.add_argument_group("how models run")
    group.add_argument("--engine", help="torch (checkpoints), onnx, openvino or int8: exported at the start")
    group.add_argument("--calibration", help="images for --engine int8: a folder, digits or scenes")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    group.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    group.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    add_optimize_arguments(group)
    add_trust_argument(group)
    group.add_argument("--ignore-exif", action="store_true", help="pixels as stored, not turned")


def run(options: Any) -> int:
    """Check everything that can be checked at once, then serve."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(package, "serve", "for van serve")
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port is {options.port}; expected 0 to 65535")
    if options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}; expected at least 1")
    from ..serve.http.models import ModelOptions
    from ..serve.http.settings import Settings, read_token
    from ..serve.http.start import serve

    bounds = ("max_bytes", "max_pixels", "max_batch", "max_queue", "latency_ms", "timeout_s")
    token = None if options.token_file is None else read_token(options.token_file)
    settings = Settings(**{name: getattr(options, name) for name in bounds}, token=token)
    models = ModelOptions(
        engine=options.engine,
        calibration=options.calibration,
        device=options.device,
        precision=options.precision,
        ema=options.ema,
        optimize=wanted_optimize(options),
        trust=options.trust,
        exif=not options.ignore_exif,
    )
    return serve(
        options.checkpoints,
        settings,
        models,
        host=options.host,
        port=options.port,
        workers=options.workers,
        say=say,
    )
