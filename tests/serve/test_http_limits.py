"""What bounds the service: bytes, pixels, images, places, time, tokens."""

import asyncio
import struct
import threading
import zlib

import pytest
from served import Held, base64_of, fields, picture, serving, wait_until

from van.errors import ConfigError
from van.serve.http import uploads
from van.serve.http.admission import Admission, Places
from van.serve.http.problems import Problem
from van.serve.http.settings import Settings, read_token


def huge_png(width, height):
    """A PNG whose header declares so many pixels, with next to no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def client():
    with serving(max_bytes=60_000, max_pixels=50 * 50, max_batch=3) as client:
        yield client


@pytest.mark.parametrize("size", [(50_000, 50_000), (51, 50)])
def test_too_many_pixels_are_refused_before_decoding(client, size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    answer = client.post("/v1/predict", files=fields(("a.png", huge_png(*size))))
    assert answer.status_code == 413
    assert answer.json()["limit_pixels"] == 2500
    assert f"{size[0] * size[1]:,} pixels" in answer.json()["detail"]


def test_an_image_at_the_limit_of_pixels_is_taken(client):
    assert client.post("/v1/predict", files=fields(("a", picture(size=(50, 50))))).status_code == 200


def test_a_body_beyond_the_limit_is_refused(client):
    answer = client.post("/v1/predict", files=fields(("a", bytes(61_000))))
    assert (answer.status_code, answer.json()["limit_bytes"]) == (413, 60_000)


@pytest.mark.parametrize("declared", [None, b"10"])
def test_bytes_are_counted_whatever_the_header_says(client, declared):
    headers = [(b"content-type", b"application/json")] + ([(b"content-length", declared)] if declared else [])
    sent = asked(client, headers, [bytes(20_000)] * 4)
    assert sent[0]["status"] == 413


def test_a_length_that_is_no_number_is_refused(client):
    assert asked(client, [(b"content-length", b"ten")], [b""])[0]["status"] == 400


def test_more_images_than_the_limit_are_refused(client):
    assert client.post("/v1/predict", files=fields(*[("a", picture())] * 4)).status_code == 413
    images = [{"data": base64_of(picture())}] * 4
    assert client.post("/v1/predict", json={"images": images}).json()["limit_images"] == 3


def test_a_body_that_does_not_arrive_is_refused_in_time():
    with serving(timeout_s=0.2) as client:
        sent = asked(client, [(b"content-type", b"application/json"), (b"content-length", b"9")], [b"{"], ends=False)
        assert sent[0]["status"] == 408
        assert client.service.budget.used == 0


def test_what_takes_too_long_is_given_up_and_its_place_is_free_again():
    held = Held()
    with serving({"held": held.model}, timeout_s=0.3) as client:
        held.go.clear()
        answer = client.post("/v1/predict", files=fields(("a", picture())))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        held.go.set()
        wait_until(lambda: client.service.places.taken == 0)
        assert client.post("/v1/predict", files=fields(("a", picture()))).status_code == 200


def test_a_full_queue_refuses_with_retry_after_and_what_was_accepted_is_answered():
    held, statuses = Held(), []
    with serving({"held": held.model}, max_queue=2, latency_ms=1e6) as client:
        held.go.clear()
        post = lambda: statuses.append(client.post("/v1/predict", files=fields(("a", picture()))).status_code)  # noqa: E731
        threads = [threading.Thread(target=post) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: client.service.places.taken == 2)
        answer = client.post("/v1/predict", files=fields(("a", picture())))
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) >= 1
        held.go.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200]
        assert client.service.places.taken == 0


def test_what_would_take_longer_than_the_bound_is_refused():
    held, statuses = Held(), []
    with serving({"held": held.model}, latency_ms=1000) as client:
        held.go.clear()
        post = lambda: statuses.append(client.post("/v1/predict", files=fields(("a", picture()))).status_code)  # noqa: E731
        thread = threading.Thread(target=post)
        thread.start()
        admission = client.service.lanes["held"].admission
        wait_until(lambda: admission.pending == 1)
        admission.run.value = 0.6  # two images would be 1.2 s
        answer = client.post("/v1/predict", files=fields(("a", picture())))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        held.go.set()
        thread.join()
        assert statuses == [200]


def test_a_client_that_goes_away_frees_its_place():
    held = Held()
    with serving({"held": held.model}, latency_ms=1e6) as client:
        held.go.clear()
        body = b'{"images": [{"data": "' + base64_of(picture()).encode() + b'"}]}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        sent = asked(client, headers, [body], gone=lambda: client.service.places.taken == 1)
        assert sent == []
        assert client.service.places.taken == client.service.requests == 0
        held.go.set()


def test_what_waits_for_a_client_that_went_away_does_not_run():
    held = Held()
    with serving({"held": held.model}, latency_ms=1e6) as client:
        before = len(held.runs)
        held.go.clear()
        statuses = []
        first = threading.Thread(
            target=lambda: statuses.append(client.post("/v1/predict", files=fields(("a", picture()))).status_code)
        )
        first.start()
        wait_until(lambda: len(held.runs) == before + 1)
        body = b'{"images": [{"data": "' + base64_of(picture()).encode() + b'"}]}'
        lane = client.service.lanes["held"]
        decoded = lambda: (lane.admission.pending, lane.admission.unprepared) == (2, 0)  # noqa: E731
        asked(client, [(b"content-type", b"application/json")], [body], gone=decoded)
        held.go.set()
        first.join()
    assert statuses == [200]
    assert len(held.runs) == before + 1


def asked(client, headers, parts, *, ends=True, gone=None):
    """What the application sends for a request whose body arrives in these parts, and perhaps never ends.

    gone: the client goes away once that is so.
    """
    sent = []

    async def receive():
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts) or not ends}
        while not (gone and gone()):
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict"}
    scope |= {"query_string": b"", "headers": headers, "client": ("c", 1), "server": ("s", 1), "scheme": "http"}
    client.portal.call(client.app, scope | {"root_path": "", "state": {}}, receive, send)
    return sent


class TestAdmission:
    def admission(self, **options):
        return Admission(Places(10), latency_s=1.0, readers=2)

    def test_an_idle_model_accepts_whatever_it_takes(self):
        admission = self.admission()
        admission.run.update(5.0)
        admission.enter(1)
        with pytest.raises(Problem):
            admission.enter(1)

    def test_the_next_is_accepted_while_all_would_be_done_in_time(self):
        admission = self.admission()
        admission.run.update(0.3)
        for _ in range(3):
            admission.enter(1)
        with pytest.raises(Problem, match=r"1\.20 s"):
            admission.enter(1)
        admission.prepared()
        admission.leave()
        admission.enter(1)

    def test_decoding_counts_too(self):
        admission = self.admission()
        admission.prepare.update(0.4)
        for _ in range(2):
            admission.enter(1)
        with pytest.raises(Problem):
            admission.enter(2)

    def test_places_are_shared(self):
        places = Places(3)
        one, two = (Admission(places, latency_s=1.0, readers=1) for _ in range(2))
        one.enter(2)
        with pytest.raises(Problem, match="all 3 places"):
            two.enter(2)
        two.enter(1)


@pytest.fixture(scope="module")
def guarded():
    with serving(token="s3cret") as client:
        yield client


class TestToken:
    @pytest.mark.parametrize(
        "shown", [None, "", "Bearer", "Bearer wrong", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer s3cre\xe9"]
    )
    def test_without_the_token_nothing_is_answered(self, guarded, shown):
        headers = {} if shown is None else {"authorization": shown.encode("latin-1")}
        for path in ("/v1/models", "/v2", "/nothing"):
            answer = guarded.get(path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

    def test_with_the_token_it_is(self, guarded):
        assert guarded.get("/v1/models", headers={"authorization": "Bearer s3cret"}).status_code == 200

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"])
    def test_health_and_metrics_need_none(self, guarded, path):
        assert guarded.get(path).status_code == 200

    def test_it_is_in_no_log(self, guarded):
        guarded.get("/v1/models", headers={"authorization": "Bearer s3cret"})
        assert "s3cret" not in guarded.logged.getvalue()


class TestTokenFile:
    def test_the_token_is_read_without_white_space(self, tmp_path):
        (tmp_path / "token").write_text("\nabc-123\n")
        assert read_token(tmp_path / "token") == "abc-123"

    @pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"caf\xc3\xa9", b"a" * 5000, b"a\nb"])
    def test_what_is_no_token_is_refused(self, tmp_path, content):
        (tmp_path / "token").write_bytes(content)
        with pytest.raises(ConfigError, match="token"):
            read_token(tmp_path / "token")

    def test_a_file_that_cannot_be_read_is_refused(self, tmp_path):
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(ConfigError, match="token file"):
                read_token(path)


@pytest.mark.parametrize(
    "bounds",
    [
        *({name: 0} for name in ("max_bytes", "max_pixels", "max_batch", "max_queue", "latency_ms", "timeout_s")),
        {"latency_ms": float("nan")},
        {"timeout_s": float("inf")},
        {"max_pixels": 10**9},
    ],
)
def test_bounds_that_cannot_be_are_refused(bounds):
    with pytest.raises(ConfigError, match=next(iter(bounds))):
        Settings(**bounds)


def test_bodies_of_all_requests_together_are_bounded():
    with serving(max_bytes=10_000) as client:
        client.service.budget.used = 80_000 - 100
        answer = client.post("/v1/predict", files=fields(("a", bytes(5_000))))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        client.service.budget.used = 0
        assert client.post("/v1/predict", files=fields(("a", bytes(5_000)))).status_code == 415


def test_base64_may_not_be_padded_with_other_characters():
    assert uploads.decoded(base64_of(b"hello")) == b"hello"
    assert isinstance(uploads.decoded("aGVsbG8=\n%"), Problem)
