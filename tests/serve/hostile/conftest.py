"""The services that get hostile requests; after each one they answer as before."""

import pytest  # what needs an extra is imported in the fixtures: the tests are skipped without it
from networks import tiny

import van


@pytest.fixture(scope="module")
def predictor():
    return van.Predictor(tiny().eval(), top=5)


@pytest.fixture(scope="module")
def served(predictor):
    from hostile_requests import MAX_BATCH, MAX_BYTES
    from running_service import running

    models = {"tiny": predictor, "other": predictor}
    with running(models, max_bytes=MAX_BYTES, max_batch=MAX_BATCH, timeout_s=20, latency_ms=20_000) as service:
        yield service


@pytest.fixture(scope="module")
def impatient(predictor):
    """A service that gives up after half a second."""
    from hostile_requests import MAX_BYTES
    from running_service import running

    with running({"tiny": predictor}, max_bytes=MAX_BYTES, timeout_s=0.5, latency_ms=20_000) as service:
        yield service


@pytest.fixture(autouse=True)
def still_answers(request):
    """Whatever a test did, nothing is left in flight and the next image gets its answer."""
    yield
    from hostile_requests import GOOD, post

    for name in ("served", "impatient"):
        if name in request.fixturenames:
            service = request.getfixturevalue(name)
            assert service.idle()
            assert service.client.get("/healthz").status_code == 200
            assert post(service, GOOD).status_code == 200
