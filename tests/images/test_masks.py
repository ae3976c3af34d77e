"""Label maps as files."""

import numpy as np
import pytest
from PIL import Image

from van.errors import ConfigError, DataError, UnknownNameError
from van.images import label_maps as masks
from van.images.label_maps import bright_palette

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
MASK = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)


def test_index_png_keeps_every_value_and_the_colours(tmp_path):
    path = tmp_path / "new" / "mask.png"
    masks.save_index(path, MASK, PALETTE)
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), MASK)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[0], PALETTE)
    assert [file.name for file in path.parent.iterdir()] == ["mask.png"]


def test_many_classes_take_sixteen_bits(tmp_path):
    mask = np.array([[0, 300, 65535]], np.uint16)
    masks.save_index(tmp_path / "mask.png", mask, masks.default_palette(301))
    with Image.open(tmp_path / "mask.png") as image:
        np.testing.assert_array_equal(np.asarray(image), mask)


@pytest.mark.parametrize("mask", [np.array([[-1]]), np.array([[65536]]), np.zeros((2, 2)), np.zeros((1, 2, 2), int)])
def test_what_a_png_cannot_hold_is_refused(mask, tmp_path):
    with pytest.raises(DataError):
        masks.save_index(tmp_path / "mask.png", mask)
    assert not list(tmp_path.iterdir())


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    masks.save_index(tmp_path / "mask.png", MASK)
    before = (tmp_path / "mask.png").read_bytes()

    def fail(self, file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        masks.save_index(tmp_path / "mask.png", 1 - MASK)
    assert (tmp_path / "mask.png").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mask.png"]


def test_colours():
    np.testing.assert_array_equal(masks.colorize(MASK, PALETTE)[0], PALETTE)
    np.testing.assert_array_equal(masks.colorize(MASK, PALETTE)[1, 1], [0, 0, 0])
    assert masks.colorize(np.array([[300]]), PALETTE).max() == 0


def test_default_palette_is_the_voc_map():
    palette = masks.default_palette(256)
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[255] == (224, 224, 192)
    assert len(set(palette)) == 256


@pytest.mark.parametrize(("opacity", "expected"), [(0.0, (100, 100, 100)), (0.5, (150, 50, 50)), (1.0, (200, 0, 0))])
def test_overlay_mixes_by_opacity_and_leaves_ignored_pixels(opacity, expected):
    picture = masks.overlay(Image.new("RGB", (3, 2), (100, 100, 100)), MASK, PALETTE, opacity=opacity)
    assert picture.getpixel((1, 0)) == expected
    assert picture.getpixel((1, 1)) == (100, 100, 100)  # the ignored one


def test_overlay_refuses_what_cannot_be():
    image = Image.new("L", (3, 2))
    with pytest.raises(ConfigError, match=r"opacity is 1\.5"):
        masks.overlay(image, MASK, PALETTE, opacity=1.5)
    with pytest.raises(DataError, match="2 x 3 pixels, the mask"):
        masks.overlay(image, MASK[:, :2], PALETTE)


def test_legend_stands_at_the_right_with_the_colours_of_the_classes_present():
    mask = np.zeros((200, 300), np.uint8)
    mask[:20] = 2
    image = Image.new("RGB", (300, 200), "gray")
    picture = masks.overlay(image, mask, PALETTE, opacity=1, classes=["wall", "car", "tree"])
    assert picture.height == 200
    legend = np.asarray(picture)[:, 300:].reshape(-1, 3)
    found = {tuple(colour) for colour in np.unique(legend, axis=0).tolist()}
    assert {PALETTE[0], PALETTE[2]} <= found
    assert PALETTE[1] not in found  # no car in the picture
    np.testing.assert_array_equal(np.asarray(picture)[:, :300], masks.colorize(mask, PALETTE))


def test_legend_of_too_many_classes_says_how_many_are_left_out(monkeypatch):
    texts = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, at, text, **_: texts.append(text))
    mask = np.arange(40, dtype=np.uint8).repeat(10).reshape(40, 10)
    masks.with_legend(Image.new("RGB", (10, 40)), mask, masks.default_palette(40), [str(i) for i in range(40)])
    assert texts == ["and 40 more"]
    texts.clear()
    masks.with_legend(Image.new("RGB", (10, 400)), mask, masks.default_palette(40), [str(i) for i in range(40)])
    assert texts[0] == "0  2.5%"
    assert len(texts) - 1 + int(texts[-1].split()[1]) == 40


def test_raw_results(tmp_path):
    masks.save_raw(tmp_path / "mask.npy", MASK)
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), MASK)
    masks.save_raw(tmp_path / "all.npz", {"a": MASK, "b/c": MASK + 1})
    with np.load(tmp_path / "all.npz") as file:
        assert sorted(file) == ["a", "b/c"]
        np.testing.assert_array_equal(file["b/c"], MASK + 1)
    with pytest.raises(ConfigError, match=r"name it \*\.npz"):
        masks.save_raw(tmp_path / "all.npy", {"a": MASK})


def test_submissions(tmp_path):
    mask = np.array([[0, 1, 18]], np.uint8)
    values = {"index": [0, 1, 18], "ade20k": [1, 2, 19], "cityscapes": [7, 8, 33]}
    for layout, expected in values.items():
        path = masks.save_submission(tmp_path / layout, "scene/berlin_000.jpg", mask, layout)
        assert path == tmp_path / layout / "berlin_000.png"
        with Image.open(path) as image:
            assert image.mode == "L"
            assert np.asarray(image).tolist() == [expected]
    with pytest.raises(DataError, match="holds class 19"):
        masks.submission_values(np.array([[19]]), "cityscapes")
    with pytest.raises(UnknownNameError, match="did you mean 'ade20k'"):
        masks.submission_values(mask, "ade2k")


def test_bright_colours_are_all_different_and_none_is_dark():
    colours = bright_palette(133)
    assert len(set(colours)) == 133
    assert min(max(colour) for colour in colours) >= 200
    assert bright_palette(10) == colours[:10]
