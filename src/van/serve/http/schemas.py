"""What the OpenAPI document says of each endpoint: a table of JSON schemas."""

from __future__ import annotations

from typing import Any

from .problems import MEDIA_TYPE

_TEXT, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": required | optional, "required": list(required)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


PROBLEM = _object({"type": _TEXT, "title": _TEXT, "status": _INTEGER, "detail": _TEXT})
_RETRY = {"Retry-After": {"description": "seconds until it is worth another try", "schema": {"type": "integer"}}}
_CLASS = _object({"label": _TEXT, "index": _INTEGER, "probability": _NUMBER})
_BAD = _object({"name": _TEXT, "error": PROBLEM})
_GOOD = _object({"name": _TEXT}, label=_TEXT, index=_INTEGER, probability=_NUMBER, top=_list(_CLASS), mask=_TEXT)
_WHAT = {
    400: "the request cannot be understood",
    401: "a token is needed",
    404: "there is no such model",
    408: "the request did not arrive in time",
    413: "too many bytes, pixels or images",
    415: "a kind of body or image that is not taken",
    422: "what was sent cannot be used",
    500: "the service failed",
    503: "the service is loading, ending, or has no room",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"description": _WHAT[status], "content": {MEDIA_TYPE: {"schema": PROBLEM}}}
        if status == 503:
            found[status]["headers"] = _RETRY
    return found


def _answers(schema: dict[str, Any], description: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    good = {"description": description, "content": {"application/json": {"schema": schema}}}
    return {200: good, **_problems(*statuses)}


_IMAGE = _object({"data": {"type": "string", "minLength": 1, "contentEncoding": "base64"}}, name=_TEXT)
_IMAGE["additionalProperties"] = False


def _body_of_images(most: int) -> dict[str, Any]:
    """The body of a request for predictions, of one to `most` images."""
    bounds = {"minItems": 1, "maxItems": most}
    files = _object({"image": {**_list({"type": "string", "format": "binary"}), **bounds}})
    images = _object({"images": {**_list(_IMAGE), **bounds}}) | {"additionalProperties": False}
    content = {"multipart/form-data": {"schema": files}, "application/json": {"schema": images}}
    return {"required": True, "content": content}


def predict(most: int) -> dict[str, Any]:
    """The endpoint that predicts at most `most` images a request."""
    return _PREDICT | {"openapi_extra": {"requestBody": _body_of_images(most)}}


_PREDICT: dict[str, Any] = {
    "summary": "Predict images with a model of any task",
    "description": "Fields `image`, repeated, or base64 in JSON. One entry per image, in order; an image that cannot "
    "be used is an entry with `error`. A request of nothing but such images is a 4xx.",
    "responses": _answers(
        _object({"model": _TEXT, "results": _list({"anyOf": [_BAD, _GOOD]})}),
        "results in the order of the images",
        *(400, 401, 404, 408, 413, 415, 422, 500, 503),
    ),
}
_MODEL = _object(
    {
        "name": _TEXT,
        "task": _TEXT,
        "runtime": _TEXT,
        "num_classes": _INTEGER,
        "classes": _list(_TEXT),
        "batched": {"type": "boolean"},
    }
)
MODELS: dict[str, Any] = {
    "summary": "The models, the default first",
    "responses": _answers(_object({"models": _list(_MODEL)}), "the models", 401, 500, 503),
}
HEALTH: dict[str, Any] = {
    "summary": "Whether the service lives, or takes requests",
    "responses": _answers(_object({"status": _TEXT}, models=_list(_TEXT)), "it does", 503),
}
METRICS: dict[str, Any] = {
    "summary": "Counts and times for Prometheus",
    "responses": {200: {"description": "all numbers", "content": {"text/plain": {"schema": _TEXT}}}},
}

V2_SERVER: dict[str, Any] = {
    "summary": "What this server is",
    "responses": _answers(_object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}), "it", 401, 503),
}
V2_LIVE: dict[str, Any] = {
    "summary": "Whether the service lives",
    "responses": _answers(_object({"live": {"type": "boolean"}}), "it does", 503),
}
V2_READY: dict[str, Any] = {
    "summary": "Whether the service takes requests",
    "responses": _answers(_object({"ready": {"type": "boolean"}}), "it does", 503),
}
_SHAPE = _list(_INTEGER)
_DECLARED = _object({"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE})
V2_MODEL: dict[str, Any] = {
    "summary": "What goes into a model and comes out",
    "responses": _answers(
        _object({"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT}, inputs=_list(_DECLARED))
        | {"additionalProperties": True},
        "inputs and outputs: names, types, shapes with -1 for any size",
        *(401, 404, 503),
    ),
}
V2_MODEL_READY: dict[str, Any] = {
    "summary": "Whether a model takes requests",
    "responses": _answers(_object({"name": _TEXT, "ready": {"type": "boolean"}}), "it does", 401, 404, 503),
}
_SIDES = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
_DATA: dict[str, Any] = {"type": "array", "minItems": 1}
_SENT = _object(
    {"name": _TEXT, "datatype": {"enum": ["FP32", "BYTES"]}, "shape": _SIDES, "data": _DATA},
    parameters={"type": "object"},
)
_GIVEN = _object({"name": _TEXT, "datatype": {"enum": ["FP32", "BYTES"]}, "shape": _SHAPE, "data": _DATA})
_ASKED = _object({"name": _TEXT}, parameters={"type": "object"})
V2_INFER: dict[str, Any] = {
    "summary": "Run a model: FP32 [N, C, H, W], or BYTES [N] with the base64 of image files",
    "description": "JSON only; the binary extension is not offered. Output `results`, of BYTES only: a JSON text per "
    "image, as /v1/predict gives it.",
    "responses": _answers(
        _object({"model_name": _TEXT, "outputs": _list(_GIVEN)}, id=_TEXT, model_version=_TEXT),
        "the outputs that were asked for, or all of the network",
        *(400, 401, 404, 408, 413, 415, 422, 500, 503),
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _object(
                        {"inputs": {**_list(_SENT), "minItems": 1, "maxItems": 1}},
                        id={"type": "string", "maxLength": 128},
                        parameters={"type": "object"},
                        outputs=_list(_ASKED),
                    )
                }
            },
        }
    },
}
