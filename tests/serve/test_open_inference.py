"""The Open Inference Protocol: tensors and encoded images in, the network's outputs or results out."""

import json

import numpy as np
import pytest
from served import base64_of, classifier, image_of, picture, segmenter, serving


@pytest.fixture(scope="module")
def client():
    with serving({"tiny": classifier(), "seg": segmenter()}, max_batch=4) as client:
        yield client


def infer(client, model, tensor, **more):
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [{"name": "images", **tensor}], **more})


def fp32(array):
    return {"datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}


def encoded(*images):
    return {
        "name": "encoded",
        "datatype": "BYTES",
        "shape": [len(images)],
        "data": [base64_of(each) for each in images],
    }


def output(answer, name):
    assert answer.status_code == 200, answer.text
    (found,) = (each for each in answer.json()["outputs"] if each["name"] == name)
    return np.array(found["data"], np.float32).reshape(found["shape"])


def test_a_tensor_gives_the_logits_of_the_network(client):
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 40)).astype(np.float32)
    wanted = client.opened["tiny"].opened.engine.run(images)["logits"]
    answer = infer(client, "tiny", fp32(images), id="mine")
    assert np.allclose(output(answer, "logits"), wanted, atol=1e-5)
    assert (answer.json()["model_name"], answer.json()["id"]) == ("tiny", "mine")


def test_nested_data_is_a_tensor_too(client):
    images = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
    nested = fp32(images) | {"data": images.tolist()}
    assert np.array_equal(*(output(infer(client, "tiny", each), "logits") for each in (nested, fp32(images))))


def test_an_encoded_image_is_prepared_as_the_checkpoint_asks_for(client):
    data, predict = picture(2), client.opened["tiny"]
    wanted = predict.opened.engine.run(predict.prepare(data).content[None])["logits"]
    assert np.allclose(output(infer(client, "tiny", encoded(data)), "logits"), wanted, atol=1e-5)


@pytest.mark.parametrize("asked", [{"outputs": [{"name": "results"}]}, {}])
def test_a_segmenter_gives_its_result_for_encoded_images(client, asked):
    answer = infer(client, "seg", encoded(picture(1), picture(2)), **asked)
    (results,) = answer.json()["outputs"]
    assert (results["name"], results["datatype"], results["shape"]) == ("results", "BYTES", [2])
    for text, data in zip(results["data"], (picture(1), picture(2)), strict=True):
        assert np.array_equal(np.asarray(image_of(json.loads(text)["mask"])), client.opened["seg"](data).mask)


def test_metadata_names_what_goes_in_and_comes_out(client):
    found = client.get("/v2/models/seg").json()
    assert [(each["name"], each["datatype"], each["shape"]) for each in found["inputs"]] == [
        ("images", "FP32", [-1, 3, -1, -1]),
        ("encoded", "BYTES", [-1]),
    ]
    assert {each["name"]: each["shape"] for each in found["outputs"]} == {"logits": [-1, 3, -1, -1], "results": [-1]}
    assert client.get("/v2").json()["name"] == "van"
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert client.get("/v2/models/nothing").status_code == 404


GOOD = fp32(np.zeros((1, 3, 32, 32), np.float32))


@pytest.mark.parametrize(
    ("tensor", "status"),
    [
        ({}, 422),
        (GOOD | {"datatype": "INT64"}, 422),
        (GOOD | {"shape": [1, 3, 32]}, 422),
        (GOOD | {"shape": [1, 1, 32, 96]}, 422),
        (GOOD | {"shape": [1, 3, 32, 33]}, 422),
        (GOOD | {"shape": [1, 3, 0, 32]}, 422),
        (GOOD | {"shape": [1, 3, 2**40, 32]}, 422),
        (GOOD | {"shape": [1, 3, 2**20, 2**10]}, 413),
        (GOOD | {"shape": [5, 3, 32, 32]}, 413),
        (GOOD | {"shape": [True, 3, 32, 32]}, 422),
        (GOOD | {"data": ["0"] * 3072}, 422),
        (GOOD | {"data": [[0], [0, 0]]}, 422),
        (GOOD | {"data": [1e300] * 3072}, 422),
        (GOOD | {"data": None}, 422),
        (GOOD | {"parameters": {"binary_data_size": 12}}, 415),
        ({"datatype": "BYTES", "shape": [1], "data": ["?"]}, 422),
        ({"datatype": "BYTES", "shape": [2], "data": ["aaaa"]}, 422),
        ({"datatype": "BYTES", "shape": [1], "data": [base64_of(b"no image")]}, 415),
    ],
)
def test_a_tensor_that_cannot_be_is_a_problem(client, tensor, status):
    answer = infer(client, "tiny", tensor)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text


@pytest.mark.parametrize(
    "more", [{"outputs": [{"name": "nothing"}]}, {"outputs": [{"name": "results"}]}, {"outputs": "a"}, {"id": 7}]
)
def test_what_cannot_be_asked_for_is_a_problem(client, more):
    assert infer(client, "tiny", GOOD, **more).status_code == 422


def test_the_binary_form_is_refused(client):
    headers = {"inference-header-content-length": "10", "content-type": "application/json"}
    assert client.post("/v2/models/tiny/infer", content=b"{}", headers=headers).status_code == 415


def test_an_output_that_is_not_finite_is_a_problem(client):
    assert infer(client, "tiny", GOOD | {"data": [1e38] * 3072}).status_code == 422
