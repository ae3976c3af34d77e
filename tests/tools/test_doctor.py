"""The doctor finds every planted fault, says what to do, and does not stop at the first broken file."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from van.cli import main
from van.errors import ConfigError, DataError
from van.tools.doctor import draw, examine
from van.tools.doctor.pictures import ALARM, contact_sheet, legend, overlay


def dataset(root, masks, description="", part="train", images=()):
    """Three named classes; a pair of 8 x 6 pixels for each mask, further images without one."""
    for name in [*masks, *images]:
        path = root / "images" / part / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (100, 120, 140)).save(path)
    for name, values in masks.items():
        path = root / "masks" / part / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.asarray(values, np.uint8)
        if array.ndim == 1:  # rows of one value each
            array = array.repeat(8).reshape(-1, 8)
        Image.fromarray(array).save(path)
    text = "images: {train: images/train, val: images/val}\nmasks: {train: masks/train, val: masks/val}\n"
    if part == "train" and not (root / "images/val").exists():
        text = "images: {train: images/train}\nmasks: {train: masks/train}\n"
    (root / "dataset.yaml").write_text(text + f"names: [ground, cat, dog]\n{description}\n")
    return root


def words(report, level=None):
    return "\n".join(finding.text for finding in report.findings if level in (None, finding.level))


def run(*arguments):
    return main(["doctor", *map(str, arguments)])


@pytest.fixture
def broken(tmp_path):
    """Every fault at once."""
    root = dataset(
        tmp_path,
        {
            "good": [0, 0, 0, 1, 1, 255],
            "unknown": [0, 9, 9, 1, 1, 7],
            "small": [0, 1, 1],
            "empty": [255] * 6,
            "rgb": np.zeros((6, 8, 3)),
            "torn": [0] * 6,
            "picture": [0] * 6,
        },
        images=("alone", "lonely"),
    )
    Image.new("L", (8, 6)).save(root / "masks/train/stray.png")
    (root / "masks/train/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    (root / "images/train/picture.jpg").write_bytes(b"no jpeg")
    return root


def test_every_fault_is_found_in_one_go(broken):
    report = examine(broken)
    part = report.splits["train"]
    assert not report.healthy
    assert (part.total, part.seen) == (7, 7)
    assert (part.without_mask, part.without_image, part.unreadable, part.mismatched) == (2, 1, 3, 1)
    assert part.unlabelled == 1
    assert part.unknown["value 9"].pixels == 16
    assert part.unknown["value 9"].files == 1
    assert part.unknown["value 9"].first.endswith("masks/train/unknown.png")
    assert part.unknown["value 7"].pixels == 8
    errors = words(report, "error")
    assert "2 image(s) have no mask" in errors
    assert "alone.jpg" in errors
    assert "stray.png" in errors
    assert "small.png: 8 x 3, its image 8 x 6" in errors
    assert "value 9 is no class: 16 pixel(s) of 1 mask(s), first in" in errors
    unreadable = "\n".join(part.examples["unreadable"])
    assert "torn.png" in unreadable
    assert "picture.jpg" in unreadable
    assert "rgb.png is a colour image" in unreadable
    assert "1 image(s) have no labelled pixel" in words(report, "warning")


def test_histogram_by_hand(broken):
    part = examine(broken).splits["train"]
    # good 24 + 16, unknown 8 + 16, small 8 + 16, picture 48 (its mask is fine); ignored: 8 in good, 48 in empty
    assert part.pixels.tolist() == [24 + 8 + 8 + 48, 16 + 16 + 16, 0]
    assert part.images.tolist() == [4, 3, 0]
    assert part.ignored == 56
    assert part.stored[9] == 16
    assert part.stored[255] == 56


def test_class_weights_by_hand(tmp_path):
    report = examine(dataset(tmp_path, {"a": [0, 0, 0, 1, 1, 255], "b": [0] * 6}))
    # labelled pixels of the images that hold the class: ground 24+48 of 40+48, cat 16 of 40
    ground, cat = 72 / 88, 16 / 40
    median = (ground + cat) / 2
    assert report.weights["median_frequency"] == pytest.approx((median / ground, median / cat, 1), abs=1e-4)
    inverse = (1 / math.log(1.02 + 72 / 88), 1 / math.log(1.02 + 16 / 88), 1)
    assert report.weights["inverse_log"] == pytest.approx(inverse, abs=1e-4)


@pytest.mark.parametrize(
    ("stored", "description", "text"),
    [
        ([1, 2, 3], "", "masks count from 1, set reduce_zero_label: true"),
        ([0, 1, 2, 3], "", "one more than the 3 names"),
        ([1, 2], "", "value 0 (ground) never occurs; if masks count from 1"),
        ([0, 255], "", "black-and-white masks do"),
        ([255], "", "black-and-white masks do"),
        ([0, 1, 2], "reduce_zero_label: true", "if masks count from 0, every label is off by one"),
    ],
)
def test_labels_that_are_off_by_one(tmp_path, stored, description, text):
    masks = {str(value): [value] * 6 for value in stored}
    assert text in words(examine(dataset(tmp_path, masks, description)), "warning")


@pytest.mark.parametrize(
    ("stored", "description"),
    [([0, 1, 2, 255], ""), ([0, 1, 2, 3, 255], "reduce_zero_label: true"), ([1, 2, 3], "reduce_zero_label: true")],
)
def test_labels_that_are_right_raise_no_suspicion(tmp_path, stored, description):
    report = examine(dataset(tmp_path, {str(value): [value] * 6 for value in stored}, description))
    assert report.healthy
    assert not [text for text in words(report, "warning").splitlines() if "no labelled pixel" not in text]


def test_absent_classes(tmp_path):
    dataset(tmp_path, {"a": [0, 1, 1, 0, 0, 0]})
    report = examine(dataset(tmp_path, {"b": [0, 2, 2, 0, 0, 0]}, part="val"))
    assert "1 class(es) are in val but not in train: 2 dog" in words(report, "warning")
    assert "1 class(es) are in train but not in val, which the mean IoU leaves out: 1 cat" in words(report, "note")
    assert "occur nowhere" not in words(report)
    report = examine(tmp_path, ["train"])
    assert "1 class(es) occur nowhere: 2 dog" in words(report, "warning")


def test_palettes_that_dispute_their_indices(tmp_path):
    root = dataset(tmp_path, {"a": [0, 1, 2, 0, 1, 2]}, "palette: [[0, 0, 0], [200, 0, 0], [0, 200, 0]]")
    image = Image.open(root / "masks/train/a.png")
    image.putpalette([0, 200, 0, 0, 0, 0, 200, 0, 0])
    image.save(root / "masks/train/a.png")
    assert "set by_color: true" in words(examine(root), "warning")


def test_limit_spreads_over_the_data_set(tmp_path):
    root = dataset(tmp_path, {f"{i:02}": [i % 3] * 6 for i in range(21)})
    steps = []
    report = examine(root, limit=3, progress=lambda done, total: steps.append((done, total)))
    assert sorted(report.splits["train"].present) == [0, 10, 20]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert "3 of 21 images were looked at" in words(report, "note")
    with pytest.raises(ConfigError, match="limit is 0"):
        examine(root, limit=0)


def test_what_cannot_be_opened_raises(tmp_path):
    with pytest.raises(DataError, match="holds no folders"):
        examine(tmp_path)


def test_command_writes_words_json_and_sheet(broken, tmp_path, capsys):
    assert run(broken, "--json", tmp_path / "r.json", "--sheet", tmp_path / "sheet.png") == 1
    out = capsys.readouterr().out
    assert "dataset.yaml, 3 classes, 255 is ignored" in out
    assert "error: train: value 9 is no class" in out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["healthy"] is False
    assert result["splits"]["train"]["unknown"]["value 9"] == {
        "first": str(broken / "masks/train/unknown.png"),
        "files": 1,
        "pixels": 16,
    }
    assert result["classes"][1]["name"] == "cat"
    assert result["classes"][1]["train"] == {"pixels": 48, "share": round(48 / 136, 6), "images": 3}
    assert result["splits"]["train"]["stored_values"]["255"] == 56
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert ALARM[0] in set(map(tuple, np.asarray(sheet).reshape(-1, 3).tolist()))  # its box in the legend
    assert not list(tmp_path.glob(".*"))


def test_command_refuses_on_one_line(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert run(tmp_path / "nowhere") == 2
    assert run("scenes", "--json", tmp_path / "no" / "r.json") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("van: error: ") for line in errors)


def test_command_on_scenes(capsys, tmp_path):
    assert run("scenes", "--limit", "40", "--split", "val", "--sheet", tmp_path / "s.png") == 0
    out = capsys.readouterr().out
    assert "scenes: digit scenes, 11 classes" in out
    assert "val: 400 images of 64 x 64 pixels" in out
    assert "nothing that breaks training was found" in out
    assert "error" not in out
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 600


def test_sheet_shows_trouble_first_and_then_every_class(tmp_path):
    masks = {f"{i:02}": [0] * 6 for i in range(30)} | {
        "30": [0, 0, 1, 1, 0, 0],
        "31": [0, 0, 0, 2, 0, 0],
        "32": [9] * 6,
    }
    report = examine(dataset(tmp_path, masks))
    from van.tools.doctor.contact_sheet import TILES, chosen_images

    chosen = chosen_images(report.splits["train"])
    assert chosen[0] == 32
    assert {30, 31} <= set(chosen[:4])
    assert len(chosen) == len(set(chosen)) == TILES
    assert draw(report).mode == "RGB"


# --- pictures ---


def test_overlay_mixes_colours_by_opacity():
    image = Image.new("RGB", (4, 4), (100, 100, 100))
    labels = np.zeros((4, 4), np.uint8)
    labels[0] = 1
    labels[1] = 255
    out = np.asarray(overlay(image, labels, [(0, 0, 0), (200, 0, 0)], opacity=0.5))
    assert out[0, 0].tolist() == [150, 50, 50]
    assert out[3, 3].tolist() == [50, 50, 50]
    assert len({tuple(pixel) for pixel in out[1].tolist()}) == 2  # stripes
    unchanged = overlay(image, labels, [(0, 0, 0), (200, 0, 0)], opacity=0)
    assert (np.asarray(unchanged) == 100).all()


def test_values_that_are_no_class_are_striped_in_alarm():
    labels = np.full((4, 4), 1, np.int32)
    labels[:2, :2] = -1
    labels[3] = 7  # beyond the palette
    out = overlay(Image.new("RGB", (4, 4)), labels, [(0, 0, 0), (0, 0, 9)], opacity=1)
    pixels = np.asarray(out)
    assert set(map(tuple, pixels[:2, :2].reshape(-1, 3).tolist())) == set(ALARM)
    assert set(map(tuple, pixels[3].tolist())) <= set(ALARM)
    assert pixels[2, 2].tolist() == [0, 0, 9]


def test_legend_and_sheet_grow_with_their_entries():
    entries = [((i, 0, 0), f"class {i}") for i in range(150)]
    assert legend(entries, 600).height > legend(entries[:5], 600).height
    tile = ("caption " * 30, Image.new("RGB", (500, 100)), Image.new("RGB", (500, 100)))
    one, four = (contact_sheet([tile] * count, entries[:3], title="t") for count in (1, 4))
    assert four.height > one.height
    assert contact_sheet([], []).width > 0


# --- parts that cannot be opened, pictures met twice, captions ---


@pytest.mark.promise("22")
def test_an_empty_val_does_not_hide_train(tmp_path, capsys):
    dataset(tmp_path, {"a": [0, 1, 2, 0, 1, 2]})
    for kind in ("images", "masks"):
        (tmp_path / kind / "val").mkdir()
    text = (tmp_path / "dataset.yaml").read_text().replace("images/train}", "images/train, val: images/val}")
    (tmp_path / "dataset.yaml").write_text(text.replace("masks/train}", "masks/train, val: masks/val}"))
    report = examine(tmp_path)
    assert report.splits["train"].pixels.tolist() == [16, 16, 16]
    assert not report.healthy
    assert "val: the 'val' part" in words(report, "error")
    assert run(tmp_path, "--sheet", tmp_path / "s.png") == 1
    assert "train: 1 images" in capsys.readouterr().out
    assert (tmp_path / "s.png").is_file()
    with pytest.raises(DataError, match="'val' part"):
        examine(tmp_path, ["val"])


@pytest.mark.promise("22")
def test_a_single_image_is_reported_on(tmp_path, capsys):
    dataset(tmp_path, {"a": [0, 1, 2, 0, 1, 2]})
    (tmp_path / "dataset.yaml").write_text(
        "images: images/train\nmasks: masks/train\nnames: [ground, cat, dog]\nval_fraction: 0.2\n"
    )
    assert run(tmp_path) == 1
    out = capsys.readouterr().out
    assert "train: 1 images of 8 x 6 pixels" in out
    assert "error: val: the 'val' part" in out


@pytest.mark.promise("22")
def test_pictures_in_train_and_val_are_found_by_their_pixels(tmp_path, capsys):
    dataset(tmp_path, {"a": [0] * 6, "b": [1] * 6})
    dataset(tmp_path, {"c": [2] * 6, "d": [0] * 6}, part="val")
    colors = {"train/a": 10, "train/b": 90, "val/c": 90, "val/d": 200}
    for name, value in colors.items():
        Image.new("RGB", (8, 6), (value,) * 3).save(tmp_path / "images" / f"{name}.jpg", quality=100)
    with Image.open(tmp_path / "images/train/b.jpg") as same:  # other bytes, the same pixels
        same.load()
    (tmp_path / "images/val/c.jpg").unlink()
    same.save(tmp_path / "images/val/c.png")
    report = examine(tmp_path)
    warned = words(report, "warning")
    assert "1 image(s) of val are in train too" in warned
    assert "c.png = " in warned
    assert "b.jpg" in warned
    pairs = report.to_dict()["duplicates"]["train, val"]
    assert [tuple(name.rsplit("/", 1)[1] for name in pair) for pair in pairs] == [("b.jpg", "c.png")]
    assert report.healthy  # it breaks no training, only the scores
    same.save(tmp_path / "images/train/a.jpg".replace(".jpg", ".png"))
    (tmp_path / "images/train/a.jpg").unlink()
    assert "train: 1 image(s) are there more than once" in words(examine(tmp_path), "note")


@pytest.mark.promise("22")
def test_captions_share_a_frame_with_their_pictures():
    """Wide, flat pictures: the caption is above its own pair, in one frame, and the frames do not touch."""
    from van.tools.doctor.pictures import BACKGROUND, CAPTION, CARD, FRAME, GAP, INSIDE

    tiles = [(f"number {i}", Image.new("RGB", (400, 40), (i, 0, 0)), Image.new("RGB", (400, 40))) for i in range(2)]
    pixels = np.asarray(contact_sheet(tiles, [], side=100, columns=1))
    column = [tuple(pixel) for pixel in pixels[:, GAP + INSIDE + 90].tolist()]  # through pictures, beside the captions
    frames = [row for row, color in enumerate(column) if color == FRAME]
    assert len(frames) == 4  # two frames, a top and a bottom each
    for top, bottom, number in ((frames[0], frames[1], 0), (frames[2], frames[3], 1)):
        inside = column[top + 1 : bottom]
        assert inside.count((number, 0, 0)) == 10  # its own picture, and no other
        assert inside.index((number, 0, 0)) == CAPTION - 1
        assert set(inside) <= {CARD, (number, 0, 0)}
    assert frames[2] - frames[1] == GAP + 1
    assert all(color == BACKGROUND for color in column[frames[1] + 1 : frames[2]])
