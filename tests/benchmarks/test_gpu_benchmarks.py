"""The GPU benchmarks, without a GPU: at toy size end to end (slow), and what they require, tell and draw."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from van.configs.backbone import VARIANTS
from van.configs.segmenter import SEGMENTERS

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def gpu_model(monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_model

    return gpu_model


def ran(script, *arguments):
    """What a benchmark prints at toy size, in a process of its own, as anybody runs it."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BENCHMARKS / script), "--quick", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_ops_at_toy_size(tmp_path):
    pytest.importorskip("matplotlib")
    told, ledger = (
        ran("gpu_ops.py", "--picture", str(tmp_path / "ops.png")),
        BENCHMARKS.parent / "docs" / "results.json",
    )
    for dtype in ("bf16", "fp32"):
        for name in ("dw3", "dw5", "dw7d3"):
            for direction in ("forward", "input gradient", "weight gradient"):
                assert f"{dtype} {name:<5} {direction:<15}  5² x 16: floor" in told
    assert told.count("the library's fastest") == 2 * 3 * 3
    assert "TB/s, float32" in told
    assert "aten::" in told  # names of kernels
    assert (tmp_path / "ops.png").stat().st_size > 10_000
    assert "measured/gpu/" not in ledger.read_text()


@pytest.mark.slow
def test_models_at_toy_size(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("timm")
    told = ran("gpu_model.py", "--picture", str(tmp_path / "model.png")).splitlines()
    for name in ("van_b0", "light_ham_van_b2"):
        inference, training = (
            [line for line in told if name in line and mode in line] for mode in ("inference", "training")
        )
        assert (len(inference), len(training)) == (9, 8)
        assert all("x official, " in line and "x compiled" in line for line in inference[2:])
    for name in ("convnext_tiny", "swin_tiny"):
        assert sum(line.startswith(name) for line in told) == 4
    assert told[-1] == "toy sizes: nothing is required"
    assert (tmp_path / "model.png").stat().st_size > 10_000


def rows(*, ours=4.0, compiled=2.0, training=3.0, memory=0.5, limit=6.0):
    """What gpu_model.py measures of B2, in multiples of official eager."""
    speeds = {"inference": {"official, compile": compiled, "ours": ours}}
    speeds["training"] = {"official, compile": 1.5, "ours": training}
    return [
        {
            "model": "van_b2",
            "mode": mode,
            "batch": batch,
            "size": 224,
            "kind": kind,
            "ms": 1.0,
            "images_per_s": speed,
            "peak_mib": 100 * (memory if kind == "ours" else 1.0),
            "limit": limit,
        }
        for mode, found in speeds.items()
        for batch in (1, 256)
        for kind, speed in {"official": 1.0, "official, max-autotune": 1.4, **found}.items()
    ]


@pytest.mark.parametrize(("found", "missed"), [
    ({}, None),
    ({"ours": 2.9, "compiled": 1.0, "limit": 5.0}, "inference: 2.90 times official eager; required 3.0"),
    ({"compiled": 3.0}, "inference: 1.33 times official compiled; required 1.5"),
    ({"training": 2.4}, "training: 2.40 times official eager; required 2.5"),
    ({"memory": 0.61}, "training: 61% of official's memory; required 60%"),
    ({"limit": 9.0}, "inference: 44% of the roofline"),
])  # fmt: skip
def test_what_is_required(gpu_model, found, missed):
    told = list(gpu_model._missed(rows(**found)))
    assert told == [] if missed is None else [f"MISSED: van_b2, {missed}"] == told


def test_ratios(gpu_model):
    measured = rows()
    row = next(r for r in measured if r["kind"] == "ours" and r["mode"] == "training")
    ratios = {"over_official": 3.0, "memory_of_official": 0.5, "over_compiled": 2.0, "roofline": 0.5}
    assert gpu_model._ratios(measured, row) == ratios


def test_what_is_measured(gpu_model):
    options = Namespace(quick=False, modes=["inference", "training"], batches=None)
    assert list(gpu_model._settings("van_b2", options)) == [
        ("inference", 1, 224),
        ("inference", 32, 224),
        ("inference", 256, 224),
        ("training", 128, 224),
    ]
    assert {size for _, _, size in gpu_model._settings("light_ham_van_b2", options)} == {512}
    stages = [(56, 64, 8, 2), (28, 128, 8, 2), (14, 320, 4, 4), (7, 512, 4, 2)]  # side, channels, expansion, depth
    for mode, maps, per_expansion in (("inference", 13, 4), ("training", 49, 12)):
        wanted = sum(2 * side**2 * c * (maps + per_expansion * r) * depth for side, c, r, depth in stages)
        assert gpu_model._traffic(VARIANTS["van_b1"], 224, mode) == wanted
        assert gpu_model._traffic(SEGMENTERS["light_ham_van_b1"], 224, mode) == wanted


def test_what_is_recorded(gpu_model, monkeypatch):
    import gpu_ops
    import ledger

    kept = []
    monkeypatch.setattr(ledger, "record", lambda entries, *, command: kept.extend(entries))
    gpu_model._record(rows(), {"machine": "Some GPU", "torch": "2"})
    case = {"dtype": "bf16", "name": "dw3", "direction": "forward", "side": 7, "channels": 8, "batch": 128}
    row = case | {"way": "ours", "ms": 2.0, "floor_ms": 1.0, "kernels": ["convolve"], "over_library": 3.0}
    gpu_ops._record([row], {"copy": 4e12, "fma": 3e13}, {"machine": "Some GPU", "torch": "2"})
    found = {entry["id"]: entry for entry in kept}
    assert len(found) == len(kept) == 16 + 3
    assert all((entry["machine"], entry["versions"]) == ("Some GPU", {"torch": "2"}) for entry in kept)
    ours = found["measured/gpu/model/van_b2/training/256/ours"]
    assert (ours["value"], ours["over_compiled"], ours["memory_of_official"], ours["roofline"]) == (3.0, 2.0, 0.5, 0.5)
    assert found["measured/gpu/ops/bf16/dw3/forward/7x8/ours"]["kernels"] == ["convolve"]
    assert found["measured/gpu/floor/fma"]["value"] == 60.0


def test_pictures(gpu_model, tmp_path):
    pytest.importorskip("matplotlib")
    import gpu_picture

    gpu_picture.draw_models(rows(), tmp_path / "models.png", title="a trial")
    ops = [
        {
            "name": "dw3",
            "direction": d,
            "dtype": "bf16",
            "side": 7,
            "channels": 8,
            "way": way,
            "ms": 2.0,
            "floor_ms": 1.0,
        }
        for d in ("forward", "weight gradient")
        for way in ("NCHW", "ours")
    ]
    gpu_picture.draw_ops(ops, tmp_path / "ops.png", title="a trial")
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in tmp_path.iterdir())


def test_rows_are_on_the_disk_as_they_come_and_a_cut_line_is_measured_again(gpu_model, tmp_path):
    from gpu_rows import Rows

    path = tmp_path / "rows.jsonl"
    rows = Rows(path, ("model", "kind"))
    rows.append({"model": "van_b0", "kind": "official", "ms": 1.5})
    rows.append({"model": "van_b0", "kind": "ours", "ms": 0.5})
    with path.open("a") as file:
        file.write('{"model": "van_b0", "ki')
    again = Rows(path, ("model", "kind"))
    assert again == [*rows]
    assert again.have(model="van_b0", kind="ours")
    assert not again.have(model="van_b1", kind="ours")
    again.append({"model": "van_b1", "kind": "ours", "ms": 2.0})
    assert len(Rows(path, ("model", "kind"))) == 3


def test_requirements_of_what_was_not_measured_are_passed(gpu_model):
    assert list(gpu_model._missed([])) == []
    only_ours = [row for row in rows() if row["kind"] == "ours" and row["mode"] == "inference"]
    assert list(gpu_model._missed(only_ours)) == []
    without_compiled = [row for row in rows(ours=2.9) if row["kind"] in ("official", "ours")]
    assert any("2.90 times official eager" in line for line in gpu_model._missed(without_compiled))


ALL = BENCHMARKS / "gpu_all.sh"


def gpu_all(tmp_path, *arguments, python):
    """gpu_all.sh with a stand-in for Python, which a piece calls."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho called with $*\n{python}\n")
    stand_in.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stand_in)}
    command = ["bash", str(ALL), "--out", str(tmp_path / "out"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_pieces_that_ended_are_not_run_again_and_a_cut_off_one_is(tmp_path):
    slow = "case $* in *gpu_ops*) exec sleep 60;; esac"
    first = gpu_all(tmp_path, "--limit", "1", "check", "ops_bf16", python=slow).stdout
    assert "=== check: exit code 0" in first
    assert "=== ops_bf16: cut off" in first
    second = gpu_all(tmp_path, "check", "ops_bf16", python="exit 1").stdout
    assert "=== check: done before" in second
    assert "=== ops_bf16: exit code 1" in second
    assert {path.name for path in (tmp_path / "out").glob("*.done")} == {"check.done", "ops_bf16.done"}
    assert "called with benchmarks/gpu_ops.py --rows" in (tmp_path / "out" / "ops_bf16.log").read_text()


def test_no_piece_starts_when_the_budget_is_spent(tmp_path):
    done = gpu_all(tmp_path, "--budget", "10", "check", python="exit 0")
    assert "=== check: not started, the budget is spent" in done.stdout


def test_wrong_arguments_of_gpu_all_are_one_line(tmp_path):
    for arguments, said in ((["nonsense"], "unknown piece nonsense"), (["--budget", "x"], "expected whole seconds")):
        done = gpu_all(tmp_path, *arguments, python="exit 0")
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
