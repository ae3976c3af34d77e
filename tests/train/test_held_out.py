"""Every figure says over how many images it is."""

import json

import pytest
from tiny_segmentation import SLIM_NETWORK, make_pictures, slim_segmentation

import van
from van.cli import main
from van.recipes import RECIPES, get_recipe
from van.recipes.segmentation import SEGMENTATION_RECIPES
from van.tools.report.page import write_report
from van.train import run
from van.train.folder import held_out

SMALL = [
    *(f"--model.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in SLIM_NETWORK.items()),
    *("--data.scene_size=32", "--augment.crop=[32,32]", "--schedule.warmup_steps=0", "--trainer.steps=2"),
    *("--trainer.val_every=1", "--trainer.batch_size=2", "--trainer.threads=1"),
]


@pytest.mark.promise("12")
def test_recipes_validate_on_all_images():
    assert [name for name in RECIPES if getattr(get_recipe(name).data, "val_images", None)] == []
    assert "light_ham_digits" in SEGMENTATION_RECIPES


@pytest.mark.promise("12")
def test_a_part_is_called_one(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--data.val_images=3", "--trainer.progress=lines", f"--trainer.out={out}"]
    assert main(["train", "light_ham_digits", *SMALL, *options]) == 0
    printed = capsys.readouterr()
    assert "on 3 of 400 held-out images" in printed.out
    assert sum("on 3 of 400 images" in line for line in printed.err.splitlines()) == 2
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["val_images"], summary["val_images_there"]) == (3, 400)
    assert van.load(out / "model.safetensors").provenance["val_images"] == 3
    page = write_report(out).read_text()
    assert "scores over 3 of 400 held-out images" in page


@pytest.mark.promise("12")
def test_all_images_give_the_figure_of_van_eval(tmp_path):
    data = str(make_pictures(tmp_path / "data", train=4, val=3, size=(32, 32)))
    options = {"data.path": data, "data.scene_size": None, "data.val_images": None, "trainer.steps": 2}
    folder = run(slim_segmentation(tmp_path / "run", **options))
    summary = json.loads((folder / "summary.json").read_text())
    assert held_out(summary) == "3 held-out images"
    from van.inference.evaluate import evaluate

    assert evaluate(folder / "model.safetensors", data)["mIoU"] == pytest.approx(summary["val/mIoU"], abs=1e-3)


@pytest.mark.promise("12")
def test_classifiers_too(tmp_path, capsys):
    small = ["--model.embed_dims=[8,8,8,8]", "--model.depths=[1,1,1,1]", "--trainer.epochs=1", "--trainer.threads=1"]
    small += ["--schedule.warmup_epochs=0", f"--trainer.out={tmp_path / 'run'}", "--trainer.progress=none"]
    assert main(["train", "digits_van_b0", *small]) == 0
    assert "on 359 held-out images" in capsys.readouterr().out
    assert "scores over 359 held-out images" in write_report(tmp_path / "run").read_text()


@pytest.mark.promise("12")
def test_summaries_of_older_runs_name_no_number():
    assert held_out({}) == "held-out images"
    assert held_out({"val_images": 4, "val_images_there": 4}) == "4 held-out images"
