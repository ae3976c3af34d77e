"""Bodies of strangers: JSON and multipart that are not as expected are a problem, not an error."""

import base64
import json

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    GOOD,
    MAX_BATCH,
    PICTURE,
    entry,
    post_json,
    problem,
    same,
    send_json,
    send_multipart,
)
from running_service import PROBLEM, request_bytes

JSON_BODIES = {
    "nothing": b"",
    "half": b'{"images": [',
    "not UTF-8": b'{"images": [{"name": "\xff\xfe", "data": ""}]}',
    "UTF-16": json.dumps({"images": []}).encode("utf-16"),
    "null": b"null",
    "number": b"1e999",
    "list": b"[]",
    "no images": b"{}",
    "empty list": b'{"images": []}',
    "images is text": b'{"images": "abc"}',
    "images is null": b'{"images": null}',
    "image is a number": b'{"images": [1]}',
    "image is null": b'{"images": [null]}',
    "data is a number": b'{"images": [{"data": 7}]}',
    "data is null": b'{"images": [{"data": null}]}',
    "data is a list": b'{"images": [{"data": ["aGk="]}]}',
    "no data": b'{"images": [{"name": "a.png"}]}',
    "name is a number": b'{"images": [{"name": 7, "data": "aGk="}]}',
    "unknown member": b'{"images": [{"data": "aGk=", "path": "/etc/passwd"}]}',
    "unknown member on top": b'{"images": [], "model": "other"}',
    "twice the same member": b'{"images": [], "images": [{"data": "aGk="}]}',
    "constructor": b'{"__proto__": {"a": 1}, "images": []}',
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"images":' * 20_000 + b"1" + b"}" * 20_000,
    "long number": b'{"images": [' + b"9" * 100_000 + b"]}",
    "NaN": b'{"images": [{"data": NaN}]}',
    "many images": json.dumps({"images": [{"data": ""}] * 5000}).encode(),
}


@pytest.mark.parametrize("name", JSON_BODIES)
def test_json_that_is_not_as_expected_is_a_problem(served, name):
    problem(send_json(served, JSON_BODIES[name]), 400, 413, 422)


@pytest.mark.parametrize(
    "text", ["%%%", "aGk", "aGk=\n", "a GVs bG8=", "====", "\u00e9", "-_-_", "data:,", "data:image/png;base64,!"]
)
def test_what_is_no_base64_is_a_problem(served, text):
    problem(post_json(served, {"images": [{"data": text}]}), 415, 422)


def test_bad_base64_among_good_images_is_an_entry_with_an_error(served, predictor):
    results = post_json(served, {"images": [entry(GOOD), {"name": "b", "data": "%%%"}]}).json()["results"]
    same(results[0], predictor(PICTURE))
    assert results[1]["error"]["status"] == 422


def part(content=GOOD, disposition='form-data; name="image"; filename="a.png"', more=""):
    return f"--b\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode("latin-1") + content + b"\r\n"


END = b"--b--\r\n"
MULTIPART = {
    "no boundary": (part() + END, "multipart/form-data"),
    "empty boundary": (part() + END, "multipart/form-data; boundary="),
    "another boundary": (part() + END, "multipart/form-data; boundary=c"),
    "very long boundary": (part() + END, "multipart/form-data; boundary=" + "b" * 5000),
    "no last boundary": (part(), None),
    "nothing": (b"", None),
    "only an end": (END, None),
    "no parts but text": (b"hello", None),
    "no disposition": (b"--b\r\nContent-Type: image/png\r\n\r\n" + GOOD + b"\r\n" + END, None),
    "no headers": (b"--b\r\n\r\n" + GOOD + b"\r\n" + END, None),
    "other field": (part(disposition='form-data; name="file"; filename="a.png"') + END, None),
    "field without a name": (part(disposition="form-data") + END, None),
    "half a header": (b"--b\r\nContent-Dispo", None),
    "long header": (part(more="X-Long: " + "x" * 50_000 + "\r\n") + END, None),
    "thousands of headers": (part(more="".join(f"X-{i}: 1\r\n" for i in range(5000))) + END, None),
    "thousands of parts": (part(b"") * 3000 + END, None),
    "one part too many": (part() * (MAX_BATCH + 1) + END, None),
    "encoded part": (part(base64.b64encode(GOOD), more="Content-Transfer-Encoding: base64\r\n") + END, None),
    "nested": (part(b"--c\r\n\r\n\r\n--c--", more="Content-Type: multipart/mixed; boundary=c\r\n") + END, None),
}


@pytest.mark.parametrize("name", MULTIPART)
def test_a_multipart_body_that_is_not_as_expected_is_a_problem(served, name):
    body, kind = MULTIPART[name]
    problem(send_multipart(served, body, *([kind] if kind else [])), 400, 413, 415, 422)


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "image/png", "application/x-www-form-urlencoded", "application/jsonp", "\x00/;;="]
)
def test_a_body_of_another_type_is_a_problem(served, kind):
    headers = {"Content-Type": kind}
    answer = served.raw(request_bytes(body=GOOD, headers=headers))
    assert answer.status in (400, 415), answer
    assert answer.headers["content-type"] == PROBLEM
