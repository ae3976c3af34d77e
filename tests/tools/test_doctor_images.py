"""`van doctor` of a folder of labelled images."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_training import make_stripes

from van.cli import main
from van.errors import ConfigError
from van.tools.doctor import examine
from van.tools.doctor.class_folders import is_class_folders


@pytest.fixture
def data(tmp_path):
    for name, count in (("Train", 6), ("val", 3)):
        make_stripes(tmp_path / "data" / name, count=count)
    for path in (tmp_path / "data" / "val").rglob("*.png"):  # the same noise otherwise
        pixels = np.asarray(Image.open(path)) ^ 1
        Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def findings(data, **options):
    return {(finding.level, finding.text) for finding in examine(data, **options).findings}


def has(found, level, *words):
    return any(each == level and all(word in text for word in words) for each, text in found)


@pytest.mark.promise("15")
def test_a_healthy_folder(data, capsys, tmp_path):
    assert main(["doctor", str(data), "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "fit for training" in out
    assert "train: 12 images of 32 x 32 pixels; 12 RGB" in out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["healthy"] is True
    assert report["classes"][1]["train"] == {"images": 6, "unreadable": 0}


@pytest.mark.promise("15")
def test_everything_that_is_wrong(data, capsys, tmp_path):
    train, val = data / "Train", data / "val"
    (train / "along" / "0.png").write_bytes(b"broken")
    shutil.copy(train / "along" / "1.png", val / "along" / "leaked.png")
    shutil.copy(train / "along" / "2.png", train / "along" / "again.png")
    shutil.copy(train / "along" / "3.png", train / "across" / "mislabelled.png")
    (train / "empty").mkdir()
    (train / "nested" / "deeper").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(train / "nested" / "deeper" / "a.png")
    (train / "across" / "notes.txt").write_text("x")
    Image.new("CMYK", (64, 64)).save(train / "across" / "print.jpg")
    Image.new("P", (64, 64)).save(train / "across" / "palette.png")
    Image.new("RGBA", (64, 64)).save(train / "across" / "alpha.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(train / "across" / "deep.png")
    Image.new("RGB", (5, 64)).save(train / "across" / "narrow.png")
    make_stripes(data / "more", count=30)
    for path in (data / "more" / "across").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) ^ 3).save(train / "across" / f"more{path.name}")
    shutil.rmtree(data / "more")
    found = findings(data)
    assert has(found, "error", "train: 1 file(s) cannot be read", "along/0.png")
    assert has(found, "error", "1 image(s) are in train and in val", "leaked.png")
    assert has(found, "error", "1 image(s) are in several classes", "mislabelled.png")
    assert has(found, "error", "train: 1 class(es) have no image: empty")
    assert has(found, "error", "hold folders and no image of their own: nested")
    assert has(found, "error", "val lacks 2 class(es)", "empty, nested")
    assert has(found, "warning", "more than once in one part", "again.png")
    assert has(found, "warning", "16 bits", "deep.png")
    assert has(found, "warning", "CMYK", "print.jpg")
    assert has(found, "warning", "narrower than 32 pixels: narrow.png")
    assert has(found, "note", "a palette", "palette.png")
    assert has(found, "note", "transparency", "alpha.png")
    assert has(found, "note", "1 file(s) are no images", "notes.txt")
    assert main(["doctor", str(data), "--json", str(tmp_path / "out.json")]) == 1
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["splits"]["train"]["unreadable"][0]["path"].endswith("along/0.png")
    assert len(report["duplicates"]) == 3
    assert capsys.readouterr().out.count("error: ") == 6


@pytest.mark.promise("15")
def test_imbalance_names_its_remedies(tmp_path):
    make_stripes(tmp_path, count=10)
    for i in range(1, 10):
        (tmp_path / "along" / f"{i}.png").unlink()
    assert has(findings(tmp_path), "warning", "10 times as many", "data.sampling balanced")


@pytest.mark.promise("15")
def test_one_class(tmp_path):
    (tmp_path / "only").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "only" / "a.png")
    assert has(findings(tmp_path), "error", "there is one class, 'only'")


@pytest.mark.promise("15")
def test_parts_and_limits(data, capsys):
    report = examine(data, ["val"], limit=2)
    assert [*report.splits] == ["val"]
    assert report.splits["val"].seen == 2
    assert has({(each.level, each.text) for each in report.findings}, "note", "2 of 6 images were looked at")
    with pytest.raises(ConfigError, match="has no 'train' part; it has: all"):
        examine(data / "val", ["train"])
    assert main(["doctor", str(data), "--sheet", "sheet.png"]) == 2
    assert "--sheet draws label maps" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_below_one_is_refused(data, limit, capsys):
    assert main(["doctor", str(data), "--limit", limit]) == 2
    assert f"limit is {limit}; expected at least one image per split" in capsys.readouterr().err


@pytest.mark.promise("3")
def test_parts_that_are_no_classes(tmp_path, capsys):
    for name in ("Train set", "Val set"):
        make_stripes(tmp_path / "deep" / name, count=2)
    assert main(["doctor", str(tmp_path / "deep")]) == 1
    assert "2 class(es) hold folders and no image of their own: Train set, Val set" in capsys.readouterr().out
    for name in ("train", "Train", "val"):
        make_stripes(tmp_path / "twice" / name, count=2)
    assert main(["doctor", str(tmp_path / "twice")]) == 2
    assert "holds Train and train" in capsys.readouterr().err


@pytest.mark.promise("15")
def test_images_and_masks_are_no_classes(tmp_path, capsys):
    make_stripes(tmp_path / "source", count=2)
    (tmp_path / "source" / "across").rename(tmp_path / "images")
    (tmp_path / "source" / "along").rename(tmp_path / "Masks")
    (tmp_path / "source").rmdir()
    assert main(["doctor", str(tmp_path)]) == 2
    assert "not a known segmentation layout" in capsys.readouterr().err


@pytest.mark.promise("15")
def test_what_is_no_folder_of_images(tmp_path, capsys):
    assert not is_class_folders(tmp_path)
    assert not is_class_folders(tmp_path / "nowhere")
    assert main(["doctor", str(tmp_path)]) == 2
    assert "holds no folders; expected a folder with a folder per class" in capsys.readouterr().err


@pytest.mark.promise("15")
@pytest.mark.parametrize(
    ("data", "found"),
    [("nowhere", "does not exist"), ("file", "is a file"), ("flat", "holds no folders"), ("", "empty")],
)
def test_what_is_no_data_set_is_refused_in_a_line(tmp_path, monkeypatch, capsys, data, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat").mkdir()
    for name in ("file", "flat/a.png"):
        (tmp_path / name).write_bytes(b"")
    assert main(["doctor", data]) == 2
    assert found in (text := capsys.readouterr().err)
    assert "expected a folder with a folder per class" in text


@pytest.mark.promise("15")
def test_an_empty_part_is_a_finding(tmp_path, capsys):
    make_stripes(tmp_path / "train", count=2)
    (tmp_path / "val").mkdir()
    assert main(["doctor", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "train: 4 images" in out
    assert "error: val: there are no class folders" in out
