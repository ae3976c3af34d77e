"""The toy exports with a parity check, and the file predicts and evaluates as its checkpoint does."""

import json

import numpy as np
import pytest
from mean_colour import Colours
from mean_colour.processor import PREPROCESS

import van
from van.cli import main

pytest.importorskip("onnxruntime")


@pytest.fixture
def exported(model, tmp_path):
    model.preprocess, model.classes = PREPROCESS, Colours.classes
    path = tmp_path / "toy.onnx"
    result = van.export(model, path)
    assert result.max_error < 1e-4
    return str(path)


def test_the_file_predicts_what_the_model_does(model, exported):
    images = [Colours().load(index)[0] for index in range(6)]
    one, two = (van.Predictor(source, decimals=5)(images) for source in (model, exported))
    np.testing.assert_allclose([each.colour for each in one], [each.colour for each in two], atol=1e-4)


def test_the_file_is_described_and_evaluated(exported, capsys):
    assert main(["info", exported, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["classes"]) == ("mean_colour", ["red", "green", "blue"])
    assert van.evaluate(exported, "colours").count == 6
