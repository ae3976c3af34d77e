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


def rows(times, *, model="van_b1", batch=1, threads=2, processor="AMX"):
    case = {"model": model, "batch": batch, "threads": threads, "size": 224, "macs": 2_000_000_000}
    case |= {"processor": processor, "bf16": {"AMX": "AMX", "AVX512": "AVX512-BF16"}.get(processor, "")}
    figures = {kind: {"ms": ms, "low": ms, "high": ms, "ratio": times["peer"] / ms} for kind, ms in times.items()}
    floors = {kind: {"floor_ms": 4.0 if kind == "bf16" else 14.0, "gemm_gflops": 300.0} for kind in times}
    return [case | {"kind": kind, "sqnr_db": None} | floors[kind] | found for kind, found in figures.items()]


GOOD = {"peer": 60.0, "peer-onnx": 24.0, "peer-openvino": 22.0, "optimised": 15.0, "bf16": 10.0, "openvino-int8": 10.0}


def test_nothing_is_missed_where_all_is_reached(results):
    assert list(results.missed(rows(GOOD))) == []
    assert list(results.below_the_aim(rows(GOOD))) == []


@pytest.mark.parametrize(
    ("kind", "ms", "what"),
    [
        ("peer", 44.0, ["optimised over the peer's eager code: 2.93; meant: at least 3.00"]),
        ("optimised", 16.2, ["best float32 in floors: 1.16; meant: at most 1.15"]),
        ("openvino-int8", 10.1, ["int8 over the peer in OpenVINO: 2.18; meant: at least 2.20"]),
        ("peer-onnx", 17.9, ["best float32 over the peer's faster runtime: 1.19; meant: at least 1.20"]),
        ("bf16", 10.1, ["bf16 over optimised float32: 1.49; meant: at least 1.50"]),
    ],
)
def test_each_aim_is_told_where_it_is_not_reached(results, kind, ms, what):
    told = list(results.below_the_aim(rows(GOOD | {kind: ms})))
    assert len(told) == len(what)
    assert all(text in line for text, line in zip(what, told, strict=True))
    assert all(line.startswith("below the aim: van_b1, batch 1, 2 threads, AMX") for line in told)


@pytest.mark.parametrize(
    ("model", "processor", "times", "what"),
    [
        ("van_b1", "AVX512", {"peer": 20.0, "peer-onnx": 15.0, "bf16": 10.7}, []),
        ("van_b1", "AVX512", {"peer-onnx": 14.9}, ["best float32 over the peer's faster runtime: 0.99"]),
        ("van_b1", "AVX512", {"bf16": 10.8}, ["bf16 over optimised float32: 1.39; meant: at least 1.40"]),
        ("van_b0", "AVX512", {"peer-onnx": 17.9}, ["best float32 over the peer's faster runtime: 1.19"]),
        ("van_b0", "AVX512", {"optimised": 19.5, "peer": 60, "peer-onnx": 60, "peer-openvino": 60}, []),
        ("van_b0", "AVX512", {"optimised": 19.7, "peer-onnx": 60, "peer-openvino": 60}, ["in floors: 1.41"]),
        ("van_b1", "AVX2", {"peer-onnx": 10.0, "bf16": 90.0}, []),
    ],
)
def test_aims_depend_on_the_processor(results, model, processor, times, what):
    told = list(results.below_the_aim(rows(GOOD | times, model=model, processor=processor)))
    assert len(told) == len(what)
    assert all(text in line for text, line in zip(what, told, strict=True))


def test_aims_are_of_one_image_on_two_threads(results):
    assert list(results.below_the_aim(rows(GOOD | {"optimised": 50.0}, batch=8))) == []
    assert list(results.below_the_aim(rows(GOOD | {"optimised": 50.0}, threads=1))) == []


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
    kinds = [
        "peer",
        "peer-onnx",
        "peer-openvino",
        "optimised",
        "bf16",
        "openvino-int8",
        "arithmetic",
        "arithmetic-bf16",
    ]
    case = "measured/cpu/van_b1/batch1"
    assert ids == [f"{case}/{kind}{alone}/ms" for alone in ("", "/1thread") for kind in kinds]
    assert written[0]["id"] == "published/other"
    tables = {entry["id"].split("/")[4]: entry["table"] for entry in written if "table" in entry}
    assert tables["optimised"] == tables["bf16"] == "cpu"
    assert tables["peer-onnx"] == tables["arithmetic"] == tables["arithmetic-bf16"] == "cpu-runtimes"
    assert tables["openvino-int8"] == "cpu-int8"


def test_processors_have_entries_and_tables_of_their_own(results, monkeypatch):
    written = recorded(results, monkeypatch, rows(GOOD) + rows(GOOD, processor="AVX512"))
    where = {entry["id"].split("/")[1] for entry in written}
    tables = {entry["table"] for entry in written if "table" in entry}
    assert where == {"cpu", "cpu-avx512"}
    assert tables == {"cpu", "cpu-runtimes", "cpu-int8", "cpu-avx512", "cpu-avx512-runtimes", "cpu-avx512-int8"}


def test_an_older_floor_goes_when_its_case_is_measured(results, monkeypatch):
    older = [{"id": f"measured/cpu/{model}/batch1/floor/ms"} for model in ("van_b1", "van_b2")]
    written = recorded(results, monkeypatch, rows(GOOD), older)
    floors = [entry["id"] for entry in written if "/floor/" in entry["id"] or "/arithmetic" in entry["id"]]
    case = "measured/cpu/van_b1/batch1"
    assert floors == [f"{case}/arithmetic/ms", f"{case}/arithmetic-bf16/ms", "measured/cpu/van_b2/batch1/floor/ms"]
    (arithmetic,) = (entry for entry in written if entry["id"] == floors[0])
    assert arithmetic["value"] == 14.0
    assert "2000 million multiply-adds at 300 GFLOP/s" in arithmetic["what"]


def recorded(results, monkeypatch, measured, older=()):
    """The ledger after a run."""
    kept, written = [*older], []
    monkeypatch.setattr(results.ledger, "record", lambda entries, command: kept.extend(entries))
    monkeypatch.setattr(results.ledger, "read", lambda: kept)
    monkeypatch.setattr(results.ledger, "write", written.extend)
    monkeypatch.setattr(results, "draw", lambda *_: None)
    results.record(measured, {}, command="c")
    return written


def test_a_run_without_our_torch_forms_leaves_the_peers_time_alone(results, monkeypatch):
    kept = []
    monkeypatch.setattr(results.ledger, "record", lambda entries, command: kept.extend(entries))
    monkeypatch.setattr(results.ledger, "read", lambda: kept)
    monkeypatch.setattr(results.ledger, "write", lambda entries: None)
    monkeypatch.setattr(results, "draw", lambda *_: None)
    results.record(rows({"peer": 60.0, "openvino": 20.0}), {}, command="c")
    ids = [entry["id"].removeprefix("measured/cpu/van_b1/batch1/") for entry in kept]
    assert ids == ["arithmetic/ms", "openvino/ms", "openvino/ratio"]


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
