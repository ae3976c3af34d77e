"""README.md and docs/usage.md are true: their figures come from tables, their Python and commands run as they stand."""

import importlib.util
import json
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
from van.configs.backbone import PUBLISHED
from van.moved import MOVED

ROOT = Path(__file__).parent.parent
README, USAGE = "README.md", "docs/usage.md"
DOCUMENTS = sorted(path for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md") for path in ROOT.glob(pattern))


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def commands(document: str) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks(document, "bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("van ")]


@pytest.fixture
def desk(tmp_path_factory, monkeypatch):
    """A working directory with the files that the documents mention."""
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
    monkeypatch.chdir(folder)
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


def test_the_readmes_models_are_the_published_ones():
    rows = re.findall(r"^\| `(van_b\d)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+|–) \|$", (ROOT / README).read_text(), re.M)
    listed = {name: (float(m), float(g), None if top1 == "–" else float(top1)) for name, m, g, top1 in rows}
    assert listed == {name: figures for name, figures in PUBLISHED.items() if name != "van_b6_480"}


def test_the_readmes_times_are_the_ledgers():
    entries = json.loads((ROOT / "docs" / "results.json").read_text())["entries"]
    shown = {entry["id"]: entry.get("shown", "").split(" ")[0] for entry in entries}
    times = [shown[f"measured/cpu/van_b0/batch1/{side}/ms"] for side in ("optimised", "peer")]
    assert re.findall(r"([\d.]+)\s+ms", (ROOT / README).read_text()) == times


@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@pytest.mark.parametrize(("document", "printed"), [(README, "Prediction"), (USAGE, "official")])
def test_python_runs(desk, capsys, document, printed):
    (block,) = blocks(document, "python")
    exec(compile(block, document, "exec"), {})
    assert printed in capsys.readouterr().out
    assert (desk / "out.safetensors").exists()


@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@pytest.mark.parametrize(("document", "least", "written"), [(README, 4, "my_run"), (USAGE, 13, "scores.json")])
def test_commands_run(desk, capsys, document, least, written):
    assert main(["convert", "van_tiny_754.pth.tar", "out.safetensors", "--to", "van"]) == 0
    assert len(commands(document)) >= least
    for command in commands(document):
        assert main(command) == 0, f"{command}: {capsys.readouterr().err}"
    assert (desk / written).exists()


def anchors(text: str) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


# Paths in other projects, and of what users make.
ELSEWHERE = {"tests/test_models.py", "docs/gpu_ops.png", "docs/gpu_model.png"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_and_modules_in_documents_exist(document):
    if document.name == "CHANGELOG.md":  # what was there then
        return
    code = re.findall(r"`([^`\n]+)`", document.read_text())
    for path in {
        word
        for text in code
        for word in re.findall(r"(?<![\w/])(?:src|tests|benchmarks|docs|examples)/[\w/.*-]+", text)
    }:
        assert path in ELSEWHERE or list(ROOT.glob(path.rstrip("/"))), path
    for name in re.findall(r"^\s*(?:from|import) (van(?:\.\w+)+)", document.read_text(), re.MULTILINE):
        assert name not in MOVED, name
        assert importlib.util.find_spec(name), name
