"""A task that one test folder brings along predicts, evaluates and is saved without an edit anywhere else."""

import csv
import json

import numpy as np
import pytest
import torch
from mean_colour import Colours, MeanColour, MeanColourConfig

import van
from van.cli import main
from van.errors import ConfigError, UnknownNameError
from van.tasks import described, task_named, task_of


def expected(model):
    """The network's colours of the validation images, (6, 3), and the true ones."""
    processor = task_named("mean_colour").processor(None, None)
    images, colours = zip(*(Colours().load(i) for i in range(6)), strict=True)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([processor.prepare(image) for image in images]))
        return model(pixels).numpy(), np.stack(colours)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(6):
        Colours().load(i)[0].save(tmp_path / "images" / f"{i}.png")
    return str(tmp_path / "images")


def test_it_is_known_by_its_configuration(model, checkpoint, toy):
    assert task_of(model.config) is toy
    assert described(model, "model") == (toy, model.config)
    again = van.load(checkpoint)
    assert isinstance(again, MeanColour)
    assert again.config == model.config == MeanColourConfig.from_dict(model.config.to_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert van.info(checkpoint).name == "mean_colour_van_custom"


def test_the_predictor_gives_its_results(model, checkpoint, pictures):
    predict = van.Predictor(checkpoint, decimals=5, batch_size=4)
    want, _ = expected(model)
    paths = [f"{pictures}/{i}.png" for i in range(6)]
    np.testing.assert_allclose([result.colour for result in predict(paths)], want, atol=1e-5)
    result = predict(paths[0])
    assert result.draw().size == (24, 20)
    with pytest.raises(ConfigError, match="top belongs to classifiers, which"):
        van.Predictor(checkpoint, top=3)
    with pytest.raises(UnknownNameError, match="did you mean 'decimals'"):
        van.Predictor(checkpoint, decimal=3)


def test_van_predict_writes_and_resumes(checkpoint, pictures, tmp_path, capsys):
    out = tmp_path / "colours.csv"
    assert main(["predict", checkpoint, pictures, "--out", str(out), "--decimals", "2"]) == 0
    rows = list(csv.DictReader(out.open()))
    assert [*rows[0]] == ["image", "red", "green", "blue"]
    assert (len(rows), len(rows[0]["red"].partition(".")[2]) <= 2) == (6, True)
    assert main(["predict", checkpoint, pictures, "--out", str(out), "--resume"]) == 0
    assert "6 image(s) are in" in capsys.readouterr().err
    assert main(["predict", checkpoint, pictures, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 6
    assert main(["predict", checkpoint, pictures, "--flip"]) == 2
    assert "--flip belongs to segmenters" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [(), pytest.param(("cpu", "cpu"), marks=pytest.mark.long)])
def test_evaluation_counts_its_scores(model, checkpoint, devices):
    want, colours = expected(model)
    found = van.evaluate(checkpoint, "colours", tolerance=0.3, batch_size=4, devices=devices)
    assert found["error"] == pytest.approx(np.abs(want - colours).mean(), rel=1e-5)
    assert found.score == found["right"] == (np.abs(want - colours).max(1) <= 0.3).mean()
    assert 0 < found["right"] < 1
    assert (found.count, found.split) == (6, "val")


def test_van_eval_has_its_options(checkpoint, tmp_path, capsys):
    files = ["--json", str(tmp_path / "e.json"), "--csv", str(tmp_path / "e.csv")]
    assert main(["eval", checkpoint, "--data", "colours", "--split", "train", "--tolerance", "0.5", *files]) == 0
    assert "right %" in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "e.json").read_text())["results"]
    assert result["count"] == 24
    assert [*next(csv.DictReader((tmp_path / "e.csv").open()))] == ["checkpoint", "right", "error"]
    assert main(["eval", checkpoint, "--data", "colours", "--class-map", "x"]) == 2
    assert "--class-map belongs to classifiers" in capsys.readouterr().err
    assert main(["eval", checkpoint, "--data", "colours", "--confusion", str(tmp_path / "c.png")]) == 2
    assert "has no confusion matrix" in capsys.readouterr().err


def test_the_commands_offer_its_options(capsys):
    for verb, option in (("predict", "--decimals"), ("eval", "--tolerance")):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert option in capsys.readouterr().out
