"""What benchmarks/cpu_inference.py requires, means and keeps."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    import cpu_results

    yield cpu_results
    for name in ("cpu_results", "ledger"):
        sys.modules.pop(name, None)


def rows(times, *, model="van_b1", batch=1, threads=2):
    case = {"model": model, "batch": batch, "threads": threads, "size": 224, "floor_ms": 10.0, "gemm_gflops": 300.0}
    figures = {kind: {"ms": ms, "low": ms, "high": ms, "ratio": times["peer"] / ms} for kind, ms in times.items()}
    return [case | {"kind": kind, "sqnr_db": None} | found for kind, found in figures.items()]


GOOD = {"peer": 60.0, "peer-onnx": 24.0, "peer-openvino": 22.0, "optimised": 15.0, "openvino-int8": 10.0}


def test_nothing_is_missed_where_all_is_reached(results):
    assert list(results.missed(rows(GOOD))) == []
    assert list(results.below_the_aim(rows(GOOD))) == []


@pytest.mark.parametrize(
    ("kind", "ms", "what"),
    [
        (
            "optimised",
            20.1,
            ["optimised over the peer's eager code: 2.99; meant: 3.00", "best", "floor"],
        ),
        ("optimised", 16.1, ["the floor over best float32: 0.62; meant: 0.62"]),
        ("openvino-int8", 10.1, ["int8 over the peer in OpenVINO: 2.18; meant: 2.20"]),
        ("peer-onnx", 16.4, ["best float32 over the peer's faster runtime: 1.09; meant: 1.10"]),
    ],
)
def test_each_aim_is_told_where_it_is_not_reached(results, kind, ms, what):
    told = list(results.below_the_aim(rows(GOOD | {kind: ms})))
    assert len(told) == len(what)
    assert all(text in line for text, line in zip(what, told, strict=True))
    assert all(line.startswith("below the aim: van_b1, batch 1, 2 threads") for line in told)


def test_slower_than_required(results):
    told = list(results.missed(rows(GOOD | {"optimised": 40.0, "eager": 62.0, "onnx-int8": 99.0})))
    assert [line.split(": ")[1] for line in told] == [
        "van_b1, batch 1, 2 threads, optimised",
        "van_b1, batch 1, 2 threads, eager",
    ]


def test_entries_stand_in_the_order_of_the_table(results, monkeypatch):
    kept = []
    monkeypatch.setattr(results.ledger, "record", lambda entries, command: kept.extend(entries))
    monkeypatch.setattr(results.ledger, "read", lambda: [*reversed(kept), {"id": "published/other"}])
    written = []
    monkeypatch.setattr(results.ledger, "write", written.extend)
    monkeypatch.setattr(results, "draw", lambda *_: None)
    results.record(rows(GOOD) + rows(GOOD, threads=1), {}, command="c")
    ids = [entry["id"] for entry in written if entry["id"].endswith("/ms")]
    kinds = ["peer", "peer-onnx", "peer-openvino", "optimised", "openvino-int8", "floor"]
    case = "measured/cpu/van_b1/batch1"
    assert ids == [f"{case}/{kind}{alone}/ms" for alone in ("", "/1thread") for kind in kinds]
    assert written[0]["id"] == "published/other"
    tables = {entry["id"].split("/")[4]: entry["table"] for entry in written if "table" in entry}
    assert tables["optimised"] == "cpu"
    assert tables["peer-onnx"] == tables["floor"] == "cpu-runtimes"
    assert tables["openvino-int8"] == "cpu-int8"


def test_a_run_without_our_torch_forms_leaves_the_peers_time_alone(results, monkeypatch):
    kept = []
    monkeypatch.setattr(results.ledger, "record", lambda entries, command: kept.extend(entries))
    monkeypatch.setattr(results.ledger, "read", lambda: kept)
    monkeypatch.setattr(results.ledger, "write", lambda entries: None)
    monkeypatch.setattr(results, "draw", lambda *_: None)
    results.record(rows({"peer": 60.0, "openvino": 20.0}), {}, command="c")
    ids = [entry["id"].removeprefix("measured/cpu/van_b1/batch1/") for entry in kept]
    assert ids == ["floor/ms", "openvino/ms", "openvino/ratio"]


def test_segmenters_stand_last_and_tell_their_size(results, monkeypatch):
    kept = []
    monkeypatch.setattr(results.ledger, "record", lambda entries, command: kept.extend(entries))
    monkeypatch.setattr(results.ledger, "read", lambda: kept)
    written = []
    monkeypatch.setattr(results.ledger, "write", written.extend)
    monkeypatch.setattr(results, "draw", lambda *_: None)
    results.record(rows(GOOD, model="light_ham_van_b0") + rows(GOOD), {}, command="c")
    names = list(dict.fromkeys(entry["row"] for entry in written if "row" in entry))
    assert names == ["VAN-B1, batch 1", "Light-Ham B0 at 224², batch 1"]
