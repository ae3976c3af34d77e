"""Tensors of strangers, by the Open Inference Protocol."""

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from hostile_requests import (
    INFER,
    post_json,
    problem,
)


def tensor(**changes):
    return {"inputs": [{"name": "images", "shape": [1, 3, 32, 32], "datatype": "FP32", "data": [0.5] * 3072} | changes]}


TENSORS = {
    "no inputs": {},
    "empty": {"inputs": []},
    "two": {"inputs": tensor()["inputs"] * 2},
    "null": {"inputs": [None]},
    "too few numbers": tensor(data=[0.5]),
    "texts": tensor(data=["a"] * 3072),
    "nothing": tensor(data=None),
    "booleans": tensor(data=[True] * 3072),
    "deep": tensor(data=[[[[[[0.5]]]]]]),
    "uneven": tensor(data=[[1, 2], [3]]),
    "infinite in float32": tensor(data=[1e300] * 3072),
    "negative side": tensor(shape=[1, 3, -32, -32]),
    "no side": tensor(shape=[0, 3, 32, 32]),
    "enormous": tensor(shape=[1, 3, 2**30, 2**30]),
    "enormous batch": tensor(shape=[2**30, 3, 32, 32]),
    "one channel": tensor(shape=[1, 1, 32, 96]),
    "fractions": tensor(shape=[1.0, 3, 32, 32]),
    "booleans as sides": tensor(shape=[True, 3, 32, 32]),
    "other type": tensor(datatype="INT8"),
    "type is a list": tensor(datatype=["FP32"]),
    "one pixel": tensor(shape=[1, 3, 1, 1], data=[0.5] * 3),
    "encoded": {"inputs": [{"name": "encoded", "shape": [1], "datatype": "BYTES", "data": ["%%%"]}]},
    "encoded, no text": {"inputs": [{"name": "encoded", "shape": [1], "datatype": "BYTES", "data": [7]}]},
    "unknown output": tensor() | {"outputs": [{"name": "nothing"}]},
    "outputs is text": tensor() | {"outputs": "logits"},
    "id is a number": tensor() | {"id": 7},
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_cannot_be_is_a_problem(served, name):
    response = post_json(served, TENSORS[name], INFER)
    if name == "one pixel":  # which a network may take
        assert response.status_code in (200, 422)
    else:
        problem(response, 413, 415, 422)
