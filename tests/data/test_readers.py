"""Tar files, WebDataset shards and Hugging Face data sets: read whole, in a known order, trained on and resumed."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
import torch
from chaos import Victim, assert_same
from interrupted_runs import cut_off
from safetensors.torch import load_file
from tiny_training import make_stripes, slim_recipe
from torch.utils.data import DataLoader

from van.data.readers import open_reader, read_classes
from van.data.streams import StreamSet
from van.errors import ConfigError, DataError, MissingExtraError
from van.recipes import DataSpec
from van.tools.report.page import write_report
from van.train import run

NAMES = ("across", "along")


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """train.tar and val.tar of class folders."""
    root = tmp_path_factory.mktemp("tars")
    for part in ("train", "val"):
        make_stripes(root / "files" / part, count=8)
        with tarfile.open(root / f"{part}.tar", "w") as file:
            for name in NAMES:
                file.add(root / "files" / part / name, arcname=name)
    return root


@pytest.fixture(scope="module")
def shards(tmp_path_factory, tars):
    """WebDataset shards of four images, which say by their labels who they are."""
    root = tmp_path_factory.mktemp("shards")
    for part in ("train", "val"):
        files = sorted((tars / "files" / part).rglob("*.png"))
        for number in range(4):
            with tarfile.open(root / f"{part}-{number:04d}.tar", "w") as shard:
                for path in files[number::4]:
                    key = f"{path.parent.name}{path.stem}"
                    add(shard, f"{key}.png", path.read_bytes())
                    add(shard, f"{key}.cls", str(NAMES.index(path.parent.name)).encode())
    (root / "names.txt").write_text("across\nalong\n")
    (root / "_info.json").write_text(json.dumps({"splits": {}}))
    return root


def add(shard, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    shard.addfile(info, io.BytesIO(data))


def stream_options(shards, **options):
    return {
        "data.path": str(shards), "data.reader": "wds", "data.classes": str(shards / "names.txt"),
        "data.train_split": "train-{0000..0003}.tar", "data.train_images": 16,
        "data.val_split": "val-{0000..0003}.tar", "data.val_images": 16, **options,
    }  # fmt: skip


def test_tar_files_are_like_folders(tars):
    data = open_reader(DataSpec(path=str(tars), reader="tar"), "train", seed=0, batch_size=1)
    assert (data.classes, len(data), sorted(data.labels)) == (NAMES, 16, [0] * 8 + [1] * 8)
    for index in (0, 9, 15):
        image, label = data.load(index)
        assert Path(data.name(index)).parent.name == NAMES[label]
        original = tars / "files" / "train" / NAMES[label] / Path(data.name(index)).name
        assert image.tobytes() == __import__("PIL.Image").Image.open(original).tobytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_training_on_tar_files_equals_training_on_folders(tars, tmp_path, workers):
    weights = []
    for name, options in (
        ("tar", {"data.path": str(tars), "data.reader": "tar"}),
        ("folder", {"data.path": str(tars / "files")}),
    ):
        recipe = slim_recipe(".", tmp_path / name, **options, **{"trainer.epochs": 1, "trainer.workers": workers})
        weights.append(load_file(run(recipe) / "model.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_broken_image_in_a_tar_file_is_named(tars, tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as file:
        add(file, "a/1.png", b"no image")
        add(file, "b/2.png", b"neither")
    data = open_reader(DataSpec(path=str(tmp_path), reader="tar"), "train", seed=0, batch_size=1)
    with pytest.raises(DataError, match=r"a/1\.png"):
        data.load(0)
    with pytest.raises(DataError, match="cannot open"):
        open_reader(DataSpec(path=str(tmp_path), reader="tar"), "val", seed=0, batch_size=1)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(MissingExtraError, match=r"webdataset is needed.*\[data\]"):
        open_reader(DataSpec(path=str(tmp_path), reader="wds"), "train", seed=0, batch_size=1)


def test_class_files(tmp_path):
    (tmp_path / "names.txt").write_text("a\n\n b\n")
    assert read_classes(str(tmp_path / "names.txt")) == ("a", "b")
    (tmp_path / "names.txt").write_text("a\na\n")
    with pytest.raises(DataError, match="2 names, 1 different"):
        read_classes(str(tmp_path / "names.txt"))


def stream(shards, split, *, workers=0, seed=0, ranks=1, rank=0, epoch=0, batch_size=2):
    """(picture, label) of every image of a process in an epoch; pictures as bytes of their first row."""
    spec = slim_recipe(".", ".", **stream_options(shards)).data
    data = open_reader(spec, split, seed=seed, batch_size=batch_size)
    images = StreamSet(
        data, first_row, seed=seed, training=split == "train", batch_size=batch_size, workers=workers
    )  # fmt: skip
    images.rank, images.world_size = rank, ranks
    images.set_epoch(epoch)
    loader = DataLoader(images, batch_size=batch_size, num_workers=workers)
    return [
        (bytes(picture), int(label))
        for pictures, labels in loader
        for picture, label in zip(pictures, labels, strict=True)
    ]


def first_row(image, label, key):
    return row(image), label


def row(image):
    import numpy as np

    return torch.from_numpy(np.asarray(image).reshape(-1)[:96].copy())


def test_validation_sees_every_image_once(shards):
    pytest.importorskip("webdataset")
    whole = stream(shards, "val")
    assert len(set(whole)) == len(whole) == 16
    assert sorted(label for _, label in whole) == [0] * 8 + [1] * 8
    assert sorted(stream(shards, "val", workers=2)) == sorted(whole)
    parts = [stream(shards, "val", ranks=3, rank=rank) for rank in range(3)]
    assert sorted(each for part in parts for each in part) == sorted(whole)
    assert sorted(map(len, parts)) == [5, 5, 6]


def test_the_order_of_a_stream_follows_from_seed_and_epoch(shards):
    pytest.importorskip("webdataset")
    for workers in (0, 2):
        first = stream(shards, "train", workers=workers)
        assert stream(shards, "train", workers=workers) == first
        later = stream(shards, "train", workers=workers, epoch=3)
        assert stream(shards, "train", workers=workers, epoch=3) == later != first
        assert stream(shards, "train", workers=workers, seed=1) != first
        assert len(first) == 16
    shares = [stream(shards, "train", ranks=2, rank=rank) for rank in range(2)]
    assert not set(shares[0]) & set(shares[1])
    assert len(set(shares[0]) | set(shares[1])) == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_resumes_where_it_was(shards, tmp_path, monkeypatch, workers):
    pytest.importorskip("webdataset")
    options = stream_options(shards, **{
        "trainer.workers": workers, "trainer.epochs": 3, "trainer.keep": "last", "trainer.checkpoint_every_steps": 1,
        "augment.mixup": 0.5,
    })  # fmt: skip
    whole = run(slim_recipe(".", tmp_path / "whole", **options))
    recipe = slim_recipe(".", tmp_path / "cut", **options)
    cut_off(monkeypatch, recipe, at_step=6)  # in the second epoch of four steps each
    resumed = run(recipe.with_options(**{"trainer.resume": str(tmp_path / "cut")}))
    one, two = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("reader", "workers"), [("wds", 0), ("wds", 2), ("hfids", 0)])
@pytest.mark.long
def test_two_processes_share_a_stream(shards, tars, tmp_path, reader, workers):
    """Every image once in an epoch, over both; and after the loss of one, what would have been without it."""
    pytest.importorskip({"wds": "webdataset", "hfids": "datasets"}[reader])
    options = stream_options(shards) if reader == "wds" else folder_stream_options(tars, shards)
    recipe = slim_recipe(".", ".", **options, **{
        "trainer.workers": workers, "trainer.devices": 2, "trainer.batch_size": 2, "trainer.epochs": 3,
        "trainer.checkpoint_every_steps": 1, "trainer.keep": "last", "augment.crop_scale": None, "augment.hflip": 0.0,
        "data.shuffle_buffer": 4,
    })  # fmt: skip
    whole, cut = (Victim(recipe, tmp_path / name, ranks=2) for name in ("whole", "cut"))
    assert whole.live() == [0, 0], whole.said()
    for epoch in range(3):
        one, two = whole.saw(epoch)
        assert len(one) == len(two) == 8
        assert len({*one, *two}) == 16
    assert whole.saw(0) != whole.saw(1)  # in another order
    assert cut.live(("kill", "step", 6), rank=1)[1] == -9
    assert cut.live() == [0, 0], cut.said()
    assert_same(whole.folder, cut.folder)


def folder_stream_options(tars, shards):
    return {
        "data.path": str(tars / "files"), "data.reader": "hfids", "data.classes": str(shards / "names.txt"),
        "data.train_images": 16, "data.val_images": 16,
    }  # fmt: skip


def test_report_of_a_stream(shards, tmp_path):
    """Its images have no names, but numbers."""
    pytest.importorskip("webdataset")
    folder = run(
        slim_recipe(".", tmp_path / "run", **stream_options(shards), **{"trainer.epochs": 1, "optim.lr": 1e-6})
    )
    text = write_report(folder).read_text()
    assert "<h2>Confusion matrix</h2>" in text
    top1 = json.loads((folder / "summary.json").read_text())["val/top1"]
    worst = text.split("<h2>Worst-classified images</h2>")[1].split("<h2>")[0]
    assert worst.count("<figure>") == round(16 * (1 - top1 / 100)) > 0
    assert re.fullmatch(r"number \d+", re.findall(r'class="soft">(.*?)<', worst)[0])


def test_streams_need_names_counts_and_enough_shards(shards, tmp_path):
    pytest.importorskip("webdataset")
    spec = slim_recipe(".", ".", **stream_options(shards)).data
    with pytest.raises(ConfigError, match="does not name the classes"):
        open_reader(DataSpec(path=spec.path, reader="wds", train_split=spec.train_split, train_images=16), "train",
                    seed=0, batch_size=1)  # fmt: skip
    with pytest.raises(DataError, match="num_samples"):
        open_reader(DataSpec(path=spec.path, reader="wds", train_split=spec.train_split, classes=spec.classes), "train",
                    seed=0, batch_size=1)  # fmt: skip
    with pytest.raises(ConfigError, match=r"4 shard\(s\) for 5 worker"):
        run(slim_recipe(".", tmp_path / "run", **stream_options(shards, **{"trainer.workers": 5})))


@pytest.mark.parametrize("reader", ["hfds", "hfids"])
def test_hugging_face_data_sets(tars, tmp_path, monkeypatch, reader):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")
    options = {"data.path": str(tars / "files"), "data.reader": reader}
    if reader == "hfids":
        options |= {"data.train_images": 16, "data.val_images": 16, "data.classes": str(tmp_path / "names.txt")}
        (tmp_path / "names.txt").write_text("across\nalong\n")
    folder = run(slim_recipe(".", tmp_path / "run", **options, **{"trainer.epochs": 1}))
    assert json.loads((folder / "summary.json").read_text())["steps"] == 4
