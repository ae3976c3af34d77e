"""Exported files of strangers, and damaged ones: nothing runs unasked, foreign files are named."""

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from exported import SUFFIX, classifier
from mutations import check

import van
from van.cli import main
from van.errors import CheckpointError, UnsafeFileError, VanError, VanNotice
from van.inference.description import KEY
from van.inference.engines import written
from van.inference.engines.exported import description_of, info_of, open_exported
from van.inference.evaluate import evaluate

IMAGES = np.zeros((1, 3, 32, 32), np.float32)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAN_CACHE", str(folder / "cache"))
        for suffix in SUFFIX.values():
            van.export(classifier(), folder / f"m{suffix}")
    return folder


@pytest.fixture(autouse=True)
def cache(desk, monkeypatch):
    monkeypatch.setenv("VAN_CACHE", str(desk / "cache"))


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def hostile(desk, tmp_path):
    """A .pt2 file with our record, whose sample inputs are a pickle that leaves a file behind."""
    path = tmp_path / "hostile.pt2"
    with zipfile.ZipFile(desk / "m.pt2") as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if "sample_inputs" in entry.filename:
                data = pickle.dumps(Touch(tmp_path / "executed"))
            target.writestr(entry.filename, data)
    return path


@pytest.mark.promise("pt2")
@pytest.mark.long
def test_looking_at_a_program_runs_nothing(desk, tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("opened"))
    path = hostile(desk, tmp_path)
    assert main(["info", str(path)]) in (0, None)
    assert "van_custom" in capsys.readouterr().out
    assert info_of(path).description == description_of(path)
    assert info_of(path).description.task == "classification"
    assert not (tmp_path / "executed").exists()


@pytest.mark.promise("pt2")
def test_a_stranger_s_program_needs_trust(desk, tmp_path, capsys):
    path = hostile(desk, tmp_path)
    picture = tmp_path / "x.png"
    __import__("PIL.Image").Image.new("RGB", (40, 40)).save(picture)
    for call in (open_exported, van.Predictor, lambda source: evaluate(source, "digits")):
        with pytest.raises(
            UnsafeFileError, match=r"not exported on this machine.*trust=True \(--trust\).*\.onnx"
        ) as error:
            call(path)
        assert "\n" not in str(error.value)
    for arguments in (["predict", str(path), str(picture)], ["eval", str(path), "--data", "digits"]):
        assert main(arguments) == 2
        assert "--trust" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    with pytest.raises(VanError):  # what stands there is no input
        open_exported(path, trust=True)


@pytest.mark.promise("pt2")
@pytest.mark.long
def test_what_this_machine_exported_opens_under_any_name(desk, tmp_path, capsys):
    moved = tmp_path / "moved.pt2"
    shutil.copy(desk / "m.pt2", moved)
    want = open_exported(moved).run(IMAGES)["logits"]
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    with pytest.raises(UnsafeFileError, match="or was changed since"):
        open_exported(moved)
    picture = tmp_path / "x.png"
    __import__("PIL.Image").Image.new("RGB", (40, 40)).save(picture)
    assert main(["predict", str(desk / "m.pt2"), str(picture)]) == 0
    again = pickle.loads(pickle.dumps(open_exported(desk / "m.pt2")))
    assert np.array_equal(again.run(IMAGES)["logits"], want)


@pytest.mark.promise("pt2")
def test_another_machine_s_program_opens_with_trust(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("VAN_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UnsafeFileError):
        van.Predictor(desk / "m.pt2")
    assert not (tmp_path / "empty").exists()
    assert van.Predictor(desk / "m.pt2", trust=True).opened.runtime == "torch.export"


@pytest.mark.promise("pt2")
def test_a_cache_that_others_can_write_proves_nothing(desk, tmp_path, monkeypatch):
    shutil.copytree(desk / "cache", tmp_path / "cache")
    monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
    open_exported(desk / "m.pt2")
    (tmp_path / "cache" / "exported").chmod(0o777)
    with pytest.raises(UnsafeFileError):
        open_exported(desk / "m.pt2")
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by every user"):
        written.note(desk / "m.pt2")
    from van.exporting.exporter import _note_written

    with pytest.warns(VanNotice, match=r"will need trust=True \(--trust\).*every user"):
        _note_written(desk / "m.pt2", Path("x.pt2"))


@pytest.mark.promise("exported-files")
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "missing.bin", "weights.bin"])
def test_onnx_files_keep_their_tensors_inside(desk, tmp_path, location):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(desk / "m.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "weights.bin").write_bytes(bytes(10**6))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="keeps tensors in other files"):
        open_exported(tmp_path / "m.onnx")


@pytest.mark.promise("exported-files")
def test_onnx_files_without_or_with_another_description(desk, tmp_path):
    onnx = pytest.importorskip("onnx")
    for text, says in (
        (None, "holds no description"),
        ("{", "cannot be read"),
        ('{"a": 1}', "cannot be read"),
        ("[" * 10**5, "nested too deeply"),
        (description_of(desk / "m.onnx").to_json().replace('s": 5', 's": 7'), "5 classes for a network of 7"),
    ):
        model = onnx.load(desk / "m.onnx")
        del model.metadata_props[:]
        if text is not None:
            model.metadata_props.add(key=KEY, value=text)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(VanError, match=says) as error:
            open_exported(tmp_path / "m.onnx").run(IMAGES)
        assert "\n" not in str(error.value)


@pytest.mark.promise("exported-files")
def test_openvino_s_weights_are_compared_before_they_are_read(desk, tmp_path):
    for name in ("m.xml", "m.bin"):
        shutil.copy(desk / name, tmp_path / name)
    whole = (tmp_path / "m.bin").read_bytes()
    for content in (b"", whole[:-1], bytes(len(whole)), whole + b"\0"):
        (tmp_path / "m.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"m\.bin is not the file that m\.xml was written with"):
            open_exported(tmp_path / "m.xml")
    (tmp_path / "m.bin").unlink()
    (tmp_path / "m.bin").mkdir()
    with pytest.raises(CheckpointError, match=r"m\.bin is a folder"):
        open_exported(tmp_path / "m.xml")


@pytest.mark.promise("exported-files")
@pytest.mark.long
def test_entities_in_an_xml_file_are_refused(desk, tmp_path):
    shutil.copy(desk / "m.bin", tmp_path / "m.bin")
    whole = (desk / "m.xml").read_text()
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "lol"}">' for i in range(30))
    for declared in (laughs, '<!ENTITY x SYSTEM "file:///etc/passwd">'):
        (tmp_path / "m.xml").write_text(whole.replace("<net", f"<!DOCTYPE net [{declared}]><net", 1))
        with pytest.raises(CheckpointError, match="declares a document type"):
            open_exported(tmp_path / "m.xml")
    (tmp_path / "m.xml").write_text("<a>" * 10**5)
    with pytest.raises(CheckpointError, match="cannot be read as an exported network"):
        open_exported(tmp_path / "m.xml")


@pytest.mark.promise("exported-files")
@pytest.mark.parametrize("suffix", SUFFIX.values())
def test_cut_and_empty_files_and_what_is_no_file(desk, tmp_path, suffix):
    import os

    path = tmp_path / f"m{suffix}"
    shutil.copy(desk / "m.bin", tmp_path / "m.bin")
    whole = (desk / f"m{suffix}").read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError) as error:
            open_exported(path, trust=True)
        assert "\n" not in str(error.value)
        check(lambda: info_of(path), f"{size} bytes")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is a named pipe"):
        open_exported(path)
