"""docs/export.md is true: its Python and its commands run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from exported import CLASSES, classifier, picture

import van
from van.cli import main

pytestmark = pytest.mark.long

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
TEXT = (Path(__file__).parent.parent.parent / "docs" / "export.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_document_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    van.save(classifier(), "out.safetensors")
    names = ["cat.jpg", "images/1.jpg", *(f"my_data/val/{name}/1.jpg" for name in CLASSES)]
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed=number).save(name)
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("van ")]
    assert len(commands) == 6
    for command in commands:
        assert main(command) == 0, f"{command}: {capsys.readouterr().err}"
    (block,) = blocks("python")
    exec(compile(block, "docs/export.md", "exec"), {})
    assert capsys.readouterr().out.split()[-1] in CLASSES
