"""The toy trains by `van train`, with everything that training has, and is reported."""

import json

import pytest
import torch
from chaos import assert_same, numbers
from interrupted_runs import cut_off
from mean_colour import MeanColour, training
from safetensors.torch import load_file

import van
from van.cli import main
from van.errors import DataError, UnknownNameError, VanNotice
from van.recipes import get_recipe
from van.train.folder import read_recipe


@pytest.fixture
def recipe(tmp_path):
    return get_recipe("colours_tiny").with_options(**{"trainer.out": str(tmp_path / "run")})


def test_it_trains_by_name(tmp_path):
    folder = van.train("colours_tiny", {"trainer.out": tmp_path / "run"}, optim={"lr": 5e-3})
    rows = numbers(folder)
    assert [*rows[0]] == ["epoch", "step", "lr", "train/loss", "val/loss"]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    kept = read_recipe(folder / "recipe.yaml")
    assert (kept.task, kept.optim.lr) == ("mean_colour", 5e-3)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val/loss"] == float(rows[-1]["val/loss"])
    assert (summary["epochs"], summary["val_images"]) == (3, 6)
    with pytest.raises(UnknownNameError, match=r"optim\.lr"):
        van.train("colours_tiny", {"optim.lrr": 1})


def test_its_model_loads(recipe):
    folder = van.train(recipe)
    model = van.load(folder / "model.safetensors")
    assert isinstance(model, MeanColour)
    assert (model.classes, model.provenance["recipe"]) == (("red", "green", "blue"), "colours_tiny")
    state = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert isinstance(van.load(folder / "last.ckpt"), MeanColour)
    assert 0 <= van.evaluate(folder, "colours")["error"] < 1


def test_the_command_trains_and_reports(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "colours_tiny", "--epochs", "2", "--out", str(run)]) == 0
    assert "next: van predict" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "colours_tiny" in page
    assert "<svg" in page
    for text in ("right", "error", "red", "green", "blue"):  # its scores, and a row per class
        assert text in page


def test_resumed_equals_uninterrupted(recipe, tmp_path, monkeypatch):
    options = {"trainer.ema_decay": 0.9, "trainer.history": 2, "optim.layer_decay": 0.7, "trainer.early_stopping": 9}
    whole = van.train(recipe.with_options(**options))
    cut = recipe.with_options(**options, **{"trainer.out": str(tmp_path / "cut"), "trainer.checkpoint_every_steps": 1})
    cut_off(monkeypatch, cut, at_step=6)
    torch.rand(3)
    resumed = van.train(cut.with_options(**{"trainer.resume": str(tmp_path / "cut")}))
    assert_same(whole, resumed)
    assert (resumed / "model-without-ema.safetensors").exists()
    assert len([*(resumed / "history").iterdir()]) == 2


def test_an_unreadable_image_is_replaced(recipe, monkeypatch):
    monkeypatch.setattr(training, "broken", 9)
    with pytest.warns(VanNotice, match="colours/train/9 cannot be read; another image stands in for it"):
        van.train(recipe)


def test_no_more_than_the_limit(recipe, monkeypatch):
    monkeypatch.setattr(training, "broken", 9)
    with pytest.raises(DataError, match="colours/train/9 is broken"):
        van.train(recipe.with_options(**{"trainer.max_unreadable": 0}))
