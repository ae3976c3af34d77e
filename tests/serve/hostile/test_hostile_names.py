"""Names of strangers' images: given back safe to show, never opened, never logged."""

import json

import pytest
from hostile_images import (
    encoded,
    picture,
)

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    GOOD,
    PICTURE,
    entry,
    post,
    post_json,
    problem,
    same,
    send_json,
    send_multipart,
)

NAMES = {
    "traversal": "../../../../etc/passwd",
    "absolute": "/etc/shadow",
    "backslashes": "..\\..\\windows\\system32\\a.png",
    "control characters": "a\x00b\x1b[31mc\r\nX-Evil: 1\td\x7f",
    "turned text": "a\u202egnp.exe",
    "10,000 characters": "x" * 10_000,
    "emoji": "🐈" * 50,
    "markup": "<script>alert(1)</script>",
    "template": "{{7*7}}%s%n${jndi:ldap://x}",
    "half of a pair": "\ud800",
    "none": "",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_given_back_safe_to_show_and_is_no_path(served, predictor, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = json.dumps({"images": [entry(GOOD, NAMES[name])]}).encode()
    response = send_json(served, body)
    if name == "half of a pair":
        problem(response, 400, 422)
    else:
        found = response.json()["results"][0]
        same(found, predictor(PICTURE))
        assert found["name"].isprintable()
        assert 0 < len(found["name"]) <= 200
    assert list(tmp_path.iterdir()) == []


def test_a_path_or_an_address_is_not_opened(served, tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(GOOD)
    for text in (str(path), f"file://{path}", f"http://127.0.0.1:{served.port}/healthz"):
        problem(post_json(served, {"images": [{"name": str(path), "data": text}]}), 422)
        problem(post(served, text.encode(), names=[str(path)]), 415, 422)


def test_a_name_in_a_multipart_header_cannot_make_another_header(served):
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a\x00\x0b\x85.png"\r\n\r\n'
    response = send_multipart(served, head + GOOD + b"\r\n--b--\r\n")
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        assert response.json()["results"][0]["name"].isprintable()


def test_images_of_the_same_name_are_answered_each_for_itself(served, predictor):
    other = encoded(picture(seed=3))
    results = post(served, GOOD, other, GOOD, names=["a", "a", "a"]).json()["results"]
    assert [each["name"] for each in results] == ["a", "a", "a"]
    for found, image in zip(results, [PICTURE, picture(seed=3), PICTURE], strict=True):
        same(found, predictor(image))


def test_the_log_holds_neither_names_nor_content_of_images(served):
    post(served, GOOD, b"secret content", names=["secret-name.png", "b"])
    post_json(served, {"images": [entry(b"secret content", "secret-name.png")]})
    assert served.idle()
    assert '"event": "request"' in served.log.getvalue()
    assert "secret" not in served.log.getvalue()
