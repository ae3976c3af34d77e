"""The quickstart: what it leaves, small here; the recipe's own score and time are in the slow test."""

import pytest
from PIL import Image
from tiny_training import SLIM

import van
from van.cli import main as command
from van.recipes import RECIPES, get_recipe
from van.tools.quickstart import main


@pytest.fixture
def slim(monkeypatch):
    recipe = get_recipe("digits_van_b0").with_options(**SLIM, **{"trainer.batch_size": 256, "trainer.threads": 1})
    monkeypatch.setitem(RECIPES, "digits_van_b0", lambda: recipe)


def test_quickstart_leaves_picture_and_model(slim, tmp_path, capsys):
    out = tmp_path / "quickstart"
    for _ in range(2):  # a second one replaces the first
        assert main(["--out", str(out), "--epochs", "2"]) == 0
    printed = capsys.readouterr().out
    assert "evaluated: top-1 " in printed
    assert f"predicted {out / 'digits' / '0-is-4.png'}: " in printed
    with Image.open(out / "quickstart.png") as picture:
        assert picture.size[0] > 1000
        assert len(picture.convert("RGB").resize((200, 100)).getcolors(20000)) > 20
    assert van.load(out / "model.safetensors").classes == tuple("0123456789")
    assert command(["predict", str(out / "model.safetensors"), str(out / "digits")]) == 0


def test_quickstart_errors_are_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["--out", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("van: error: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_quickstart_reaches_its_score(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    top1 = float(capsys.readouterr().out.partition("top-1 ")[2].partition("%")[0])
    assert top1 >= 97
