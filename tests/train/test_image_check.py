"""Unreadable images are named before training, all at once, and only new files are looked at again."""

import os
import re
import warnings

import pytest
from chaos import numbers
from tiny_training import make_stripes, slim_recipe

from van.cli import main
from van.data import labelled_images, open_classification
from van.data.checking import check_images
from van.errors import ConfigError, DataError, PreemptedError, VanNotice
from van.recipes import get_recipe
from van.train import image_check, run
from van.train.module import TrainingModule


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Sixteen training images and eight to validate with, none of them new."""
    monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
    for name, count in (("train", 8), ("val", 4)):
        make_stripes(tmp_path / "data" / name, count=count)
    for path in (tmp_path / "data").rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    return tmp_path / "data"


def damage(data, *names):
    for name in names:
        content = (data / name).read_bytes()
        (data / name).write_bytes(content[: len(content) // 2])


def recipe(data, **options):
    return slim_recipe(data, data.parent / "run", **{"trainer.epochs": 1, **options})


@pytest.fixture
def read(monkeypatch):
    """Names of the images that the check decodes."""
    names, read_image = [], labelled_images.read_image

    def reading(path):
        names.append(path.name)
        return read_image(path)

    monkeypatch.setattr(labelled_images, "read_image", reading)
    return names


@pytest.mark.promise("15")
def test_all_are_named_before_training(data, monkeypatch):
    monkeypatch.setattr(TrainingModule, "training_step", None)
    names = [f"train/{label}/{i}.png" for label in ("across", "along") for i in range(6)]
    damage(data, *names)
    expected = (
        r"12 training images cannot be read, trainer\.max_unreadable is 10: .*across/0\.png.*, …; all are in .*\.txt"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", VanNotice)  # nothing stands in for images of a run that ends here
        with pytest.raises(DataError, match=expected):
            run(recipe(data))
    listed = (data.parent / "run" / "unreadable.txt").read_text()
    assert all(name in listed for name in names)
    monkeypatch.undo()
    for name in names:  # the same command, once they are repaired
        (data / name).write_bytes((data / "train" / "along" / "7.png").read_bytes())
    run(recipe(data))
    assert not (data.parent / "run" / "unreadable.txt").exists()


@pytest.mark.promise("15")
def test_a_few_are_replaced_as_if_they_were_met_in_training(data):
    """Checked or not, the run is the same, bit for bit."""
    damage(data, "train/along/1.png", "train/across/5.png")
    with pytest.warns(VanNotice, match="cannot be read; another image") as said:
        run(recipe(data))
    assert len(said) == 2
    with pytest.warns(VanNotice, match="cannot be read; another image"):
        run(recipe(data, **{"data.check": "none", "trainer.out": str(data.parent / "unchecked")}))
    assert numbers(data.parent / "run") == numbers(data.parent / "unchecked")


@pytest.mark.promise("15")
def test_an_unreadable_validation_image_stops_at_once(data, capsys):
    damage(data, "val/along/1.png", "val/across/2.png")
    with pytest.raises(DataError, match=r"2 validation image\(s\) cannot be read.*across/2\.png, .*along/1\.png"):
        run(recipe(data))


@pytest.mark.promise("15")
def test_no_tolerance(data):
    damage(data, "train/along/1.png")
    with pytest.raises(DataError, match=r"max_unreadable is 0: .*along/1\.png"):
        run(recipe(data, **{"trainer.max_unreadable": 0}))


@pytest.mark.promise("15")
@pytest.mark.parametrize("index", [True, False])
def test_the_second_check_reads_what_changed(index, data, read, tmp_path):
    options = {"index": tmp_path / "index"} if index else {}
    damage(data, "train/along/1.png")
    images = open_classification(data, "train")
    first = check_images(images, **options)
    assert (first.decoded, first.known, len(first.unreadable), len(read)) == (16, 0, 1, 16)
    read.clear()
    (data / "train" / "across" / "3.png").write_bytes((data / "train" / "across" / "4.png").read_bytes())
    second = check_images(images, **options)
    assert sorted(read) == ["1.png", "3.png"]
    assert (second.decoded, second.known, list(second.unreadable)) == (2, 14, list(first.unreadable))
    assert (tmp_path / "index").is_dir() is index


@pytest.mark.promise("15")
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY"])
def test_a_damaged_memory_is_made_again(content, data, tmp_path):
    images = open_classification(data, "val")
    check_images(images, index=tmp_path)
    file = next(tmp_path.glob("*.whole.npy"))
    file.write_bytes(content)
    assert check_images(images, index=tmp_path).decoded == 8
    assert check_images(images, index=tmp_path).decoded == 0


@pytest.mark.promise("15")
def test_what_does_not_fit_into_the_time_is_left_and_said(data, monkeypatch):
    monkeypatch.setattr(image_check, "LIMIT_S", 0.0)
    with pytest.warns(VanNotice, match=r"images were checked .*were not; the next start goes on there"):
        run(recipe(data))
    found = check_images(open_classification(data, "train"), limit_s=0.0, threads=1)
    assert found.decoded + found.known + found.left == 16


@pytest.mark.promise("15")
def test_a_check_that_is_interrupted_keeps_what_it_knows(data):
    images = open_classification(data, "train")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_images(images, stop=stop, threads=1)
    assert check_images(images).known == 1


@pytest.mark.promise("16")
def test_signals_during_the_check(data, monkeypatch, capsys):
    """Ctrl-C, and a scheduler's warning."""
    look = image_check.check_images

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(image_check, "check_images", interrupted)
    with pytest.raises(KeyboardInterrupt, match="nothing to resume"):
        run(recipe(data))

    def preempted(*arguments, stop, **options):
        stop.__closure__[0].cell_contents.asked = True
        return look(*arguments, stop=stop, **options)

    monkeypatch.setattr(image_check, "check_images", preempted)
    with pytest.raises(PreemptedError, match="before the first step"):
        run(recipe(data))


@pytest.mark.promise("15")
def test_options_without_effect():
    with pytest.raises(ConfigError, match="did you mean 'none'"):
        get_recipe("finetune").with_options(**{"data.check": "non"})
    with pytest.raises(ConfigError, match="belong to files"):
        get_recipe("digits_van_b0").with_options(**{"data.check": "none"})
    with pytest.raises(ConfigError, match=r"data\.check has no effect"):
        get_recipe("finetune").with_options(**{"data.check": "none", "data.reader": "tar"})


@pytest.mark.promise("15")
def test_the_command_says_it_on_one_line(data, capsys):
    damage(data, "val/along/1.png")
    options = ["--data.path", str(data), "--trainer.out", str(data.parent / "run"), "--data.size", "32"]
    slim = ["--model.embed_dims=[8,16,24,32]", "--model.depths=[1,1,1,1]", "--trainer.batch_size=4"]
    assert main(["train", "finetune", *options, *slim]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"van: error: 1 validation image\(s\) cannot be read, .*along/1\.png; all are in .*", last)


@pytest.mark.promise("15")
def test_names_that_are_no_text(data):
    name = os.fsdecode(b"val/along/\xff.png")
    (data / name).write_bytes(b"broken")
    with pytest.raises(DataError, match="1 validation image"):
        run(recipe(data))
    assert "udcff" in (data.parent / "run" / "unreadable.txt").read_text(encoding="utf-8")
