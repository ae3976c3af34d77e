"""Files that lie about their sizes, what is no file at all, and numbers that are none."""

import os
import shutil
import struct

import h5py
import numpy as np
import pytest
import torch
from mutations import check
from networks import tiny
from PIL import Image

import van
from van import checkpoints
from van.cli import main
from van.errors import CheckpointError, ConfigError, DataError, UnsafeFileError, VanError, VanNotice
from van.images.preprocess import read_image, to_color
from van.inference.evaluate import evaluate
from van.inference.predictor import find_images

pytestmark = pytest.mark.promise("declared-sizes")


@pytest.fixture
def keras(tmp_path):
    van.save(tiny().eval(), tmp_path / "x.weights.h5", format="keras")
    return tmp_path / "x.weights.h5"


def refused(path, says, kind=CheckpointError):
    with pytest.raises(kind, match=says) as error:
        van.load(path)
    assert "\n" not in str(error.value)
    check(lambda: van.info(path), path.name)


def test_an_hdf5_file_that_unpacks_to_terabytes(keras):
    with h5py.File(keras, "a") as file:
        del file["layers/dense/vars/0"]
        chunked = file["layers/dense/vars"].create_dataset("0", (10**6, 10**6), "f4", chunks=(1, 1000), compression=9)
        chunked[0, :1000] = 1
    refused(keras, "declares far more values")


def test_an_hdf5_file_with_links_deep_groups_or_other_values(keras, tmp_path):
    for number, damage in enumerate((
        lambda file: file.__setitem__("y", h5py.SoftLink("/layers/dense/vars/0")),
        lambda file: file.__setitem__("y", h5py.ExternalLink("/etc/passwd", "x")),
        lambda file: file.__setitem__("layers/dense/y", file["layers"]),
        lambda file: file.create_group("/".join("a" * 5000)),
        lambda file: file.create_dataset("y", (3,), h5py.string_dtype()),
        lambda file: file.create_dataset("y", (3,), h5py.ref_dtype),
        lambda file: file["layers/dense/vars"].attrs.__setitem__("name", ["x" * 60000]),
    )):  # fmt: skip
        path = tmp_path / f"{number}.weights.h5"
        shutil.copy(keras, path)
        with h5py.File(path, "a") as file:
            damage(file)
        refused(path, "link|nested|two places|expected numbers|names|tensors|truncated|does not fit")


def test_safetensors_headers_that_lie(tmp_path):
    van.save(tiny().eval(), tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = whole[8 : 8 + size].decode()
    for changed in (
        header.replace("[8]", "[8000000000000]", 1),
        header.replace('"data_offsets":[0,', '"data_offsets":[0,9', 1),
        header.replace("F32", "F8_E4M3", 1),
        header.replace("[8]", "[-8]", 1),
        "[" * 10**5,
    ):
        text = changed.encode()
        (tmp_path / "y.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
        refused(tmp_path / "y.safetensors", "truncated, corrupt|truncated or corrupt|not a checkpoint")
    for length in (2**63, 2**40, 0):
        (tmp_path / "y.safetensors").write_bytes(struct.pack("<Q", length) + whole[8:])
        refused(tmp_path / "y.safetensors", "truncated|not a checkpoint")


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "loop"])
def test_what_is_no_file_never_waits(tmp_path, kind, capsys):
    import socket

    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(DataError):
        read_image(path)
    with pytest.raises(CheckpointError):
        checkpoints.read(path)
    assert main(["info", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_pipes_beside_the_weights(tmp_path):
    van.save(tiny().eval(), tmp_path / "hub", format="transformers")
    (tmp_path / "hub" / "config.json").unlink()
    os.mkfifo(tmp_path / "hub" / "config.json")
    refused(tmp_path / "hub", "config.json is a named pipe")


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_paths_that_are_none(path, tmp_path, monkeypatch, capsys):
    van.save(tiny().eval(), tmp_path / "here.safetensors")
    monkeypatch.chdir(tmp_path)
    model = tiny().eval()
    for call, kind in (
        (lambda: van.load(path), CheckpointError),
        (lambda: van.info(path), CheckpointError),
        (lambda: van.Predictor(path), CheckpointError),
        (lambda: van.save(model, path), CheckpointError),
        (lambda: van.convert("here.safetensors", path, to="official"), CheckpointError),
        (lambda: van.export(model, path, format="onnx"), ConfigError),
        (lambda: evaluate(model, path), DataError),
        (lambda: read_image(path), DataError),
    ):
        with pytest.raises(kind, match=r"is an empty path|NUL character"):
            call()
    images, failures = find_images([path])
    assert not images
    assert "path" in failures[0].reason
    if "\0" not in path:
        assert main(["predict", "here.safetensors", path]) == 2
        assert main(["eval", "here.safetensors", "--data", path]) == 2
        assert main(["predict", "here.safetensors", "x.png", "--out", path or " "]) == 2


def test_only_formats_that_are_meant_are_opened(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "y.png", format="TGA")
    Image.new("RGB", (8, 8)).save(tmp_path / "z.png", format="ICO")
    for name in "xyz":
        with pytest.raises(DataError, match="cannot identify"):
            read_image(tmp_path / f"{name}.png")
    for format in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"):  # noqa: A001
        Image.new("RGB", (8, 8)).save(tmp_path / "fine", format=format)
        assert read_image(tmp_path / "fine").size == (8, 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers(tmp_path, value, capsys):
    pixels = np.zeros((40, 40), np.float32)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match="NaN or infinite pixels"):
        to_color(read_image(tmp_path / "x.tiff"), "RGB")
    van.save(tiny().eval(), tmp_path / "m.safetensors")
    assert main(["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "x.tiff")]) == 2
    assert "NaN or infinite" in capsys.readouterr().err


def test_sixteen_bits_of_either_order_keep_their_upper_half(tmp_path):
    values = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    for order, mode in (("<", "I;16"), (">", "I;16B")):
        image = Image.frombytes(mode, (8, 8), values.astype(f"{order}u2").tobytes())
        image.save(tmp_path / "x.tiff")
        assert np.array_equal(np.asarray(to_color(read_image(tmp_path / "x.tiff"), "L")), values >> 8)


def test_pictures_that_unpack_to_gigabytes(tmp_path):
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b""))
    with pytest.raises(DataError, match="exceeds limit"):
        read_image(tmp_path / "x.png")


def test_weights_that_are_no_numbers_are_said(tmp_path, capsys):
    model = tiny().eval()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
        model.backbone.stages[0].norm.bias[1] = float("inf")
    van.save(model, tmp_path / "x.safetensors")
    says = "2 tensors hold NaN or infinite values.*: backbone.stages.0.norm.bias, head.weight"
    with pytest.warns(VanNotice, match=says):
        van.load(tmp_path / "x.safetensors")
    assert "2 tensors hold NaN" in str(van.info(tmp_path / "x.safetensors"))
    assert any(
        "hold NaN" in note for note in van.convert(tmp_path / "x.safetensors", tmp_path / "y", to="official").notes
    )
    with pytest.warns(VanNotice, match=says), pytest.raises(VanError, match="not finite"):
        van.export(tmp_path / "x.safetensors", tmp_path / "x.onnx")


def test_hostile_images_in_evaluation_are_named(tmp_path):
    model = tiny(num_classes=2).eval()
    for name in "ab":
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "val" / name / "x.png")
    os.mkfifo(tmp_path / "val" / "a" / "y.png")
    with pytest.raises(DataError, match=r"y\.png.* is a named pipe"):
        evaluate(model, tmp_path / "val")
    (tmp_path / "val" / "a" / "y.png").unlink()
    (tmp_path / "val" / "a" / "y.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match=r"y\.png cannot be read as an image"):
        evaluate(model, tmp_path / "val")


def test_a_link_to_another_file_is_unsafe(keras):
    with h5py.File(keras, "a") as file:
        file["y"] = h5py.ExternalLink("/etc/passwd", "x")
    refused(keras, "is a link", UnsafeFileError)
