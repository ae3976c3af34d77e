"""Health, readiness, metrics, ids and logs."""

import json
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import classifier, fields, picture, serving, wait_until
from starlette.testclient import TestClient

import van
from van.serve.http.app import create_app
from van.serve.http.service import Service


@pytest.fixture(scope="module")
def client():
    with serving() as client:
        yield client


def numbers(client):
    text = client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_a_service_lives_before_it_is_ready():
    opened, go = {"tiny": van.Predictor(classifier())}, threading.Event()
    service = Service(lambda: go.wait(20) and opened)
    with TestClient(create_app(service)) as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/readyz", "/v2/health/ready", "/v1/models"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        go.set()
        wait_until(lambda: service.ready)
        assert client.get("/readyz").json() == {"status": "ready", "models": ["tiny"]}


def test_a_service_whose_models_cannot_be_opened_is_broken():
    def fail():
        raise van.VanError("no such file")

    with TestClient(create_app(service := Service(fail))) as client:
        wait_until(lambda: service.failed is not None)
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 503


def test_a_service_that_ends_refuses_what_is_new_and_says_so():
    with serving() as client:
        client.service.draining = True
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        answer = client.post("/v1/predict", files=fields(("a", picture())))
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert int(answer.headers["retry-after"]) >= 1


def test_metrics_count_requests_images_and_batches(client):
    before = numbers(client)
    client.post("/v1/predict", files=fields(("a", picture()), ("b", b"x")))
    client.get("/v1/nothing/here")
    after = numbers(client)

    def more(*key):
        return after[key] - before.get(key, 0)

    assert more("van_requests_total", "POST", "/v1/predict", "200") == 1
    assert more("van_requests_total", "GET", "other", "404") == 1
    assert more("van_images_total", "tiny", "done") == more("van_images_total", "tiny", "bad") == 1
    assert more("van_batch_images_sum", "tiny") == 1
    assert after["van_pending_images", "tiny"] == 0


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2:3", True), ("a b", False), ("x" * 200, False), ("é", False)])
def test_a_sane_request_id_is_given_back_and_another_replaced(client, given, kept):
    got = client.get("/v1/models", headers={"x-request-id": given.encode("latin-1")}).headers["x-request-id"]
    assert (got == given) is kept
    assert got.isascii()
    assert 0 < len(got) <= 128


def test_a_request_is_one_line_of_json_without_names_or_content(client):
    start = len(client.logged.getvalue())
    client.post("/v1/predict?top=1", files=fields(("secret-name.png", picture())), headers={"x-request-id": "r1"})
    (line,) = client.logged.getvalue()[start:].splitlines()
    entry = json.loads(line)
    assert (entry["id"], entry["path"], entry["status"], entry["model"]) == ("r1", "/v1/predict", 200, "tiny")
    assert entry["images"] == 1
    assert entry["bytes"] > len(picture())
    assert entry["ms"] >= entry["run_ms"] > 0
    assert "secret" not in line


def test_an_error_of_ours_is_a_500_whose_log_has_the_id(client, monkeypatch):
    monkeypatch.setattr("van.serve.http.predict.describe", lambda lane: 1 / 0)
    answer = client.get("/v1/models", headers={"x-request-id": "r2"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "division" not in answer.text
    entries = [json.loads(line) for line in client.logged.getvalue().splitlines()]
    assert [each["error"] for each in entries if each["event"] == "error" and each["id"] == "r2"] == [
        "ZeroDivisionError"
    ]


def test_images_that_fail_together_are_run_one_by_one():
    model = classifier()
    model.register_forward_pre_hook(lambda module, inputs: 1 / 0 if len(inputs[0]) > 1 else None)
    with serving({"tiny": model}, latency_ms=20_000) as client:
        images = [(str(n), picture(n)) for n in range(4)]
        results = client.post("/v1/predict", files=fields(*images)).json()["results"]
        assert [each["label"] for each in results] == [client.opened["tiny"](data).label for _, data in images]


def test_a_network_that_fails_is_a_500_and_the_service_goes_on():
    model = classifier()
    failing = [True]
    model.register_forward_pre_hook(lambda *_: 1 / 0 if failing[0] else None)
    failing[0] = False
    with serving({"tiny": model}) as client:
        failing[0] = True
        assert client.post("/v1/predict", files=fields(("a", picture()))).status_code == 500
        failing[0] = False
        assert client.post("/v1/predict", files=fields(("a", picture()))).status_code == 200
        assert client.service.places.taken == 0
