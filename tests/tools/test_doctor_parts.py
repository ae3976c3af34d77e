"""The doctor reports on what can be read, whatever is missing beside it."""

import numpy as np
import pytest
from PIL import Image

from van.cli import main
from van.data.segmentation import open_segmentation
from van.errors import ConfigError, DataError
from van.tools.doctor import examine


def dataset(root, parts=("train", "val"), description=""):
    for kind in ("images", "masks"):
        for part in parts:
            (root / kind / part).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((6, 8, 3) if kind == "images" else (6, 8), number, np.uint8)
                Image.fromarray(pixels).save(root / kind / part / f"{part}{number}.png")
    (root / "dataset.yaml").write_text(f"images: images\nmasks: masks\nnames: [ground, cat]\n{description}")
    return root


def remove(folder):
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.promise("22")
@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_masks_or_images_does_not_hide_the_other(tmp_path, kind, part):
    remove(dataset(tmp_path) / kind / part)
    report = examine(tmp_path)
    (other,) = report.splits
    assert {other, part} == {"train", "val"}
    assert report.splits[other].pixels.tolist() == [48, 48]
    (error,) = [each.text for each in report.findings if each.level == "error"]
    assert f"{part}: " in error
    assert f"{tmp_path / kind / part} does not exist" in error
    with pytest.raises(DataError, match="does not exist"):
        open_segmentation(tmp_path, part)


@pytest.mark.promise("22")
def test_parts_that_name_nothing_in_common_are_still_an_error(tmp_path):
    dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text("images: {train: images/train}\nmasks: masks/train\nnames: [ground, cat]\n")
    with pytest.raises(ConfigError, match="expected the same"):
        examine(tmp_path)


@pytest.mark.promise("22")
def test_a_data_set_without_val_is_not_called_fit_for_training(tmp_path, capsys):
    dataset(tmp_path)
    text = "images: {train: images/train}\nmasks: {train: masks/train}\nnames: [ground, cat]\n"
    (tmp_path / "dataset.yaml").write_text(text)
    assert main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "note: there is no val part, which van train needs" in out
    assert "breaks training" not in out
    assert "fit for training" not in out
    assert main(["doctor", str(tmp_path), "--split", "train"]) == 0
    assert "no val part" not in capsys.readouterr().out


@pytest.mark.promise("22")
def test_images_that_cannot_be_read_have_no_size(tmp_path, capsys):
    for path in dataset(tmp_path).glob("images/val/*"):
        path.write_bytes(b"torn")
    assert main(["doctor", str(tmp_path), "--sheet", str(tmp_path / "s.png")]) == 1
    out = capsys.readouterr().out
    assert "0 x 0" not in out
    assert "val: 2 images; masks: 2 index" in out
