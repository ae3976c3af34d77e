"""`van eval` and `van predict` of models that find objects or segments, as people type them."""

import csv
import json
import os

import numpy as np
import pytest
from fake_objects import saved
from PIL import Image

from van.cli import main
from van.data import object_scenes, scenes

TASKS = ("detection", "instance", "panoptic")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A checkpoint of every task, and two images."""
    folder = tmp_path_factory.mktemp("desk")
    for task in TASKS:
        saved(task, folder / f"{task}.safetensors")
    data = object_scenes.SceneObjects(scenes.Scenes(count=2))
    for index in range(2):
        data.load(index)[0].save(folder / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Five scenes in place of 400."""
    monkeypatch.setitem(scenes.COUNTS, "val", 5)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def refused(code, out, err):
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("van: error: ")]
    return line


class TestEval:
    @pytest.mark.parametrize(
        ("task", "names", "files"),
        [
            ("detection", ["AP", "AP50", "APs", "AR100"], ["bbox.json"]),
            ("instance", ["AP", "AR1", "mask/AP", "mask/AP75", "mask/ARl"], ["bbox.json", "segm.json"]),
            ("panoptic", ["PQ", "SQ", "RQ", "PQ_things", "RQ_stuff"], ["panoptic", "panoptic.json"]),
        ],
    )
    def test_scores_tables_and_files(self, run, desk, tmp_path, task, names, files):
        arguments = ["--json", tmp_path / "x.json", "--csv", tmp_path / "x.csv", "--out", tmp_path / "out"]
        code, out, _ = run("eval", desk / f"{task}.safetensors", "--data", "scenes", *arguments)
        assert code == 0
        assert f"{names[0]} %" in out
        assert "background" in out or task != "panoptic"  # the table of classes
        (result,) = json.loads((tmp_path / "x.json").read_text())["results"]
        assert result["count"] == 5
        assert set(names) <= set(result)
        with (tmp_path / "x.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert set(names) <= set(row)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files

    def test_views_and_sizes_change_what_is_found(self, run, desk, tmp_path):
        found = []
        for options in ([], ["--flip"], ["--scales", "0.5,1"], ["--size", "96"], ["--max-detections", "2"]):
            folder = tmp_path / "_".join(options).replace(",", "_") / "out"
            assert run("eval", desk / "detection.safetensors", "--data", "scenes", "--out", folder, *options)[0] == 0
            found.append((folder / "bbox.json").read_text())
        assert len(set(found)) == 5
        assert len(json.loads(found[-1])) == 10

    @pytest.mark.parametrize(
        ("task", "options", "message"),
        [
            ("panoptic", ["--flip"], "--flip belongs to"),
            ("panoptic", ["--scales", "1,2"], "--scales belongs to"),
            ("detection", ["--opacity", "0.3"], "--opacity belongs to segmenters"),
            ("detection", ["--scales", "x"], "--scales is 'x'; expected factors"),
            ("detection", ["--scales", "0"], "expected positive factors"),
            ("detection", ["--size", "0"], "expected pixels"),
            ("detection", ["--size", "3x4x5"], "--size is '3x4x5'"),
            ("detection", ["--score-threshold", "1.5"], "expected a probability"),
            ("detection", ["--max-detections", "0"], "expected at least 1"),
            ("detection", ["--batch-size", "4"], "detectors take one image at a time"),
            ("detection", ["--split", "test"], "expected one of train, val"),
            ("instance", ["--confusion", "x.png"], "has no confusion matrix"),
        ],
    )
    def test_options_that_cannot_be(self, run, desk, task, options, message):
        line = refused(*run("eval", desk / f"{task}.safetensors", "--data", "scenes", *options))
        assert message in line

    def test_one_folder_of_results_is_for_one_checkpoint(self, run, desk, tmp_path):
        checkpoints = [desk / "detection.safetensors", desk / "instance.safetensors"]
        assert "one at a time" in refused(*run("eval", *checkpoints, "--data", "scenes", "--out", tmp_path))

    def test_help_says_what_an_option_means_to_whom(self, capsys):
        with pytest.raises(SystemExit):
            main(["eval", "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert "segmenters: average views at these scales" in text
        assert "detectors and instance segmenters: join what is found at these scales" in text


class TestPredict:
    @pytest.mark.parametrize(
        ("task", "endings"),
        [
            ("detection", ["-objects.png"]),
            ("instance", ["-objects.png"]),
            ("panoptic", ["-overlay.png", "-segments.png"]),
        ],
    )
    def test_pictures_go_into_a_folder(self, run, desk, tmp_path, monkeypatch, task, endings):
        monkeypatch.chdir(tmp_path)
        images = [os.path.relpath(desk / f"{stem}.png", tmp_path) for stem in "01"]  # short: the table breaks no path
        code, out, _ = run("predict", desk / f"{task}.safetensors", *images, "--out", ".")
        assert code == 0
        names = [f"{stem}{end}" for stem in "01" for end in endings]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
        assert all(name in out for name in names[:: len(endings)])

    @pytest.mark.parametrize(
        ("task", "key"), [("detection", "objects"), ("instance", "objects"), ("panoptic", "segments")]
    )
    def test_files_of_entries_need_no_pictures(self, run, desk, tmp_path, monkeypatch, task, key):
        monkeypatch.chdir(tmp_path)
        checkpoint, images = desk / f"{task}.safetensors", (desk / "0.png", desk / "1.png")
        for name in ("found.json", "found.csv", "found.jsonl"):
            assert run("predict", checkpoint, *images, "--out", name)[0] == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "found.json", "found.jsonl"]
        entries = json.loads((tmp_path / "found.json").read_text())["predictions"]
        assert [len(entry[key]) > 0 for entry in entries] == [True, True]
        assert ("mask" in entries[0][key][0]) == (task != "detection")
        with (tmp_path / "found.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["label"] for row in rows] == [each["label"] for entry in entries for each in entry[key]]
        assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 2

    def test_entries_are_printed_beside_the_pictures(self, run, desk, tmp_path):
        checkpoint, image = desk / "detection.safetensors", desk / "0.png"
        code, out, _ = run("predict", checkpoint, image, "--format", "json", "--out", tmp_path)
        assert code == 0
        (entry,) = json.loads(out)["predictions"]
        assert entry["picture"] == str(tmp_path / "0-objects.png")
        left, top, right, bottom = entry["objects"][0]["box"]
        assert 0 <= left < right <= 64
        assert 0 <= top < bottom <= 64

    def test_images_that_are_done_are_left_out(self, run, desk, tmp_path):
        checkpoint, out = desk / "detection.safetensors", tmp_path / "found.csv"
        strict = ["--out", out, "--score-threshold", "0.99"]  # nothing is found: rows without an object
        assert run("predict", checkpoint, desk / "0.png", *strict)[0] == 0
        code, _, err = run("predict", checkpoint, desk / "0.png", desk / "1.png", *strict, "--resume")
        assert code == 0
        assert "1 image(s) are in" in err
        with out.open() as file:
            assert [row["image"] for row in csv.DictReader(file)] == [str(desk / "0.png"), str(desk / "1.png")]

    def test_an_image_that_cannot_be_read_is_skipped(self, run, desk, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"nothing")
        code, _, err = run(
            "predict",
            desk / "instance.safetensors",
            tmp_path / "bad.png",
            desk / "0.png",
            "--out",
            tmp_path / "pictures",
        )
        assert code == 1
        assert "bad.png" in err
        assert np.asarray(Image.open(tmp_path / "pictures" / "0-objects.png")).ndim == 3

    def test_a_folder_that_ends_like_a_file_is_a_folder(self, run, desk, tmp_path):
        (tmp_path / "old.json").mkdir()
        assert run("predict", desk / "detection.safetensors", desk / "0.png", "--out", tmp_path / "old.json")[0] == 0
        assert (tmp_path / "old.json" / "0-objects.png").is_file()
