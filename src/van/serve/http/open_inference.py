"""The Open Inference Protocol (`/v2`), as KServe and Triton speak it: its JSON form.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ... import __version__
from ...errors import DataError
from ...files import printable
from ...images.sources import source_of
from . import schemas
from .health import check_alive, check_ready
from .lane import Lane, Timing, unusable
from .problems import Problem
from .service import Service
from .settings import Settings
from .uploads import Upload, check_count, check_image, check_json, clean_name, decoded, json_object
from .work import answer, handle, predicted, together

TENSOR, ENCODED, RESULTS = "images", "encoded", "results"
_MOST_ID = 128  # characters of a request's id
_BINARY = "inference-header-content-length"


@dataclass(frozen=True)
class Infer:
    """A request: its images, as arrays (C, H, W) or encoded, and what it asks for. id: its own, given back."""

    id: str | None
    images: Sequence[np.ndarray | Upload]
    outputs: Sequence[str]


def router(service: Service) -> APIRouter:
    """The endpoints of the protocol."""
    routes = APIRouter(tags=["open inference protocol"])

    @routes.get("/v2", **schemas.V2_SERVER)
    async def server() -> JSONResponse:
        return JSONResponse({"name": "van", "version": __version__, "extensions": []})

    @routes.get("/v2/health/live", **schemas.V2_LIVE)
    async def live() -> JSONResponse:
        check_alive(service)
        return JSONResponse({"live": True})

    @routes.get("/v2/health/ready", **schemas.V2_READY)
    async def ready() -> JSONResponse:
        check_ready(service)
        return JSONResponse({"ready": True})

    @routes.get("/v2/models/{name}", **schemas.V2_MODEL)
    async def model(name: str) -> JSONResponse:
        return JSONResponse(metadata(service.lane(name)))

    @routes.get("/v2/models/{name}/ready", **schemas.V2_MODEL_READY)
    async def model_ready(name: str) -> JSONResponse:
        lane = service.lane(name)
        check_ready(service)
        return JSONResponse({"name": lane.name, "ready": True})

    @routes.post("/v2/models/{name}/infer", **schemas.V2_INFER)
    async def infer(request: Request, name: str) -> Response:
        lane = service.lane(name)
        if _BINARY in request.headers:
            raise Problem(415, "binary-tensors", f"the binary form ({_BINARY}) is not offered; send tensors as JSON")
        check_json(request.headers.get("content-type", ""))

        async def run(asked: Infer, timing: Timing) -> list[dict[str, Any]]:
            return await _outputs(service, lane, asked, timing)

        asked: list[Infer] = []

        def parse(body: bytes) -> Infer:
            asked.append(parse_infer(body, lane, service.settings))
            return asked[0]

        outputs = await handle(request, service, lane, parse, lambda each: len(each.images), run)
        lane.metrics.done(len(asked[0].images), 0)
        named = {} if asked[0].id is None else {"id": asked[0].id}
        return await answer(service, {"model_name": lane.name, "model_version": "1", **named, "outputs": outputs})

    return routes


def metadata(lane: Lane) -> dict[str, Any]:
    """What the protocol says of a model: names, types and shapes of what goes in and comes out."""
    height, width = lane.fixed_size or (-1, -1)
    raw = [{"name": name, "datatype": "FP32", "shape": list(shape)} for name, shape in lane.outputs.items()]
    return {
        "name": lane.name,
        "versions": ["1"],
        "platform": f"van_{lane.predictor.opened.runtime}",
        "inputs": [
            {"name": TENSOR, "datatype": "FP32", "shape": [-1, lane.channels, height, width]},
            {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [*raw, {"name": RESULTS, "datatype": "BYTES", "shape": [-1]}],
    }


# ---- what is asked


def parse_infer(body: bytes, lane: Lane, settings: Settings) -> Infer:
    """A request of the protocol; raises Problem for one that cannot be understood or run."""
    value = json_object(body)
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping):
        raise _invalid(f"inputs is not a list of one tensor; expected {TENSOR!r} (FP32) or {ENCODED!r} (BYTES)")
    name = value.get("id")
    if name is not None and (not isinstance(name, str) or len(name) > _MOST_ID):
        raise _invalid(f"id is no text of at most {_MOST_ID} characters")
    images = _images(inputs[0], lane, settings)
    encoded = isinstance(images[0], Upload)
    return Infer(None if name is None else printable(name), images, _asked(value.get("outputs"), lane, encoded=encoded))


def _images(tensor: Mapping[str, Any], lane: Lane, settings: Settings) -> Sequence[np.ndarray | Upload]:
    kind, shape = tensor.get("datatype"), tensor.get("shape")
    whole = isinstance(shape, list) and all(type(side) is int and 1 <= side < 2**31 for side in shape)
    if not isinstance(shape, list) or not whole or not shape:
        raise _invalid("shape is no list of whole numbers from 1; give the shape of the data")
    check_count(shape[0], settings.max_images)
    if isinstance(parameters := tensor.get("parameters"), Mapping) and "binary_data_size" in parameters:
        raise Problem(415, "binary-tensors", "binary tensors are not offered; send `data` as JSON")
    if kind == "FP32":
        return list(_array(tensor.get("data"), shape, lane, settings))
    if kind == "BYTES":
        return _uploads(tensor.get("data"), shape)
    raise _invalid("datatype is not one that is taken; send FP32 [N, C, H, W] or BYTES [N]")


def _array(data: object, shape: list[int], lane: Lane, settings: Settings) -> np.ndarray:
    """(N, C, H, W) float32."""
    height, width = lane.fixed_size or ("H", "W")
    if len(shape) != 4 or shape[1] != lane.channels or (lane.fixed_size and tuple(shape[2:]) != lane.fixed_size):
        raise _invalid(f"shape is {shape[:8]}; {lane.name} expects FP32 [N, {lane.channels}, {height}, {width}]")
    if shape[2] * shape[3] > settings.max_pixels:
        detail = f"images of {shape[2]} x {shape[3]} pixels; at most {settings.max_pixels:,} are allowed"
        raise Problem(413, "too-many-pixels", f"{detail}; send smaller ones", limit_pixels=settings.max_pixels)
    try:
        numbers = np.asarray(data if isinstance(data, list) else [])
    except ValueError:  # of lists of different lengths
        numbers = np.asarray([])
    if numbers.dtype.kind not in "fiu" or numbers.size != np.prod(shape, dtype=np.int64):
        raise _invalid(f"data holds no {int(np.prod(shape, dtype=np.int64)):,} numbers, which the shape says")
    with np.errstate(over="ignore"):
        found = numbers.astype(np.float32).reshape(shape)
    if not np.isfinite(found).all():
        raise _invalid("data holds numbers that are not finite in float32; send finite ones")
    return found


def _uploads(data: object, shape: list[int]) -> list[np.ndarray | Upload]:
    texts = isinstance(data, list) and all(isinstance(each, str) for each in data)
    if len(shape) != 1 or not isinstance(data, list) or not texts or len(data) != shape[0]:
        raise _invalid("a BYTES tensor has shape [N] and N texts as data: the base64 of an image file each")
    return [Upload(f"image {number}", decoded(text)) for number, text in enumerate(data)]


def _asked(outputs: object, lane: Lane, *, encoded: bool) -> list[str]:
    """Names of the outputs: those that are asked for, else all of the network, or the results where it needs more."""
    known = [*lane.outputs] * (lane.batched or not encoded) + [RESULTS] * encoded
    if outputs is None or outputs == []:
        return [*lane.outputs] if lane.batched or not encoded else [RESULTS]
    entries = [each if isinstance(each, Mapping) else {} for each in (outputs if isinstance(outputs, list) else [{}])]
    names = [each.get("name") for each in entries]
    for name in names:
        if name not in known:
            shown = clean_name(name, 0) if isinstance(name, str) else "without a name"
            raise _invalid(f"unknown output {shown!r}; of such an input there are: {', '.join(known)}")
    if RESULTS in names and len(names) > 1:
        raise _invalid(f"ask for {RESULTS!r} by itself")
    if any(isinstance(each.get("parameters"), Mapping) and each["parameters"].get("binary_data") for each in entries):
        raise Problem(415, "binary-tensors", "binary outputs are not offered; leave binary_data out")
    return [str(name) for name in names]


def _invalid(detail: str) -> Problem:
    return Problem(422, "bad-inference", detail)


# ---- what is given


async def _outputs(service: Service, lane: Lane, asked: Infer, timing: Timing) -> list[dict[str, Any]]:
    if list(asked.outputs) == [RESULTS]:
        uploads = [each for each in asked.images if isinstance(each, Upload)]
        entries = await predicted(service, lane, lane.predictor, uploads, timing)
        for number, entry in enumerate(entries):
            if "error" in entry:
                error = entry["error"]
                raise Problem(error["status"], "unusable-image", f"image {number}: {error['detail']}")
        texts = [json.dumps({name: value for name, value in entry.items() if name != "name"}) for entry in entries]
        return [{"name": RESULTS, "datatype": "BYTES", "shape": [len(texts)], "data": texts}]
    found = await together([_raw(service, lane, each, number, timing) for number, each in enumerate(asked.images)])
    return await asyncio.get_running_loop().run_in_executor(service.bodies, partial(_tensors, found, asked.outputs))


def _raw(
    service: Service, lane: Lane, image: np.ndarray | Upload, number: int, timing: Timing
) -> Awaitable[dict[str, np.ndarray]]:
    """The network's outputs (1, …) by name for one image."""

    def prepare() -> np.ndarray:
        if isinstance(image, Upload):
            return encoded_input(image, lane, service.settings, number)
        return image

    return lane.submit(prepare, timing, tensor=True)


def encoded_input(upload: Upload, lane: Lane, settings: Settings, number: int) -> np.ndarray:
    """What the network gets of an encoded image, (C, H, W); raises Problem for one that cannot be used."""
    if isinstance(upload.data, Problem):
        raise upload.data
    check_image(upload.data, settings.max_pixels)
    try:
        image = source_of(upload.data, number, exif=lane.predictor.exif).open()
        return next(lane.predictor.processor.inputs(image))
    except DataError as error:
        raise unusable(f"image {number}: {error}") from None


def _tensors(found: Sequence[dict[str, np.ndarray]], names: Sequence[str]) -> list[dict[str, Any]]:
    outputs = []
    for name in names:
        try:
            array = np.concatenate([each[name] for each in found])
        except ValueError:
            raise _invalid(f"{name} has another shape for each image; send one image at a time") from None
        if not np.isfinite(array).all():
            raise _invalid("the network's output is not finite; send other numbers")
        outputs.append({"name": name, "datatype": "FP32", "shape": [*array.shape], "data": array.ravel().tolist()})
    return outputs
