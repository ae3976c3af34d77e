"""van tune: what is measured, chosen and kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from van.cli import main
from van.cli.tune import cases
from van.ops.triton_tiles import Blocks, from_table
from van.ops.tune import FEWEST, MOST, Case, candidates


def case(**options):
    given = {"use": "map", "side": 7, "dilation": 3, "dtype": torch.bfloat16, "shape": (2, 64, 56, 56)}
    return Case(**(given | options))


def test_without_a_gpu(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main(["tune"]) == 2
    assert "not used here: no CUDA device" in capsys.readouterr().err


def test_the_cases_of_a_network():
    options = SimpleNamespace(models=["van_b0"], size=224, batch=4, precision="fp16", inference=False)
    found = list(cases(options))
    assert len(found) == 4 * 3 * 2  # stages, convolutions, uses
    assert found[2] == Case(use="map", side=7, dilation=3, dtype=torch.float16, shape=(4, 32, 56, 56))
    assert found[-1] == Case(use="weight", side=3, dilation=1, dtype=torch.float16, shape=(4, 1024, 7, 7))
    options.inference = True
    assert {item.use for item in cases(options)} == {"map"}
    assert len(list(cases(options))) == 12


@pytest.mark.parametrize("use", ["map", "weight"])
@pytest.mark.parametrize(("channels", "width"), [(64, 56), (512, 7), (32, 56), (20, 5)])
def test_candidates_fit_and_hold_the_tables_neighbourhood(use, channels, width):
    item = case(use=use, shape=(2, channels, width, width))
    found = list(candidates(item))
    assert len(found) == len(set(found)) > 10
    for blocks in found:
        per_thread = blocks.columns * blocks.channels / blocks.warps / 32
        assert FEWEST <= per_thread * (blocks.rows if use == "map" else 8) <= MOST
    if channels >= 64:
        assert from_table(use, 7, 3, torch.bfloat16, channels, width) in found


INTERPRETED = """
import json, torch
from van.ops import cuda_depthwise as gpu
from van.ops.triton_tiles import Blocks
from van.ops.tune import Case, tune
import van.ops.tune as room
tried = [Blocks(1, 8, 16, 1), Blocks(2, 8, 16, 1), Blocks(4, 8, 16, 1), Blocks(3, 8, 16, 1)]
room.candidates = lambda case: tried
def timer(function):
    found = dict(zip(function.__code__.co_varnames, function.__defaults__))
    blocks = found.get("blocks", found.get("start"))
    function()
    return {1: 1.0, 2: 0.5, 3: 0.1, 4: 0.01}.get(blocks.rows, 2.0)
convolve = gpu.convolve
def damaged(x, conv, *, blocks):
    if blocks.rows == 3:
        raise RuntimeError("out of resources")
    return convolve(x, conv, blocks=blocks) + (blocks.rows == 4)
gpu.convolve = damaged
case = Case(use="map", side=3, dilation=1, dtype=torch.float32, shape=(1, 4, 3, 3))
(one,) = tune([case, case], device=torch.device("cpu"), timer=timer)
print(json.dumps([one.blocks.rows, one.ms, one.table_ms]))
"""


@pytest.mark.long
def test_the_fastest_that_is_right():
    """Rows 4 is faster and wrong, rows 3 faster and does not run."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parent.parent / "support",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [2, 0.5, 1.0]


@pytest.mark.gpu
def test_tuned_on_a_gpu(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VAN_CACHE", str(tmp_path))
    monkeypatch.setattr("van.ops.tune.candidates", lambda item: [Blocks(1, 8, 32, 1), Blocks(2, 16, 32, 1)])
    assert main(["tune", "--models", "van_b0", "--size", "64", "--batch", "2", "--inference"]) == 0
    (file,) = tmp_path.glob("blocks-*.json")
    assert len(json.loads(file.read_text())) == 12
    assert "kept in" in capsys.readouterr().out
