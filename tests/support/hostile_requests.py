"""Requests of strangers, and what every answer to them is held to."""

import base64
import json

import pytest
from hostile_images import encoded, picture
from running_service import PROBLEM, request_bytes

MAX_BYTES, MAX_BATCH = 500_000, 4  # of the service that gets them
INFER = "/v2/models/tiny/infer"
PICTURE = picture()
GOOD = encoded(PICTURE)


def post(service, *images, names=None, kind="application/octet-stream", **options):
    names = names or [f"{i}.png" for i in range(len(images))]
    files = [("image", (name, image, kind)) for name, image in zip(names, images, strict=True)]
    return service.client.post("/v1/predict", files=files, **options)


def post_json(service, value, path="/v1/predict", **options):
    return service.client.post(path, json=value, **options)


def entry(content, name="a.png"):
    return {"name": name, "data": base64.b64encode(content).decode()}


def same(found, output):
    """Whether an entry of the service is a result of the Predictor."""
    expected = output.to_dict()
    assert found["label"] == expected["label"]
    assert found["probability"] == pytest.approx(expected["probability"], rel=1e-4)
    assert [each["label"] for each in found["top"]] == [each["label"] for each in expected["top"]]


def problem(response, *statuses):
    """The problem in a response of one of these statuses; every one says what to do."""
    assert response.status_code in statuses, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == PROBLEM
    found = response.json()
    assert found["status"] == response.status_code
    assert {"type", "title", "detail"} <= set(found)
    assert len(found["detail"]) > 20
    assert "\n" not in found["detail"]
    return found


def send_json(service, body, **headers):
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.post("/v1/predict", content=body, headers=sent)


def send_multipart(service, body, kind="multipart/form-data; boundary=b", **options):
    return service.client.post("/v1/predict", content=body, headers={"content-type": kind}, **options)


def whole(body=b"", **headers):
    return request_bytes(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


JSON_BODY = json.dumps({"images": [entry(GOOD)]}).encode()
