"""Parts of a data set are found under every usual name, in any case, for every layout; what is no class is refused."""

import tarfile

import pytest
from segmentation_pairs import make_pairs
from tiny_training import make_stripes, slim_recipe

from van.cli import main
from van.data import has_own_val, open_classification, read_folder
from van.data.layouts import find_layout
from van.data.readers import open_reader
from van.data.segmentation import open_segmentation
from van.data.split_folders import split_folder
from van.errors import DataError
from van.recipes import DataSpec
from van.train.prepare import prepare

PAIRS = [
    ("Train", "Val"), ("training", "validation"), ("TRAIN", "VALID"), ("train", "valid"), ("Training", "Test"),
    ("train", "testing"), ("Train", "dev"),
]  # fmt: skip


@pytest.mark.promise("3")
@pytest.mark.parametrize(("train", "val"), PAIRS)
def test_parts_of_class_folders_under_every_name(train, val, tmp_path):
    make_stripes(tmp_path / train, count=3)
    make_stripes(tmp_path / val, count=2)
    assert has_own_val(tmp_path)
    for split, name, images in (("train", train, 6), ("val", val, 4), ("all", val, 4)):
        data = open_classification(tmp_path, split)
        assert (data.classes, len(data)) == (("across", "along"), images)
        assert data.name(0).startswith(str(tmp_path / name))


@pytest.mark.promise("3")
def test_training_uses_them(tmp_path):
    make_stripes(tmp_path / "Train", count=4)
    make_stripes(tmp_path / "Val", count=1)
    job = prepare(slim_recipe(tmp_path, tmp_path / "run"))
    assert (job.module.classes, len(job.data.images), len(job.data.val_set)) == (("across", "along"), 8, 2)


@pytest.mark.promise("3")
@pytest.mark.parametrize("both", [("train", "Train"), ("val", "Val"), ("train", "training"), ("val", "validation")])
def test_two_folders_of_one_meaning_are_an_error(both, tmp_path):
    for name in {"train", "val", *both}:
        make_stripes(tmp_path / name, count=2)
    with pytest.raises(DataError, match=" and ".join(sorted(both))) as caught:
        open_classification(tmp_path, "train")
    assert "rename" in str(caught.value)


@pytest.mark.promise("3")
def test_val_goes_before_test(tmp_path):
    for name in ("train", "Val", "test"):
        make_stripes(tmp_path / name, count=2)
    assert split_folder(tmp_path, "val") == tmp_path / "Val"


@pytest.mark.promise("3")
def test_a_single_part_in_any_case(tmp_path):
    make_stripes(tmp_path / "Training", count=5)
    assert (len(open_classification(tmp_path, "val")), open_classification(tmp_path, "val").classes[0]) == (2, "across")


@pytest.mark.promise("3")
@pytest.mark.parametrize("names", [("part1", "part2"), ("data",), ("Train set", "Val set")])
def test_class_folders_that_hold_only_folders_are_refused(names, tmp_path, capsys):
    for name in names:
        make_stripes(tmp_path / "set" / name, count=2)
    with pytest.raises(DataError, match=rf"{names[0]} holds folders \(across, along\) and no image of its own.* pass"):
        read_folder(tmp_path / "set")
    assert main(["train", "finetune", "--data.path", str(tmp_path / "set")]) == 2
    assert "no image of its own" in capsys.readouterr().err


@pytest.mark.promise("3")
def test_parts_without_class_folders_are_no_classes(tmp_path):
    source = make_stripes(tmp_path / "source", count=3)
    (source / "across").rename(source / "Train")
    (source / "along").rename(source / "val")
    with pytest.raises(DataError, match=r"Train holds images, but no class folders; expected Train/CLASS/IMAGE"):
        open_classification(source, "train")


@pytest.mark.promise("3")
def test_classes_may_be_called_as_parts_are(tmp_path):
    source = make_stripes(tmp_path, count=3)
    (source / "across").rename(source / "Train")
    assert open_classification(source, "all").classes == ("Train", "along")


@pytest.mark.promise("3")
def test_suffixes_of_images_in_any_case(tmp_path):
    for path in [*make_stripes(tmp_path, count=2).rglob("*.png")]:
        path.rename(path.with_suffix(".PNG"))
    assert len(read_folder(tmp_path)) == 4


@pytest.mark.promise("3")
def test_tar_files_in_any_case(tmp_path):
    make_stripes(tmp_path / "files", count=2)
    for name in ("Train", "Valid"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as file:
            for label in ("across", "along"):
                file.add(tmp_path / "files" / label, arcname=label)
    spec = DataSpec(path=str(tmp_path), reader="tar")
    assert [len(open_reader(spec, split, seed=0, batch_size=1)) for split in ("train", "val")] == [4, 4]


@pytest.mark.promise("3")
def test_label_maps_in_any_case(tmp_path):
    for part in ("Training", "VALIDATION"):
        make_pairs(tmp_path, f"Images/{part}", f"annotations/{part.lower()}")
    assert find_layout(tmp_path).name == "ADE20K"
    assert [len(open_segmentation(tmp_path, split)) for split in ("train", "val")] == [2, 2]


@pytest.mark.promise("3")
def test_ends_of_file_names_in_any_case(tmp_path):
    for part in ("Train", "Val"):
        make_pairs(tmp_path, f"leftImg8bit/{part}/a", f"gtFine/{part}/a", "_gtFine_labelIds.PNG", "_LEFTIMG8BIT.png")
    assert [len(open_segmentation(tmp_path, split)) for split in ("train", "val")] == [2, 2]


@pytest.mark.promise("3")
def test_described_folders_find_their_parts_in_any_case(tmp_path):
    for part in ("Train", "Valid"):
        make_pairs(tmp_path, f"images/{part}", f"masks/{part.upper()}")
    (tmp_path / "dataset.yaml").write_text("images: images\nmasks: masks\nnames: [a, b]\n")
    assert [len(open_segmentation(tmp_path, split)) for split in ("train", "val")] == [2, 2]


@pytest.mark.promise("3")
@pytest.mark.parametrize(("empty", "full"), [("val", "train"), ("Train", "validation")])
def test_an_empty_part_is_named(tmp_path, empty, full):
    make_stripes(tmp_path / full, count=2)
    (tmp_path / empty).mkdir()
    with pytest.raises(DataError, match=f"{empty} is empty; expected one sub-folder of images per class"):
        open_classification(tmp_path, "train")
