"""Segmentation data: layouts, mask formats and the errors of broken data sets."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_training import training_of

from van.data.dataset import TrainingSet
from van.data.joint import JointExample, JointTransform, distort, generator, saturate
from van.data.masks import MaskRule, read_mask
from van.data.segmentation import open_segmentation, splits_of
from van.errors import ConfigError, DataError, UnknownNameError, VanNotice
from van.images import palettes
from van.images.label_maps import default_palette
from van.images.preprocess import IMAGENET, Preprocess
from van.recipes import get_recipe

PALETTE = [(0, 0, 0), (200, 0, 0), (0, 200, 0)]


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    (image if mode is None else image.convert(mode)).save(path)


def picture(path, height=4, width=6):
    save(path, np.full((height, width, 3), 90, np.uint8))


def mask(values, height=4, width=6):
    """A label map that begins with `values` and repeats the last."""
    flat = np.full(height * width, values[-1], np.uint8)
    flat[: len(values)] = values
    return flat.reshape(height, width)


def folder(root, description="", masks=None):
    """images/, masks/ and a dataset.yaml of three classes."""
    for name, values in (masks or {"a": mask([0, 1, 2, 255])}).items():
        picture(root / "images" / f"{name}.jpg")
        if isinstance(values, np.ndarray):
            save(root / "masks" / f"{name}.png", values)
    text = f"images: images\nmasks: masks\nnames: [ground, cat, dog]\nval_fraction: 0.5\n{description}\n"
    (root / "dataset.yaml").write_text(text)
    return root


def only(root):
    """Image and labels of the single pair: with one image, nothing is drawn for validation."""
    data = open_segmentation(root, "train")
    assert len(data) == 1
    return data.load(0)


def first(labels, count):
    return labels.ravel()[:count].tolist()


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# --- published layouts ---


def ade20k(root, values, part="validation"):
    picture(root / "images" / part / "a.jpg")
    save(root / "annotations" / part / "a.png", mask(values))
    return root


def test_ade20k(tmp_path):
    data = open_segmentation(ade20k(tmp_path, [0, 1, 150, 2, 255]), "val")
    image, labels = data.load(0)
    assert image.mode == "RGB"
    assert image.size == (6, 4)
    assert labels.shape == (4, 6)
    assert labels.dtype == np.uint8
    assert first(labels, 5) == [255, 0, 149, 1, 255]
    assert len(data.classes) == len(data.palette) == 150
    assert (data.classes[0], data.classes[149], data.palette[0]) == ("wall", "flag", (120, 120, 120))
    assert data.ignore_index == 255
    assert data.name(0).endswith("images/validation/a.jpg")
    assert splits_of(tmp_path) == ("val",)


def test_a_part_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="has no 'train' part; it has: val") as error:
        open_segmentation(ade20k(tmp_path, [1]), "train")
    one_line(error)


def test_values_outside_the_classes_name_file_value_and_pixels(tmp_path):
    data = open_segmentation(ade20k(tmp_path, [151, 151, 200, 1]), "val")
    with pytest.raises(DataError) as error:
        data.load(0)
    text = one_line(error)
    assert "annotations/validation/a.png" in text
    assert "value 151 on 2 pixel(s), value 200 on 1 pixel(s)" in text
    assert "150 classes 1 … 150 (0 and 255 ignored)" in text


def cityscapes(root, suffix, values):
    picture(root / "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png")
    save(root / f"gtFine/val/ulm/ulm_0_gtFine_{suffix}.png", mask(values))
    save(root / "gtFine/val/ulm/ulm_0_gtFine_color.png", np.zeros((4, 6, 4), np.uint8))
    return open_segmentation(root, "val")


def test_cityscapes_label_ids_go_through_the_published_table(tmp_path):
    data = cityscapes(tmp_path, "labelIds", [7, 11, 26, 33, 0, 30, 255])
    assert first(data.load(0)[1], 7) == [0, 2, 13, 18, 255, 255, 255]
    assert data.classes[13] == "car"
    assert len(data) == 1


def test_cityscapes_train_ids_are_preferred(tmp_path):
    cityscapes(tmp_path, "labelIds", [7])
    data = cityscapes(tmp_path, "labelTrainIds", [18, 0, 255])
    assert first(data.load(0)[1], 3) == [18, 0, 255]


def voc(root, image):
    picture(root / "JPEGImages/a.jpg")
    picture(root / "JPEGImages/unlisted.jpg")
    (root / "SegmentationClass").mkdir(parents=True)
    image.save(root / "SegmentationClass/a.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\n")
    return open_segmentation(root, "val")


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_voc_palette_masks_and_the_same_saved_as_rgb(tmp_path, mode):
    image = Image.fromarray(mask([0, 1, 20, 255, 5]))
    image.putpalette([channel for color in default_palette(256) for channel in color])
    data = voc(tmp_path, image.convert(mode))
    assert first(data.load(0)[1], 5) == [0, 1, 20, 255, 5]
    assert (data.classes[20], data.palette[1], data.palette[15]) == ("tvmonitor", (128, 0, 0), (192, 128, 128))


def test_voc_list_with_a_missing_file(tmp_path):
    voc(tmp_path, Image.fromarray(mask([0])))
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\nunlisted\n\ngone\n")
    with pytest.raises(DataError, match=r"2 image\(s\) have no mask \(unlisted.jpg, gone\) and 1 mask\(s\) have no"):
        open_segmentation(tmp_path, "val")


def test_coco_stuff_pixel_maps_close_the_gaps(tmp_path):
    picture(tmp_path / "images/val2017/a.jpg")
    save(tmp_path / "stuffthingmaps/val2017/a.png", mask([0, 10, 12, 89, 91, 181, 255]))
    data = open_segmentation(tmp_path, "val")
    assert first(data.load(0)[1], 7) == [0, 10, 11, 79, 80, 170, 255]
    assert (data.classes[79], data.classes[80], data.classes[170]) == ("toothbrush", "banner", "wood")
    save(tmp_path / "stuffthingmaps/val2017/a.png", mask([11, 0]))
    with pytest.raises(DataError, match=r"value 11 on 1 pixel\(s\); expected the 171 listed values"):
        data.load(0)


@pytest.mark.parametrize(("part", "stored"), [("val2017", 170), ("test2014", 171)])
def test_coco_stuff_train_ids(tmp_path, part, stored):
    picture(tmp_path / f"images/{part}/a.jpg")
    save(tmp_path / f"annotations/{part}/a_labelTrainIds.png", mask([stored, 255]))
    assert first(open_segmentation(tmp_path, "val").load(0)[1], 2) == [170, 255]


def test_published_tables():
    for name, count in (("ADE20K", 150), ("CITYSCAPES", 19), ("VOC", 21), ("COCO_STUFF", 171)):
        classes, colors = getattr(palettes, f"{name}_CLASSES"), getattr(palettes, f"{name}_PALETTE")
        assert len(classes) == len(set(classes)) == len(colors) == count
    assert default_palette(256)[255] == palettes.VOC_BORDER == (224, 224, 192)
    assert set(palettes.COCO_STUFF_TRAIN_IDS.values()) == set(range(171))


# --- which layout ---


def test_unknown_layout_says_what_was_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"dataset.yaml; ADE20K .*Cityscapes .*VOC .*COCO-Stuff") as error:
        open_segmentation(tmp_path, "val")
    one_line(error)
    with pytest.raises(DataError, match="does not exist"):
        open_segmentation(tmp_path / "nowhere", "val")


def test_ambiguous_layout(tmp_path):
    ade20k(tmp_path, [1])
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(DataError, match=r"fits the layouts ADE20K and VOC; describe it in .*dataset.yaml"):
        open_segmentation(tmp_path, "val")


def test_a_description_overrules_the_layout(tmp_path):
    ade20k(tmp_path, [0, 1])
    text = "images: {val: images/validation}\nmasks: {val: annotations/validation}\nnames: [a, b]"
    (tmp_path / "dataset.yaml").write_text(text)
    data = open_segmentation(tmp_path, "val")
    assert data.classes == ("a", "b")
    assert first(data.load(0)[1], 2) == [0, 1]
    assert len(open_segmentation(tmp_path / "dataset.yaml", "val")) == 1


# --- described folders ---


def test_index_palette_and_rgb_masks_are_the_same_labels(tmp_path):
    wanted = mask([0, 1, 2, 1, 0])
    colored = Image.fromarray(wanted)
    colored.putpalette([channel for color in PALETTE for channel in color])
    description = "palette: [[0, 0, 0], '#c80000', [0, 200, 0]]\nignore_color: [255, 255, 255]"
    for name, image in (("index", Image.fromarray(wanted)), ("palette", colored), ("rgb", colored.convert("RGB"))):
        root = folder(tmp_path / name, description)
        image.save(root / "masks/a.png")
        assert (only(root)[1] == wanted).all(), name
    pixels = np.array(colored.convert("RGB"))
    pixels[0, 0] = 255
    save(tmp_path / "rgb/masks/a.png", pixels)
    assert first(only(tmp_path / "rgb")[1], 2) == [255, 1]
    pixels[0, 0] = (1, 2, 3)
    save(tmp_path / "rgb/masks/a.png", pixels)
    with pytest.raises(DataError, match=r"a.png holds colour \(1, 2, 3\) on 1 pixel\(s\); expected the 3 palette"):
        only(tmp_path / "rgb")


def test_a_palette_image_read_as_rgb_is_told(tmp_path):
    root = folder(tmp_path)
    save(root / "masks/a.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"a.png is a colour image \(PIL mode RGB\).*palette image read as RGB"
    ) as error:
        only(root)
    one_line(error)


def test_palette_images_numbered_at_will_need_by_color(tmp_path):
    image = Image.fromarray(mask([0, 1, 2]))
    image.putpalette([*PALETTE[2], *PALETTE[0], *PALETTE[1]])
    description = "palette: [[0, 0, 0], [200, 0, 0], [0, 200, 0]]"
    for extra, wanted in (("", [0, 1, 2]), ("\nby_color: true", [2, 0, 1])):
        root = folder(tmp_path / str(len(extra)), description + extra)
        image.save(root / "masks/a.png")
        assert first(only(root)[1], 3) == wanted
        rule = open_segmentation(root, "train").rule
        assert read_mask(root / "masks/a.png", rule).disputed is (extra == "")


def test_classes_that_share_a_colour_cannot_be_read_from_rgb(tmp_path):
    root = folder(tmp_path, "palette: [[0, 0, 0], [9, 9, 9], [9, 9, 9]]")
    assert first(only(root)[1], 3) == [0, 1, 2]
    save(root / "masks/a.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"classes 1 and 2 share the colour \(9, 9, 9\)"):
        only(root)


def test_values_reduce_zero_label_and_own_ignore_index(tmp_path):
    root = folder(tmp_path / "a", "values: {0: 0, 255: 1, 7: 100}\nignore_index: 100", {"a": mask([0, 255, 7, 100])})
    assert first(only(root)[1], 4) == [0, 1, 100, 100]
    root = folder(tmp_path / "b", "reduce_zero_label: true", {"a": mask([0, 1, 3, 255])})
    assert first(only(root)[1], 4) == [255, 0, 2, 255]


def test_more_than_255_classes_in_sixteen_bits(tmp_path):
    values = np.full((4, 6), 299, np.uint16)
    values[0, :2] = 0, 65535
    root = folder(tmp_path, "ignore_index: 65535")
    (root / "names.txt").write_text("\n".join(f"class {i}" for i in range(300)))
    text = (root / "dataset.yaml").read_text().replace("[ground, cat, dog]", "names.txt")
    (root / "dataset.yaml").write_text(text)
    save(root / "masks/a.png", values)
    labels = only(root)[1]
    assert labels.dtype == np.uint16
    assert first(labels, 3) == [0, 65535, 299]


def gray_png(path, values, bits):
    """A grey PNG of few bits per pixel, which PIL cannot write."""
    import struct
    import zlib

    rows = b"".join(
        b"\0"
        + int("".join(f"{v:0{bits}b}" for v in row).ljust(-(-len(row) * bits // 8) * 8, "0"), 2).to_bytes(
            -(-len(row) * bits // 8), "big"
        )
        for row in values
    )

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_grey_pngs_hold_indices_not_brightness(tmp_path, bits):
    values = [[0, 1, 1, 0, 1, 0], [1, 2 if bits > 1 else 0, 0, 1, 1, 1]]
    gray_png(tmp_path / "m.png", values, bits)
    stored = read_mask(tmp_path / "m.png", MaskRule(num_classes=3))
    assert stored.labels.tolist() == values


def test_lists_name_the_parts(tmp_path):
    root = folder(tmp_path, "lists: {train: train.txt, val: val.txt}", {name: mask([0]) for name in "abc"})
    (root / "train.txt").write_text("a\nb.png\n")
    (root / "val.txt").write_text("c\n")
    assert [Path(open_segmentation(root, "train").name(i)).stem for i in range(2)] == ["a", "b"]
    assert len(open_segmentation(root, "val")) == 1


def test_train_and_val_inside_the_folders_are_found(tmp_path):
    for part, count in (("train", 2), ("val", 1)):
        for i in range(count):
            picture(tmp_path / f"images/{part}/{i}_rgb.png")
            save(tmp_path / f"masks/{part}/{i}_labels.png", mask([0]))
            save(tmp_path / f"masks/{part}/{i}_depth.png", mask([0]))
    text = "images: images\nmasks: masks\nnames: {0: x, 1: y}\nimage_suffix: _rgb.png\nmask_suffix: _labels.png"
    (tmp_path / "dataset.yaml").write_text(text)
    assert [len(open_segmentation(tmp_path, split)) for split in ("train", "val")] == [2, 1]
    assert open_segmentation(tmp_path, "val").classes == ("x", "y")


def test_a_drawn_validation_part_is_disjoint_complete_and_seeded(tmp_path):
    root = folder(tmp_path, "", {f"{i:02}": mask([0]) for i in range(10)})

    def names(split, **options):
        data = open_segmentation(root, split, **options)
        return {data.name(i) for i in range(len(data))}

    train, val = names("train"), names("val")
    assert len(train | val) == 10
    assert len(val) == 5
    assert names("val", seed=1) != val
    assert len(names("val", val_fraction=0.2)) == 2
    text = (root / "dataset.yaml").read_text().replace("val_fraction: 0.5", "")
    (root / "dataset.yaml").write_text(text)
    with pytest.warns(VanNotice, match="20% of the images are drawn"):
        assert len(open_segmentation(root, "val")) == 2


@pytest.mark.parametrize(
    ("description", "error", "message"),
    [
        ("palete: []", UnknownNameError, "unknown key in dataset.yaml 'palete'; did you mean 'palette'?"),
        ("palette: [[0, 0, 0]]", ConfigError, "palette has 1 colours for 3 classes"),
        ("palette: [[0, 0, 0], [0, 0], [1, 1, 1]]", ConfigError, r"\[0, 0\] is not a colour"),
        ("ignore_index: 1", ConfigError, "ignore_index is 1, but masks store the 3 classes up to 2"),
        ("reduce_zero_label: 1", ConfigError, "reduce_zero_label is 1; expected bool"),
        ("values: {0: 7}", ConfigError, "values maps 0 to 7; expected a stored value and a class 0 … 2 or 255"),
        ("by_color: true", ConfigError, "by_color is set without a palette"),
        ("lists: {tain: a.txt}", ConfigError, "lists is"),
        ("names: [a, a]", ConfigError, "names holds 'a' twice"),
        ("names: {1: a, 2: b}", ConfigError, "without a gap"),
        ("images: [", DataError, "cannot read"),
        ("masks: elsewhere", DataError, "elsewhere does not exist; expected the folder of masks"),
        ("lists: {train: gone.txt}", DataError, "cannot read .*gone.txt"),
    ],
)
def test_descriptions_that_cannot_work(tmp_path, description, error, message):
    root = folder(tmp_path)
    text = (root / "dataset.yaml").read_text().replace("val_fraction: 0.5\n", "")
    keep = [line for line in text.splitlines() if line.split(":")[0] != description.split(":")[0]]
    (root / "dataset.yaml").write_text("\n".join([*keep, description]))
    with pytest.raises(error, match=message) as caught:
        open_segmentation(root, "train", val_fraction=0.5)
    one_line(caught)


def test_a_description_without_names(tmp_path):
    (tmp_path / "dataset.yaml").write_text("images: images\nmasks: masks")
    with pytest.raises(ConfigError, match="does not mention 'names'"):
        open_segmentation(tmp_path, "train")


# --- broken pairs ---


def test_missing_pairs_are_counted_and_named(tmp_path):
    root = folder(tmp_path, "", {"a": mask([0]), "b": None, "c": None, "d": None, "e": None})
    save(root / "masks/z.png", mask([0]))
    with pytest.raises(DataError) as error:
        open_segmentation(root, "train")
    text = one_line(error)
    assert "4 image(s) have no mask (b.jpg, c.jpg, d.jpg, …) and 1 mask(s) have no image (z.png)" in text
    assert len(open_segmentation(root, "train", strict=False)) == 1


def test_sizes_that_differ(tmp_path):
    root = folder(tmp_path, "", {"a": mask([0], 5, 6)})
    with pytest.raises(DataError, match=r"masks/a.png has 6 x 5 pixels, its image 6 x 4; expected the same"):
        only(root)
    save(root / "masks/a.png", mask([0], 6, 4))
    with pytest.raises(DataError, match="width and height are swapped: apply the image's EXIF orientation"):
        only(root)


def test_lossy_masks_and_two_files_of_one_name(tmp_path):
    root = folder(tmp_path, "", {"a": None})
    save(root / "masks/a.jpg", mask([0]))
    with pytest.raises(DataError, match="lossy formats change labels"):
        only(root)
    save(root / "masks/a.png", mask([0]))
    picture(root / "images/a.png")
    with pytest.raises(DataError, match=r"a.jpg and .*a.png have the same name"):
        only(root)


def test_hidden_files_and_folders_are_left_out(tmp_path):
    root = folder(tmp_path)
    picture(root / "images/._a.jpg")
    picture(root / "images/.thumbnails/b.jpg")
    (root / "images/notes.txt").write_text("x")
    assert len(open_segmentation(root, "train")) == 1


def test_unreadable_mask(tmp_path):
    root = folder(tmp_path)
    (root / "masks/a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"masks/a.png"):
        only(root)


def test_unknown_split(tmp_path):
    with pytest.raises(ConfigError, match="split is 'test'; expected one of train, val"):
        open_segmentation(tmp_path, "test")


# --- joint transforms ---

PLAIN = {"base": None, "scale": (1.0, 1.0), "flip": 0.0, "photometric": False, "max_class_share": 1.0}


def blocks(height, width, classes=12, side=8):
    """A label map of blocks and an image whose red channel is 20 times the label."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, classes, (-(-height // side), -(-width // side)))
    labels = small.repeat(side, 0).repeat(side, 1)[:height, :width].astype(np.uint8)
    pixels = np.stack([labels * 20, 255 - labels * 20, np.full_like(labels, 7)], -1)
    return Image.fromarray(pixels), labels


def red(image, preprocess):
    return (image[0] * preprocess.std[0] + preprocess.mean[0]) * 255


def test_a_whole_image_is_only_normalised():
    image, labels = blocks(40, 56)
    out, mask_out = JointTransform(preprocess=IMAGENET, crop=(40, 56), **PLAIN)(image, labels, generator(0, 0, 0))
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    np.testing.assert_allclose(out.numpy(), (pixels - mean) / std, atol=1e-6)
    assert (mask_out.numpy() == labels).all()
    assert str(out.dtype) == "torch.float32"
    assert str(mask_out.dtype) == "torch.int64"
    assert type(out).__name__ == type(mask_out).__name__ == "Tensor"


def test_image_and_labels_move_together():
    image, labels = blocks(64, 96)
    transform = JointTransform(preprocess=IMAGENET, crop=(32, 48), **PLAIN | {"flip": 0.5})
    flipped = set()
    for index in range(20):
        out, mask_out = transform(image, labels, generator(0, 0, index))
        assert out.shape == (3, 32, 48)
        np.testing.assert_allclose(red(out, IMAGENET).numpy(), mask_out.numpy() * 20, atol=1e-3)
        windows = np.lib.stride_tricks.sliding_window_view(labels, (32, 48))
        flipped.add(bool((windows == mask_out.numpy()).all((2, 3)).any()))
    assert flipped == {True, False}


def test_scaling_keeps_image_and_labels_aligned():
    image, labels = blocks(64, 96, side=32)
    transform = JointTransform(preprocess=IMAGENET, crop=(128, 192), **PLAIN | {"scale": (2.0, 2.0)})
    out, mask_out = transform(image, labels, generator(0, 0, 0))
    agree = (red(out, IMAGENET) - mask_out * 20).abs() < 1
    assert agree.float().mean() > 0.93  # bilinear edges differ, nothing else
    assert (mask_out.numpy() == labels.repeat(2, 0).repeat(2, 1)).all()


@pytest.mark.parametrize(
    ("size", "scale", "wanted"),
    [
        ((683, 512), 1.0, (683, 512)),
        ((300, 1000), 1.0, (512, 1707)),  # short side to 512
        ((200, 2000), 1.0, (205, 2048)),  # long side stops at 2048
        ((256, 256), 0.5, (256, 256)),
        ((512, 512), 1.998, (1022, 1022)),  # 1022.98 cut to whole base sides, as published
    ],
)
def test_sizes_before_the_crop_are_the_published_ones(size, scale, wanted):
    image, labels = Image.new("RGB", size[::-1]), np.ones(size, np.uint8)
    options = PLAIN | {"base": (2048, 512), "scale": (scale, scale)}
    _, mask_out = JointTransform(preprocess=IMAGENET, crop=(2200, 2200), **options)(image, labels, generator(0, 0, 0))
    inside = mask_out == 1
    assert (int(inside.any(1).sum()), int(inside.any(0).sum())) == wanted


def test_padding_is_the_mean_colour_without_label():
    image, labels = blocks(16, 24)
    out, mask_out = JointTransform(preprocess=IMAGENET, crop=(32, 32), **PLAIN)(image, labels, generator(0, 0, 0))
    assert (mask_out[:16, :24].numpy() == labels).all()
    assert (out[:, 16:] == 0).all()
    assert (out[:, :, 24:] == 0).all()
    assert (mask_out[16:] == 255).all()
    assert (mask_out[:, 24:] == 255).all()


def test_a_crop_larger_than_the_image_is_an_error_without_padding(tmp_path):
    root = folder(tmp_path)
    transform = JointTransform(preprocess=IMAGENET, crop=(32, 48), pad=False, **PLAIN)
    data = TrainingSet(open_segmentation(root, "train"), JointExample(transform, seed=0))
    with pytest.raises(DataError, match=r"a.jpg: crop 32 x 48 is larger than the image, 4 x 6") as error:
        data[0, 0]
    one_line(error)


def test_the_class_cap_redraws_crops_ruled_by_one_class():
    labels = np.zeros((64, 256), np.uint8)
    labels[:, 200:] = 1
    image = Image.new("RGB", (256, 64))

    def mixed(share):
        transform = JointTransform(preprocess=IMAGENET, crop=(64, 64), **PLAIN | {"max_class_share": share})
        parts = [transform(image, labels, generator(0, 0, i))[1].float().mean() for i in range(40)]
        return sum(0.25 < part < 0.75 for part in parts)

    assert mixed(1.0) < 12
    assert mixed(0.75) > 30
    transform = JointTransform(preprocess=IMAGENET, crop=(64, 64), **PLAIN | {"max_class_share": 0.75})
    ignored = np.where(labels == 1, 255, 0).astype(np.uint8)  # one class and no label: nothing to wait for
    assert transform(image, ignored, generator(0, 0, 0))[1].shape == (64, 64)
    assert transform(image, np.full_like(labels, 255), generator(0, 0, 0))[1].shape == (64, 64)


def test_the_same_epoch_and_index_give_the_same_pixels_and_global_generators_rest():
    import random

    import torch

    image, labels = blocks(90, 120)
    transform = JointTransform(preprocess=IMAGENET, crop=(48, 48), base=(256, 64))
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first_run = transform(image, labels, generator(3, 1, 5))
    again = transform(image, labels, generator(3, 1, 5))
    assert all((a == b).all() for a, b in zip(first_run, again, strict=True))
    assert not (transform(image, labels, generator(3, 2, 5))[0] == first_run[0]).all()
    assert not (transform(image, labels, generator(3, 1, 6))[0] == first_run[0]).all()
    assert not (transform(image, labels, generator(4, 1, 5))[0] == first_run[0]).all()
    assert (before[0] == torch.get_rng_state()).all()
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_one_channel():
    image, labels = blocks(40, 40)
    gray = Preprocess(mean=(0.5,), std=(0.5,))
    out, _ = JointTransform(preprocess=gray, crop=(32, 32))(image, labels, generator(0, 0, 0))
    assert out.shape == (1, 32, 32)


def test_sixteen_bit_labels_survive_scaling():
    labels = np.full((20, 20), 300, np.uint16)
    transform = JointTransform(preprocess=IMAGENET, crop=(32, 32), base=None, ignore_index=65535)
    _, mask_out = transform(Image.new("RGB", (20, 20)), labels, generator(0, 0, 1))
    assert set(mask_out.unique().tolist()) <= {300, 65535}
    assert (mask_out == 300).any()


def test_saturation_equals_hsv():
    import colorsys

    import torch

    pixels = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    pixels[:, 0, 0] = 0.4  # grey
    pixels[:, 0, 1] = 0
    for factor in (0.5, 1.0, 1.5):
        ours = saturate(pixels, factor)
        for i, j in np.ndindex(5, 7):
            h, s, v = colorsys.rgb_to_hsv(*pixels[:, i, j].tolist())
            expected = colorsys.hsv_to_rgb(h, min(s * factor, 1), v)
            np.testing.assert_allclose(ours[:, i, j].numpy(), expected, atol=2e-6)


class Script:
    """A generator whose coins and numbers are given."""

    def __init__(self, coins, numbers):
        self.coins, self.numbers = list(coins), list(numbers)

    def random(self):
        return 0.0 if self.coins.pop(0) else 0.9

    def uniform(self, low, high):
        value = self.numbers.pop(0)
        assert low <= value <= high
        return value

    integers = uniform


def test_distortion_steps():
    import torch

    pixels = torch.full((3, 2, 2), 0.4)
    pixels[0] = 0.8
    # coins: brightness, contrast first?, [contrast], saturation, hue, [contrast]
    assert torch.equal(distort(pixels, Script([0, 0, 0, 0, 0], [])), pixels)
    brighter = distort(pixels, Script([1, 0, 0, 0, 0], [25.5]))
    torch.testing.assert_close(brighter, pixels + 0.1)
    first_, last = (distort(pixels, Script(coins, [1.5, 0.5])) for coins in ([0, 1, 1, 1, 0], [0, 0, 1, 0, 1]))
    # contrast 1.5 clips red at 1, then saturation halves; saturation 1.5 first, then contrast halves
    torch.testing.assert_close(first_[:, 0, 0], torch.tensor([1.0, 0.8, 0.8]))
    torch.testing.assert_close(last[:, 0, 0], torch.tensor([0.4, 0.1, 0.1]))
    turned = distort(pixels, Script([0, 0, 0, 1, 0], [15]))
    torch.testing.assert_close(turned[:, 0, 0], torch.tensor([0.8, 0.6, 0.4]), atol=1e-5, rtol=0)  # 30 degrees


@pytest.mark.parametrize(
    "options",
    [{"crop": (0, 5)}, {"scale": (2.0, 0.5)}, {"max_class_share": 0.0}, {"flip": 1.5}, {"base": (512,)}],
)
def test_impossible_transforms(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        JointTransform(preprocess=IMAGENET, **options)


def test_training_pads_with_the_ignore_index_of_the_data(tmp_path):
    data = open_segmentation(folder(tmp_path), "train")
    data.ignore_index = 100
    training = training_of(get_recipe("light_ham_digits").with_options(**{"augment.crop": (32, 48)}))
    example = training.example(data, SimpleNamespace(preprocess=IMAGENET))
    _, labels = TrainingSet(data, example)[0, 0]
    assert labels.shape == (32, 48)
    assert (labels == 100).any()
