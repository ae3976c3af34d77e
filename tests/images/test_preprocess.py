"""The evaluation transform equals torchvision's and timm's pixel for pixel, and odd images behave as documented."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from van.errors import ConfigError, DataError, UnknownNameError
from van.images.preprocess import IMAGENET, MAX_RESIZED_PIXELS, OFFICIAL, Preprocess, lineage_22k, read_image, resized

SIZES = [(320, 240), (375, 500), (101, 133), (50, 20), (224, 224), (249, 248), (1, 1), (30, 100)]


def picture(width, height, seed=0):
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def torchvision_eval(preprocess, image, v2):
    from torchvision.transforms import InterpolationMode, transforms
    from torchvision.transforms import v2 as new

    t = new if v2 else transforms
    mode = InterpolationMode(preprocess.interpolation)
    height, width = preprocess.size
    resize = (height, width) if preprocess.resize == "squash" else int(height / preprocess.crop_pct)
    steps = [t.Resize(resize, mode), t.CenterCrop(preprocess.size)]
    tensor = transforms.ToTensor()(transforms.Compose(steps)(image))
    return transforms.Normalize(preprocess.mean, preprocess.std)(tensor).numpy()


@pytest.mark.parametrize(
    ("interpolation", "v2"),
    [("bicubic", False), ("bicubic", True), ("bilinear", True), ("nearest", True), ("lanczos", True)],
)
@pytest.mark.parametrize("base", [OFFICIAL, IMAGENET, OFFICIAL.with_overrides(resize="squash", size=(96, 160))])
def test_equals_torchvision_bit_for_bit(base, interpolation, v2):
    preprocess = base.with_overrides(interpolation=interpolation)
    for size in SIZES:
        image = picture(*size)
        ours = preprocess(image)
        assert ours.dtype == np.float32
        assert ours.flags.c_contiguous
        np.testing.assert_array_equal(ours, torchvision_eval(preprocess, image, v2), err_msg=str(size))


@pytest.mark.parametrize("size", [224, 32, (64, 96), (100, 60)])
@pytest.mark.parametrize("crop_pct", [0.9, 0.875, 1.0, 0.96])
def test_equals_timm_bit_for_bit_also_for_crops_that_are_not_square(size, crop_pct):
    from timm.data.transforms_factory import transforms_imagenet_eval

    preprocess = Preprocess(size=size, crop_pct=crop_pct)
    theirs = transforms_imagenet_eval(size, crop_pct, interpolation="bicubic", mean=preprocess.mean, std=preprocess.std)
    for width, height in SIZES:
        image = picture(width, height)
        np.testing.assert_array_equal(preprocess(image), theirs(image).numpy(), err_msg=f"{width} x {height}")


def test_official_resizes_to_248_and_crops_224():
    assert resized(OFFICIAL, 640, 480) == (330, 248)
    assert OFFICIAL.crop(picture(640, 480)).size == (224, 224)
    assert (OFFICIAL.mean, OFFICIAL.std, OFFICIAL.crop_pct) == ((0.5,) * 3, (0.5,) * 3, 0.9)


def test_the_22k_lineage_warps_at_384_and_above():
    assert lineage_22k(224) == IMAGENET
    assert lineage_22k(384).resize == "squash"
    np.testing.assert_array_equal(
        np.asarray(lineage_22k(384).crop(picture(500, 300))),
        np.asarray(picture(500, 300).resize((384, 384), Image.Resampling.BICUBIC)),
    )


def test_a_gray_pipeline_has_one_channel():
    from torchvision.transforms import functional as F

    gray = Preprocess(size=32, mean=(0.3,), std=(0.2,), crop_pct=1.0)
    assert (gray.color, gray.channels) == ("L", 1)
    image = picture(32, 32)
    expected = F.normalize(F.to_tensor(image.convert("L")), gray.mean, gray.std).numpy()
    np.testing.assert_array_equal(gray(image), expected)
    assert gray(image).shape == (1, 32, 32)


def as_seen(image, size=8):
    return np.asarray(Preprocess(size=size, crop_pct=1.0, interpolation="nearest").crop(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_other_modes_are_converted_as_pil_does(mode):
    image = picture(8, 8).convert("P").convert("PA") if mode == "PA" else picture(8, 8).convert(mode)
    np.testing.assert_array_equal(as_seen(image), np.asarray(image.convert("RGB")))


def test_transparency_is_dropped_without_a_warning():
    image = picture(8, 8).quantize(16)
    image.info["transparency"] = bytes([0] * 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = as_seen(image)
    del image.info["transparency"]
    np.testing.assert_array_equal(seen, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_sixteen_bit_images_keep_their_upper_byte(dtype):
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(dtype)
    image = Image.fromarray(values)
    assert image.mode in ("I;16", "I")
    np.testing.assert_array_equal(as_seen(image)[..., 0], values >> 8)


def test_exif_orientation_is_not_applied_as_in_the_official_code():
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    picture(20, 10).save(buffer, "png", exif=exif)
    seen = Preprocess(size=(10, 20), resize="squash").crop(Image.open(buffer))
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(picture(20, 10)))


def test_images_that_cannot_be_used_say_why():
    with pytest.raises(DataError, match="PIL mode 'LAB' cannot be used"):
        Preprocess(mean=(0.5,), std=(0.5,))(Image.new("LAB", (4, 4)))
    with pytest.raises(DataError, match="0 x 4 pixels"):
        OFFICIAL(Image.new("RGB", (0, 4)))
    with pytest.raises(DataError, match=r"1 x 100000 pixels would be resized to .*squash"):
        OFFICIAL(Image.new("RGB", (1, 100_000)))
    assert MAX_RESIZED_PIXELS > 248 * 248 * 100
    assert OFFICIAL.with_overrides(resize="squash")(Image.new("RGB", (1, 100_000))).shape == (3, 224, 224)


def test_reading_names_the_file_and_the_reason(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    buffer = io.BytesIO()
    picture(64, 64).save(buffer, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:400])
    picture(5, 6).save(tmp_path / "fine.png")
    for name in ("text.jpg", "cut.jpg"):
        with pytest.raises(DataError, match=f"{name} cannot be read as an image"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="no such image"):
        read_image(tmp_path / "absent.jpg")
    assert read_image(tmp_path / "fine.png").size == (5, 6)


def test_the_record_survives_json():
    for record in (OFFICIAL, IMAGENET, lineage_22k(384), Preprocess(size=28, mean=(0.1,), std=(0.3,))):
        assert Preprocess.from_dict(record.to_dict()) == record
    assert Preprocess(size=32).to_dict()["size"] == [32, 32]
    with pytest.raises(UnknownNameError, match="crop_pct"):
        Preprocess.from_dict({"crop_pc": 0.9})


def test_overrides_keep_what_is_not_given():
    changed = OFFICIAL.with_overrides(size=96, crop_pct=None, mean=[0.1, 0.2, 0.3])
    assert changed == Preprocess(size=(96, 96), mean=(0.1, 0.2, 0.3))
    with pytest.raises(UnknownNameError, match="did you mean 'size'"):
        OFFICIAL.with_overrides(sise=3)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size": 0}, "size is 0; expected"),
        ({"size": (3,)}, "size is"),
        ({"size": True}, "size is True"),
        ({"size": 22.4}, "size is 22.4"),
        ({"crop_pct": 0}, r"crop_pct is 0.0; expected a share in \(0, 1\]"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5"),
        ({"crop_pct": float("nan")}, "crop_pct is nan"),
        ({"mean": 0.5}, "mean is 0.5; expected one number per channel"),
        ({"mean": ("a",) * 3}, "mean is 'a'"),
        ({"mean": (0.5,)}, "three entries each"),
        ({"mean": (0.5,) * 4, "std": (0.5,) * 4}, "three entries each"),
        ({"std": (0.5, 0, 0.5)}, "must be positive"),
        ({"interpolation": "bicubi"}, "did you mean 'bicubic'"),
        ({"resize": "squish"}, "did you mean 'squash'"),
    ],
)
def test_impossible_records_are_refused(fields, says):
    with pytest.raises(ConfigError, match=says):
        Preprocess(**fields)
