"""EXIF orientation: pictures are seen as people see them, unless a published protocol is asked for."""

import io

import numpy as np
import pytest
from networks import tiny
from PIL import Image

import van
from van.cli import main
from van.data import open_classification
from van.data.segmentation import open_segmentation
from van.images.preprocess import Preprocess, read_image
from van.inference.evaluate import evaluate

pytestmark = pytest.mark.promise("20")

ORIENTATION = 0x0112
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def saved(path, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, orientation, format):  # noqa: A002
    path = saved(tmp_path / "x", orientation, format=format, lossless=True)
    want = {1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1], 5: PIXELS.transpose(1, 0, 2),
            6: np.rot90(PIXELS, -1), 7: PIXELS[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PIXELS)}  # fmt: skip
    assert np.array_equal(np.asarray(read_image(path).convert("RGB")), want[orientation])
    assert np.array_equal(np.asarray(read_image(path, exif=False).convert("RGB")), PIXELS)


def test_a_damaged_block_leaves_the_picture_as_it_is(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), PIXELS)


def test_prediction_applies_it_to_paths_and_to_pictures_in_memory(tmp_path, capsys):
    model = tiny().eval()
    model.preprocess = Preprocess(size=(32, 32))
    turned, plain = saved(tmp_path / "x.png", 6), tmp_path / "plain.png"
    Image.fromarray(np.rot90(PIXELS, -1)).save(plain)
    Image.fromarray(PIXELS).save(tmp_path / "stored.png")
    upright, stored = van.Predictor(model), van.Predictor(model, exif=False)
    assert upright(turned).top == upright(plain).top == upright(Image.open(turned)).top
    assert stored(turned).top == stored(tmp_path / "stored.png").top == stored(Image.open(turned)).top
    assert upright(turned).top != stored(turned).top
    van.save(model, tmp_path / "m.safetensors")
    said = []
    for option in ([], ["--ignore-exif"]):
        assert main(["predict", str(tmp_path / "m.safetensors"), str(turned), "--format", "json", *option]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] != said[1]


def test_evaluation_applies_it_and_can_ignore_it(tmp_path):
    for name in "ab":
        (tmp_path / "val" / name).mkdir(parents=True)
        saved(tmp_path / "val" / name / "x.png", 6)
    for exif, size in ((True, (24, 40)), (False, (40, 24))):
        assert open_classification(tmp_path / "val", "all", exif=exif).load(0)[0].size == size
    model = tiny(num_classes=2).eval()
    losses = [evaluate(model, tmp_path / "val", exif=exif, size=32).loss for exif in (True, False)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_masks_decide_where_only_one_of_the_two_fits(tmp_path, drawn_on):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    shape = (40, 24) if drawn_on == "upright" else (24, 40)
    for number in range(5):
        saved(tmp_path / "images" / f"{number}.png", 6)
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "dataset.yaml").write_text("images: images\nmasks: masks\nnames: [a, b]\nval_fraction: 0.2\n")
    image, label = open_segmentation(tmp_path, "train").load(0)
    assert (image.height, image.width) == label.shape == shape
