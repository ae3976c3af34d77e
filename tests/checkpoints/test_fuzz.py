"""Seeded damage of every kind of file: reading it succeeds or raises a VanError of one line, and soon.

The default suite tries some three hundred files; `pytest -m slow tests/test_fuzz.py` some ten thousand.
"""

import io
import json
import random
import shutil
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from exported import SUFFIX, classifier
from mutations import check, damaged, swapped, text_of
from networks import TINY, lived_in
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import van
from van.data.index import Folder, list_classes
from van.errors import UnsafeFileError
from van.images.preprocess import Preprocess, read_image
from van.inference.engines.exported import info_of, open_exported
from van.nn import Classifier

pytestmark = [
    pytest.mark.promise("torch-files"),
    pytest.mark.promise("configurations"),
    pytest.mark.promise("declared-sizes"),
]

SMALL = TINY.with_options(embed_dims=(4, 4, 4, 8), depths=(1, 1, 1, 1), mlp_ratios=(1, 1, 1, 1))
SEGMENTER = {"embed_dims": (8,) * 4, "depths": (1,) * 4, "mlp_ratios": (1,) * 4, "channels": 32, "ham_channels": 32}
MANY = 40  # times as many in the slow test


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    model = lived_in(Classifier(SMALL)).eval()
    model.classes, model.preprocess = tuple("abcde"), Preprocess(size=(32, 32))
    model.provenance = {"split": {"seed": 0, "val_fraction": 0.2}, "scores": {"val/top1": 50.0}}
    segmenter = lived_in(van.create_model("light_ham_van_b0", num_classes=5, ham_rank=4, **SEGMENTER)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        van.save(model, folder / "van.safetensors")
        van.save(model, folder / "official.pth", format="official")
        van.save(model, folder / "keras.weights.h5", format="keras")
        van.save(model, folder / "tfvan.h5", format="tfvan")
        van.save(model, folder / "paddle.pdparams", format="paddle")
        van.save(model, folder / "flax.weights", format="flax")
        van.save(model, folder / "hub", format="transformers")
        van.save(segmenter, folder / "mmseg.pth", format="mmseg")
    tree = torch.load(folder / "official.pth", weights_only=False)
    torch.save(tree, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return folder


def rounds(few):
    """Parameters of a test: some rounds in the default suite, many in the slow one."""
    return pytest.mark.parametrize("count", [few, pytest.param(few * MANY, marks=pytest.mark.slow)])


def use(path):
    told = van.info(path)
    assert str(told)
    json.dumps(told.to_dict())
    van.load(path)


FILES = ("official.pth", "legacy.pth", "mmseg.pth", "van.safetensors", "keras.weights.h5")
PORTS = ("tfvan.h5", "paddle.pdparams", "flax.weights")


@rounds(20)
@pytest.mark.parametrize("name", [*FILES, *PORTS])
def test_checkpoint_files(desk, tmp_path, name, count):
    whole, path = (desk / name).read_bytes(), tmp_path / name
    for number in range(count):
        path.write_bytes(damaged(whole, random.Random(number)))
        check(partial(use, path), f"{name}, seed {number}")


@rounds(15)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
def test_folders(desk, tmp_path, name, count):
    folder = tmp_path / "hub"
    shutil.copytree(desk / "hub", folder)
    if name == "model.safetensors.index.json":
        (folder / "model.safetensors").rename(folder / "part")
        whole = {"weight_map": dict.fromkeys(load_file(folder / "part"), "part")}
    else:
        whole = json.loads((folder / name).read_text())
    for number in range(count):
        draw = random.Random(number)
        (folder / name).write_bytes(text_of(swapped(whole, draw), draw))
        check(partial(use, folder), f"{name}, seed {number}")


@rounds(30)
def test_records(desk, tmp_path, count):
    path = tmp_path / "x.safetensors"
    with safe_open(desk / "van.safetensors", "np") as file:
        metadata = file.metadata()
    arrays = load_file(desk / "van.safetensors")
    fields = {name: json.loads(text) for name, text in metadata.items() if name not in ("format", "version")}
    for number in range(count):
        draw = random.Random(number)
        changed = swapped(fields, draw)
        values = changed if isinstance(changed, dict) else {"config": changed}
        save_file(arrays, path, {name: text_of(each, draw).decode("utf-8", "replace") for name, each in values.items()})
        check(partial(use, path), f"seed {number}")


@rounds(15)
def test_records_in_pickles(desk, tmp_path, count):
    path = tmp_path / "x.pth"
    tree = torch.load(desk / "official.pth", weights_only=False)
    state = tree.pop("state_dict")
    for number in range(count):
        changed = swapped(tree, random.Random(number))
        torch.save((changed if isinstance(changed, dict) else {}) | {"state_dict": state}, path)
        check(partial(use, path), f"seed {number}")


@rounds(8)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_images(tmp_path, format, count):  # noqa: A002
    image, whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)), io.BytesIO()
    image.save(whole, format)
    see, path = Preprocess(size=(16, 16)), tmp_path / "x"
    for number in range(count):
        path.write_bytes(damaged(whole.getvalue(), random.Random(number)))
        check(lambda: see(read_image(path)), f"{format}, seed {number}")


@pytest.mark.promise("exported-files")
@pytest.mark.promise("pt2")
@rounds(15)
@pytest.mark.parametrize("suffix", SUFFIX.values())
def test_exported_files(tmp_path, suffix, count, monkeypatch):
    monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"x{suffix}"
    van.export(classifier(), path)
    whole = path.read_bytes()

    def run():
        assert str(info_of(path))
        open_exported(path).run(np.zeros((1, 3, 32, 32), np.float32))

    for number in range(count):
        changed = damaged(whole, random.Random(number))
        path.write_bytes(changed)
        said = check(run, f"{suffix}, seed {number}")
        assert suffix != ".pt2" or said or changed == whole  # no changed program is ever opened
    if suffix == ".pt2":
        path.write_bytes(whole + b"\0")
        with pytest.raises(UnsafeFileError):
            open_exported(path)


@rounds(10)
def test_indices_of_images(tmp_path, count):
    (tmp_path / "data").mkdir()
    listing = lambda name: [Folder(name, -1, ())]  # noqa: E731
    list_classes(tmp_path / "data", ["a"], listing, index=tmp_path / "index")
    (file,) = (tmp_path / "index").iterdir()
    whole = file.read_bytes()
    for number in range(count):
        file.write_bytes(damaged(whole, random.Random(number)))
        check(lambda: list_classes(tmp_path / "data", ["a"], listing, index=tmp_path / "index"), f"seed {number}")
