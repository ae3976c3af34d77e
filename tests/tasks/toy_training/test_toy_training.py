"""A task that only a test knows trains by `van.train`, with everything that training has."""

import json

import brightness
import pytest
import torch
from chaos import assert_same, numbers
from interrupted_runs import cut_off
from safetensors.torch import load_file

import van
from van.errors import DataError, UnknownNameError, VanNotice
from van.recipes import KINDS, PRESETS_OF, RECIPES, get_recipe
from van.tasks import TASKS
from van.train.folder import read_recipe


@pytest.fixture(scope="module", autouse=True)
def known():
    """The task, registered as its author would, and forgotten afterwards: other tests go through all that are known."""
    before = dict(TASKS), dict(RECIPES), [*KINDS], dict(PRESETS_OF)
    brightness.make_known()
    yield
    for table, content in zip((TASKS, RECIPES, PRESETS_OF), (before[0], before[1], before[3]), strict=True):
        table.clear()
        table.update(content)
    KINDS[:] = before[2]


@pytest.fixture
def recipe(tmp_path):
    return get_recipe("brightness_tiny").with_options(**{"trainer.out": str(tmp_path / "run")})


def test_it_trains_by_name(tmp_path):
    folder = van.train("brightness_tiny", {"trainer.out": tmp_path / "run"}, optim={"lr": 5e-3})
    rows = numbers(folder)
    assert [*rows[0]] == ["epoch", "step", "lr", "train/loss", "val/loss"]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    assert (read_recipe(folder / "recipe.yaml").task, read_recipe(folder / "recipe.yaml").optim.lr) == (
        "brightness",
        5e-3,
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val/loss"] == float(rows[-1]["val/loss"])
    assert (summary["epochs"], summary["val_images"]) == (3, 6)
    with pytest.raises(UnknownNameError, match=r"optim\.lr"):
        van.train("brightness_tiny", {"optim.lrr": 1})


def test_its_model_loads(recipe):
    folder = van.train(recipe)
    model = van.load(folder / "model.safetensors")
    assert isinstance(model, brightness.LightMeter)
    assert (model.classes, model.provenance["recipe"]) == (("brightness",), "brightness_tiny")
    state = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert isinstance(van.load(folder / "last.ckpt"), brightness.LightMeter)


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
    monkeypatch.setattr(brightness, "broken", 9)
    # validation has six images, so only training meets the broken one
    with pytest.warns(VanNotice, match="gray 9 cannot be read; another image stands in for it"):
        van.train(recipe)


def test_no_more_than_the_limit(recipe, monkeypatch):
    monkeypatch.setattr(brightness, "broken", 9)
    with pytest.raises(DataError, match="gray 9 is broken"):
        van.train(recipe.with_options(**{"trainer.max_unreadable": 0}))
