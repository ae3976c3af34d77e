"""The service keeps what its OpenAPI document says, for requests that schemathesis draws from it."""

import json

import pytest
from networks import tiny

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from running_service import running
from schemathesis import GenerationMode
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance
from served import base64_of, fields, picture, segmenter

import van

EXAMPLES = 25  # per operation and mode


@pytest.fixture(scope="module")
def service():
    # The application on a socket: schemathesis would end the lifespan of one that it calls directly.
    models = {"tiny": van.Predictor(tiny().eval()), "segmenter": van.Predictor(segmenter())}
    with running(models, max_bytes=200_000, max_batch=4, latency_ms=60_000) as found:
        yield found


def load(service, mode):
    """The document as schemathesis reads it, for right or wrong requests."""
    generation = GenerationConfig(modes=[mode])
    config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=generation)))
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json", config=config)


OPERATIONS = [
    "GET /healthz", "GET /metrics", "GET /readyz", "GET /v1/models", "POST /v1/predict", "GET /v2",
    "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/{name}", "POST /v2/models/{name}/infer",
    "GET /v2/models/{name}/ready",
]  # fmt: skip
RIGHT = [(operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
# Of the others there is no wrong request: they take no body and no parameter but a name.
WRONG = [(operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if operation.startswith("POST")]


def test_the_document_names_every_operation(service):
    document = service.client.get("/openapi.json").json()
    found = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert found == set(OPERATIONS)
    assert document["info"]["version"] == van.__version__
    assert document["openapi"].startswith("3.")
    json.dumps(document, allow_nan=False)


@pytest.mark.long
@pytest.mark.parametrize(("operation", "mode"), RIGHT + WRONG)
def test_answers_are_those_of_the_document(service, operation, mode):
    """No failure, only the statuses, bodies and headers it names, no wrong request that is taken as right."""
    method, path = operation.split()
    schema = load(service, mode)
    strategy = schema[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def check(case):
        # No schema can say what the base64 of an image is: such a request may be refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


@pytest.mark.parametrize("model", ["tiny", "segmenter"])
def test_answers_to_real_images_are_those_of_the_document(service, model):
    """What is drawn from a schema is never an image: these are."""
    predict = load(service, GenerationMode.POSITIVE)["/v1/predict"]["POST"]
    infer = load(service, GenerationMode.POSITIVE)["/v2/models/{name}/infer"]["POST"]
    good = base64_of(picture())
    tensor = {"name": "encoded", "shape": [1], "datatype": "BYTES", "data": [good]}
    url = f"/v1/predict?model={model}"
    mixed = service.client.post(url, json={"images": [{"name": "a", "data": good}, {"data": ""}]})
    answers = [
        (predict, service.client.post(url, files=fields(("a.png", picture()))), 200),
        (predict, mixed, 200),
        (predict, service.client.post(url, files=fields(("a.png", b""))), 422),
        (infer, service.client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]}), 200),
    ]
    for operation, answer, status in answers:
        assert answer.status_code == status, answer.text
        answer.request.read()
        operation.validate_response(answer)
