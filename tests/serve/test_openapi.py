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
from schemathesis.config import ChecksConfig, GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from served import base64_of, fields, picture, segmenter

import van

EXAMPLES = 25  # per operation and mode
MOST_IMAGES = 4
# Of the statuses below 500 these say nothing of what was sent.
TOKEN, TIME = "401", "408"


@pytest.fixture(scope="module")
def service():
    # The application on a socket: schemathesis would end the lifespan of one that it calls directly.
    models = {"tiny": van.Predictor(tiny().eval()), "segmenter": van.Predictor(segmenter())}
    with running(models, max_bytes=200_000, max_batch=MOST_IMAGES, latency_ms=60_000) as found:
        yield found


def load(service, operation, mode):
    """The operation as schemathesis reads it in the document, for right or wrong requests."""
    method, path = operation.split()
    rejection = {"expected-statuses": refusals(service, operation)}
    project = ProjectConfig(
        generation=GenerationConfig(modes=[mode]), checks=ChecksConfig.from_dict({"negative_data_rejection": rejection})
    )
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json", config=config)[path][method]


def refusals(service, operation):
    """The statuses with which, by the document, a request is refused for what it holds."""
    method, path = operation.split()
    responses = service.client.get("/openapi.json").json()["paths"][path][method.lower()]["responses"]
    return sorted({status for status in responses if status.startswith("4")} - {TOKEN, TIME})


def drawing(examples):
    """How many cases are drawn: always the same ones."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


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
    strategy = load(service, operation, mode).as_strategy(generation_mode=mode)

    @drawing(EXAMPLES)
    @given(case=strategy)
    def check(case):
        # No schema can say what the base64 of an image is: such a request may be refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


@pytest.mark.parametrize(("operation", "mode"), WRONG)
def test_a_wrong_request_that_is_taken_as_right_would_be_found(service, operation, mode):
    """So the statuses that are accepted for wrong requests are those of refusals alone."""
    assert refusals(service, operation) == ["400", "404", "413", "415", "422"]
    taken = service.client.post("/v1/predict?model=tiny", files=fields(("a.png", picture())))
    assert taken.status_code == 200
    taken.request.read()
    found = []

    @drawing(5)
    @given(case=load(service, operation, mode).as_strategy(generation_mode=mode))
    def check(case):
        try:
            case.validate_response(taken, checks=[negative_data_rejection])
        except FailureGroup as failures:
            found.extend(failures.exceptions)

    check()
    assert found


@pytest.mark.parametrize(("kind", "name"), [("multipart/form-data", "image"), ("application/json", "images")])
def test_the_document_says_how_many_images_a_request_may_hold(service, kind, name):
    document = service.client.get("/openapi.json").json()
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    images = content[kind]["schema"]["properties"][name]
    assert (images["minItems"], images["maxItems"]) == (1, MOST_IMAGES)
    good = base64_of(picture())
    for count, status in ((MOST_IMAGES, 200), (MOST_IMAGES + 1, 413)):
        files = fields(*((f"{i}.png", picture()) for i in range(count)))
        body = {"json": {"images": [{"data": good}] * count}} if name == "images" else {"files": files}
        assert service.client.post("/v1/predict", **body).status_code == status


@pytest.mark.parametrize("model", ["tiny", "segmenter"])
def test_answers_to_real_images_are_those_of_the_document(service, model):
    """What is drawn from a schema is never an image: these are."""
    predict = load(service, "POST /v1/predict", GenerationMode.POSITIVE)
    infer = load(service, "POST /v2/models/{name}/infer", GenerationMode.POSITIVE)
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
