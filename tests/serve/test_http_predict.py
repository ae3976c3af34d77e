"""`POST /v1/predict` and `GET /v1/models`: results, and what is wrong with a request."""

import json

import numpy as np
import pytest
from served import CLASSES, base64_of, classifier, fields, image_of, picture, segmenter, serving

from van.serve.http.service import model_names

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def client():
    with serving({"tiny": classifier(), "seg": segmenter(), "other": classifier(seed=1)}) as client:
        yield client


def problem_of(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:")
    assert problem["title"]
    assert problem["detail"]
    return problem


def test_several_files_get_what_the_predictor_gives_in_their_order(client):
    images = [(f"{seed}.png", picture(seed)) for seed in range(3)]
    answer = client.post("/v1/predict?top=2", files=fields(*images))
    assert answer.status_code == 200
    assert answer.json()["model"] == "tiny"
    for (name, data), got in zip(images, answer.json()["results"], strict=True):
        wanted = client.opened["tiny"](data)
        assert (got["name"], got["label"]) == (name, wanted.label)
        assert got["probability"] == pytest.approx(wanted.probability, abs=1e-5)
        assert [(each["label"], each["index"]) for each in got["top"]] == [each[:2] for each in wanted.top[:2]]


def test_json_and_multipart_give_the_same(client):
    data = picture(5, form="JPEG")
    for text in (base64_of(data), f"data:image/jpeg;base64,{base64_of(data)}"):
        asked = client.post("/v1/predict", json={"images": [{"name": "a.jpg", "data": text}]})
        assert asked.json() == client.post("/v1/predict", files=fields(("a.jpg", data))).json()


def test_an_image_without_a_name_is_called_by_its_number(client):
    images = [{"data": base64_of(picture(n))} for n in range(2)]
    results = client.post("/v1/predict", json={"images": images}).json()["results"]
    assert [each["name"] for each in results] == ["image 0", "image 1"]


def test_a_bad_image_among_good_ones_is_an_entry_with_its_problem(client):
    answer = client.post(
        "/v1/predict", files=fields(("a", picture()), ("b", b"no image"), ("c", b""), ("d", picture()))
    )
    good, unknown, empty, last = answer.json()["results"]
    assert answer.status_code == 200
    assert good["label"] == last["label"] == client.opened["tiny"](picture()).label
    assert (unknown["name"], unknown["error"]["status"], unknown.keys()) == ("b", 415, {"name", "error"})
    assert "0 bytes" in empty["error"]["detail"]


@pytest.mark.parametrize(
    ("data", "status"), [(b"no image", 415), (b"", 422), (picture()[:600], 422), (picture(form="JPEG")[:700], 422)]
)
def test_nothing_but_a_bad_image_is_a_4xx(client, data, status):
    assert problem_of(client.post("/v1/predict", files=fields(("a", data))), status)["results"][0]["name"] == "a"


def test_bad_images_of_different_kinds_are_a_422_that_names_each(client):
    problem = problem_of(client.post("/v1/predict", files=fields(("a", b"x"), ("b", b""))), 422)
    assert [each["error"]["status"] for each in problem["results"]] == [415, 422]


def test_a_segmenter_gives_its_mask_as_an_index_png(client):
    data = picture(3, size=(33, 47))
    result = client.post("/v1/predict?model=seg", files=fields(("a.png", data))).json()["results"][0]
    wanted = client.opened["seg"](data)
    assert np.array_equal(np.asarray(image_of(result["mask"])), wanted.mask)
    assert {name: result[name] for name in ("size", "classes")} == {
        name: wanted.to_dict()[name] for name in ("size", "classes")
    }
    assert "image" not in result


@pytest.mark.parametrize("top", [1, 3, 5])
def test_top_says_how_many_classes_are_listed(client, top):
    result = client.post(f"/v1/predict?top={top}", files=fields(("a", picture()))).json()["results"][0]
    assert len(result["top"]) == top


@pytest.mark.parametrize("top", ["0", "-1", "6", "x", "1.5", "99999999999999999999"])
def test_a_top_that_cannot_be_is_refused(client, top):
    problem_of(client.post(f"/v1/predict?top={top}", files=fields(("a", picture()))), 422)


def test_top_of_a_segmenter_is_refused_unless_it_is_the_default(client):
    sent = {"files": fields(("a", picture()))}
    assert "classifiers" in problem_of(client.post("/v1/predict?model=seg&top=2", **sent), 422)["detail"]
    assert client.post("/v1/predict?model=seg&top=5", **sent).status_code == 200


def test_an_unknown_model_is_a_404_that_lists_the_models(client):
    problem = problem_of(client.post("/v1/predict?model=nothing", files=fields(("a", picture()))), 404)
    assert problem["models"] == ["tiny", "seg", "other"]


def test_models_are_listed_with_what_they_are(client):
    first, second, _ = client.get("/v1/models").json()["models"]
    assert (first["name"], first["task"], first["classes"]) == ("tiny", "classification", list(CLASSES))
    assert (second["name"], second["task"], second["num_classes"]) == ("seg", "segmentation", 3)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
        ({"json": []}, 422),
        ({"json": {"images": []}}, 422),
        ({"json": {"images": "a"}}, 422),
        ({"json": {"images": [1]}}, 422),
        ({"json": {"images": [{"data": 1}]}}, 422),
        ({"json": {"images": [{"data": "", "more": 1}]}}, 422),
        ({"json": {"images": [{"data": "!"}]}}, 422),
        ({"json": {"image": []}}, 422),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"x"}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
        ({"content": b"--b\r\nA: b\r\n\r\nc", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422),
        ({"files": [("picture", ("a", b"x"))]}, 422),
        ({"content": b"x", "headers": {"content-type": "application/json", "content-encoding": "gzip"}}, 415),
    ],
)
def test_a_body_that_cannot_be_understood_is_a_problem(client, sent, status):
    problem_of(client.post("/v1/predict", **sent), status)


def test_a_multipart_body_that_ends_early_is_a_problem(client):
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    problem = problem_of(client.post("/v1/predict", content=start, headers=headers), 400)
    assert "last boundary" in problem["detail"]


def test_names_are_given_back_as_one_line_of_limited_length(client):
    images = [{"name": name, "data": base64_of(picture())} for name in ("../../etc/passwd", "a\nb\x1b[2J", "x" * 5000)]
    results = client.post("/v1/predict", json={"images": images}).json()["results"]
    assert [each["name"] for each in results] == ["../../etc/passwd", r"a\nb\x1b[2J", "x" * 200]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/v1/predict", 405)])
def test_what_is_not_there_is_a_problem(client, method, path, status):
    problem_of(client.request(method, path), status)


def test_models_are_named_after_their_files_each_once():
    assert model_names(["a/b0.safetensors", "c/b0.pth", "my model.onnx", "owner/hub-name"]) == [
        *("b0", "b0-2", "my_model", "hub-name")
    ]


def test_the_openapi_document_lists_what_there_is(client):
    document = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/models", "/healthz", "/readyz", "/metrics", "/v2"} <= document["paths"].keys()
    posted = document["paths"]["/v1/predict"]["post"]
    assert posted["requestBody"]["content"].keys() == {"multipart/form-data", "application/json"}
    assert {name: list(answer["content"]) for name, answer in posted["responses"].items() if name != "200"} == {
        str(status): [PROBLEM] for status in (400, 401, 404, 408, 413, 415, 422, 500, 503)
    }
    json.dumps(document)
