"""`van explain` as people type it."""

import numpy as np
import pytest
from networks import tiny
from PIL import Image

import van
from van.cli import main


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A checkpoint, images of the same name in two folders, and a file that is no image."""
    monkeypatch.chdir(tmp_path)
    van.save(tiny().eval(), "tiny.safetensors")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "cat.png")
    (tmp_path / "bad.png").write_text("no image")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_image_is_written_into_the_folder(desk, capsys):
    assert main(["explain", "tiny.safetensors", "a/cat.png", "--out", "out", "--stages", "1", "4"]) == 0
    assert names(desk / "out") == ["attention_stage1.png", "attention_stage4.png", "cam.png", "explanation.npz"]
    assert Image.open(desk / "out" / "cam.png").size == (300, 200)  # of 60 x 40, which is small
    with np.load(desk / "out" / "explanation.npz") as arrays:
        assert arrays["cam"].shape == (40, 60)
        assert set(arrays) == {
            "cam", "cam_map", "attention_stage1", "attention_stage4", "attention_mean_stage1", "attention_mean_stage4",
            "target", "predicted", "score", "box",
        }  # fmt: skip
    assert "the network's own answer" in capsys.readouterr().out


def test_images_of_one_name_get_a_folder_each_and_a_bad_one_is_skipped(desk, capsys):
    assert main(["explain", "tiny.safetensors", "a/cat.png", "bad.png", "b/cat.png", "--out", "out"]) == 1
    assert len(names(desk / "out")) == 2
    assert all("cam.png" in names(folder) for folder in (desk / "out").iterdir())
    assert "skipped: bad.png" in capsys.readouterr().err


def test_nothing_but_bad_images_is_an_error(desk, capsys):
    assert main(["explain", "tiny.safetensors", "bad.png", "--out", "out"]) == 2
    assert not (desk / "out").exists()
    assert "none of 1 image(s) could be explained" in capsys.readouterr().err


def test_the_receptive_field_needs_no_image(desk, capsys):
    command = ["explain", "tiny.safetensors", "--erf", "--erf-size", "64", "--erf-count", "1", "--out", "out"]
    assert main(command) == 0
    assert names(desk / "out") == ["erf.npz", "erf.png"]
    with np.load(desk / "out" / "erf.npz") as arrays:
        assert arrays["contribution"].shape == (64, 64)
        assert set(arrays) == {"contribution", "center", "shares", "sides", "count"}
    assert "95% within" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/cat.png", "--target", "cat"], "unknown class 'cat'"),
        (["a/cat.png", "--target", "7"], "no class 7; expected a name, or an index from 0 to 4"),
        (["a/cat.png", "--stages", "9"], "no stage 9; expected numbers from 1 to 4"),
        (["a/cat.png", "--opacity", "2"], "opacity is 2.0; expected a number from 0"),
        (["a/cat.png", "--erf-size", "64"], "--erf-size belongs to --erf"),
        (["a/cat.png", "--erf", "--erf-seed", "1"], "--erf-seed is of noise"),
        (["--erf", "--target", "1"], "--target is for images"),
        ([], "there is no image to explain"),
        (["a/cat.png", "--out", "bad.png"], "a file is there; give a folder"),
    ],
)
def test_wrong_input_is_one_line(desk, capsys, arguments, message):
    out = [] if "--out" in arguments else ["--out", "out"]
    assert main(["explain", "tiny.safetensors", *arguments, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (desk / "out").exists()
