"""A service with a token: without it nothing is done."""

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    GOOD,
    INFER,
    JSON_BODY,
)
from running_service import request_bytes, running

TOKEN = "correct-horse"
WRONG = [
    None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
    f"Bearer{TOKEN}", f"Bearer {TOKEN} {TOKEN}", "Bearer \xe9", f"Bearer {TOKEN.upper()}", "Bearer " + "x" * 10_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(predictor):
    with running({"tiny": predictor}, token=TOKEN, latency_ms=20_000) as service:
        yield service


@pytest.mark.parametrize("shown", WRONG, ids=range(len(WRONG)))
def test_without_the_token_nothing_is_done(guarded, shown):
    for path, method in [("/v1/predict", "POST"), ("/v1/models", "GET"), (INFER, "POST"), ("/v2", "GET")]:
        sent = request_bytes(path, method=method, body=JSON_BODY, headers={"Authorization": shown})
        answer = guarded.raw(sent)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN.encode() not in answer.content
    assert TOKEN not in guarded.log.getvalue()


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Bearer  {TOKEN} "])
def test_with_the_token_it_is_done(guarded, shown):
    assert guarded.raw(request_bytes(body=JSON_BODY, headers={"Authorization": shown})).status == 200


def test_a_second_token_does_not_help(guarded):
    two = f"Bearer wrong\r\nAuthorization: Bearer {TOKEN}"
    assert guarded.raw(request_bytes(body=JSON_BODY, headers={"Authorization": two})).status in (200, 400, 401)
    hidden = guarded.client.post(f"/v1/predict?token={TOKEN}&access_token={TOKEN}", files={"image": GOOD})
    assert hidden.status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v2/health/live"])
def test_those_who_watch_need_no_token(guarded, path):
    assert guarded.client.get(path).status_code == 200
