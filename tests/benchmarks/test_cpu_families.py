"""What is meant of a family of processors, over PyTorch and over the runtimes."""

from pathlib import Path

import pytest


@pytest.fixture
def families(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    import cpu_families

    return cpu_families


def row(**changed):
    case = {"family": "AVX2", "torch": "PyTorch kept to it", "model": "van_b0", "size": 224, "batch": 1, "threads": 2}
    return case | {"trained": False, "ratio": 1.3, "ms": 20.0, "plain_ms": 26.0, "runtimes": {}} | changed


def test_nothing_is_below_the_aim_where_it_is_reached(families):
    reached = {families.OPENVINO: (20.0, 1.0), families.ONNX_RUNTIME: (20.0, 1.0)}
    assert list(families.below_the_aim([row(), row(model="van_b1", runtimes=reached)])) == []


@pytest.mark.parametrize("model", ["van_b0", "van_b1"])
def test_one_image_is_meant_to_be_faster_than_the_plain_path(families, model):
    (told,) = families.below_the_aim([row(model=model, ratio=1.29)])
    assert told.startswith("below the aim: AVX2, PyTorch kept to it")
    assert "over the plain path: 1.29; meant: 1.30" in told


@pytest.mark.parametrize("other", [{"trained": True}, {"batch": 8}, {"family": "baseline"}, {"model": "van_b2"}])
def test_nothing_more_is_meant_of_other_cases(families, other):
    assert list(families.below_the_aim([row(ratio=1.01, **other)])) == []


def test_only_a_runtime_that_is_kept_to_the_family_is_compared_with(families):
    slower = {families.OPENVINO: (19.0, 0.95), families.ONNX_RUNTIME: (16.0, 0.8)}
    (told,) = families.below_the_aim([row(runtimes=slower)])
    assert "over OpenVINO kept to AVX2: 0.95; meant: 1.00" in told


def test_runtimes_are_columns_of_the_table(families, monkeypatch):
    import ledger

    kept = []
    monkeypatch.setattr(ledger, "record", lambda entries, command: kept.extend(entries))
    families.record([row(runtimes={families.OPENVINO: (24.0, 1.2)})], command="c")
    (entry,) = (entry for entry in kept if entry.get("column") == families.OPENVINO)
    assert entry["shown"] == "24.0 → 20.0 ms (1.20×)"
    assert entry["table"] == "families"
    assert len({entry["id"] for entry in kept}) == len(kept)
