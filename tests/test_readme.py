"""The README is true: its tables come from the ledger, its Python and its commands run as they stand."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import published
import pytest
from PIL import Image
from reference_data import state

from van.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("van ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("desk")
    published.official(folder / "van_tiny_754.pth.tar", state("official_van_b0"))
    draw = np.random.default_rng(0)
    names = ["cat.jpg", "images/1.jpg", "images/2.jpg"]
    names += [
        f"my_data/{part}/{kind}/{i}.jpg" for part in ("train", "val") for kind in ("cat", "dog") for i in range(2)
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (64, 80, 3), np.uint8)).save(folder / name)
    return folder


def test_tables_come_from_the_ledger():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import ledger
    finally:
        sys.path.pop(0)
    for document in ledger.DOCUMENTS:
        assert ledger.rendered(document.read_text(), ledger.read()) == document.read_text(), document
    assert len({entry["id"] for entry in ledger.read()}) == len(ledger.read())
    assert {entry["kind"] for entry in ledger.read()} <= {"published", "ported", "measured"}


@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
def test_python_runs(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    (block,) = blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    assert "official" in capsys.readouterr().out
    assert (desk / "out.safetensors").exists()


@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
def test_commands_run(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    assert main(["convert", "van_tiny_754.pth.tar", "out.safetensors", "--to", "van"]) == 0
    assert len(commands()) >= 8
    for command in commands():
        assert main(command) == 0, f"{command}: {capsys.readouterr().err}"
    assert (desk / "scores.json").exists()
