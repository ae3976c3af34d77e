"""van bench and the timing it shares with the benchmarks."""

import json

import numpy as np
import pytest
import torch

import van
from van.cli import main
from van.errors import ConfigError, UnknownNameError, VanError, VanNotice
from van.ops.timing import burst_ms, in_turn, summary
from van.tools import bench as benches
from van.tools.complexity_tables import counted_segmenter


def slim() -> torch.nn.Module:
    model = van.create_model("van_b0", num_classes=10, seed=0, embed_dims=(8, 16, 16, 24), depths=(1, 1, 1, 1)).eval()
    model.preprocess = model.preprocess.with_overrides(size=32)
    return model


def test_a_burst_warms_up_and_gives_the_best():
    calls = []
    ms = burst_ms(lambda: calls.append(torch.mm(*torch.ones(2, 64, 64))), seconds=0.01)
    assert 0 < ms < 10
    assert len(calls) > 2


def test_measurements_take_turns():
    order = []
    times = in_turn({"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0}, 3)
    assert order == ["a", "b"] * 3
    assert times == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_summary_by_hand():
    found = summary([4.0, 6.0, 10.0], [2.0, 2.0, 5.0])
    assert (found["ms"], found["ratio"], found["worst"]) == (2.0, 2.0, 2.0)
    assert (found["low"], found["high"]) == (2.0, 5.0)
    assert summary([3.0], [2.0]) == {"ms": 2.0, "low": 2.0, "high": 2.0, "ratio": 1.5, "worst": 1.5}


def test_all_multiply_adds_are_counted():
    # per block and pixel: products (three of C², two of C·rC), depthwise 5x5, 7x7 and 3x3, the last of rC channels
    stages = ((64, 8, 8, 7 * 7 * 3), (16, 16, 8, 9 * 8), (4, 16, 4, 9 * 16), (1, 24, 4, 9 * 16))
    blocks = sum(pixels * (3 * c * c + 2 * r * c * c + 25 * c + 49 * c + 9 * r * c) for pixels, c, r, _ in stages)
    patches, head = sum(pixels * c * seen for pixels, c, _, seen in stages), 24 * 10
    assert benches.multiply_adds(slim(), (2, 3, 32, 32)) == 2 * (blocks + patches + head)


def test_they_are_those_of_the_tables():
    model, cost = van.create_model("light_ham_van_b0", seed=None), counted_segmenter("light_ham_van_b0")
    assert (
        benches.multiply_adds(model, (1, 3, 512, 512)) == cost.macs + cost.matmul_macs
    )  # the factorisation's products too


def test_the_floor_is_their_time_at_a_rate():
    assert benches.floor_ms(500_000_000, gflops=100.0) == pytest.approx(10.0)
    assert benches.gemm_gflops(ms=1.0) == pytest.approx(2 * 2048**3 / 1e6)


def test_bench_measures_every_form_and_its_floor():
    done = benches.bench(slim(), forms=["eager", "optimised"], rounds=2, threads=1, batch=2)
    assert [row.form for row in done.rows] == ["eager", "optimised"]
    assert done.rows[0].speedup == 1.0
    assert (done.size, done.batch, done.threads, done.rounds) == ((32, 32), 2, 1, 2)
    for row in done.rows:
        assert row.low <= row.ms <= row.high
        assert row.of_floor == pytest.approx(row.ms / done.floor_ms)
        assert row.sqnr_db is None
    assert done.floor_ms == pytest.approx(2 * done.macs / done.gemm_gflops / 1e6)
    assert done.macs == benches.multiply_adds(slim(), (2, 3, 32, 32))
    assert done.bf16_floor_ms is done.bf16_gemm_gflops is None


def test_bfloat16_has_a_floor_of_its_own_and_says_what_it_costs():
    done = benches.bench(slim(), forms=["optimised", "bf16"], rounds=1, threads=1)
    full, half = done.rows
    assert done.bf16_floor_ms == pytest.approx(2 * done.macs / done.bf16_gemm_gflops / 1e6)
    assert half.of_floor == pytest.approx(half.ms / done.bf16_floor_ms)
    assert full.of_floor == pytest.approx(full.ms / done.floor_ms)
    assert full.sqnr_db is None
    assert 20 < half.sqnr_db < 70


def test_a_form_that_computes_something_else_is_not_measured():
    images = np.zeros((1, 3, 32, 32), np.float32)

    def gives(value):
        return lambda x: {"logits": np.full((1, 4), value)}

    with pytest.raises(VanError, match=r"fast: logits differ from the network.s by 0\.001"):
        benches.check({"fast": gives(1.001)}, gives(1.0), images)
    noise = benches.check({"onnx-int8": gives(1.1), "bf16": gives(1.01)}, gives(1.0), images)
    assert noise == {"onnx-int8": pytest.approx(20.0), "bf16": pytest.approx(40.0)}


def test_wrong_inputs():
    with pytest.raises(UnknownNameError, match="unknown form 'onxn'; did you mean 'onnx'"):
        benches.bench(slim(), forms=["onxn"])
    for wrong in ({"batch": 0}, {"threads": 0}, {"rounds": 0}, {"size": -1}, {"forms": []}):
        with pytest.raises(ConfigError, match="expected at least 1"):
            benches.bench(slim(), **wrong)


def test_a_model_name_has_random_weights_and_says_so(monkeypatch):
    monkeypatch.setattr(benches.models, "create_model", lambda name, seed: slim())
    with pytest.warns(VanNotice, match="van_b0 is a model name: it is measured with random weights"):
        done = benches.bench("van_b0", forms=["eager"], rounds=1)
    assert done.name == "van_b0"


@pytest.mark.long
def test_every_runtime_in_every_form(tmp_path, capsys):
    for package in ("onnxruntime", "onnxscript", "openvino", "nncf"):
        pytest.importorskip(package)
    van.save(slim(), tmp_path / "m.safetensors")
    result = tmp_path / "bench.json"
    options = ["--int8", "--calibration", "digits", "--rounds", "1", "--json", str(result)]
    assert main(["bench", str(tmp_path / "m.safetensors"), "--size", "32", *options]) == 0
    rows = {row["form"]: row for row in json.loads(result.read_text())["rows"]}
    assert list(rows) == ["eager", "optimised", "onnx", "openvino", "onnx-int8", "openvino-int8"]
    assert all(rows[form]["sqnr_db"] > 10 for form in ("onnx-int8", "openvino-int8"))
    printed = capsys.readouterr().out
    assert "million multiply-adds at" in printed
    assert "openvino-int8" in printed


def test_calibration_without_int8_is_refused(capsys):
    assert main(["bench", "van_b0", "--calibration", "digits", "--forms", "eager"]) == 2
    assert "give --int8 too" in capsys.readouterr().err


def test_bfloat16_on_request(capsys, tmp_path):
    van.save(slim(), tmp_path / "m.safetensors")
    assert main(["bench", str(tmp_path / "m.safetensors"), "--forms", "eager", "--bf16", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "in bfloat16" in printed
    assert "bf16" in printed.splitlines()[-1]
