"""What benchmarks/bf16_quality.py requires of bfloat16."""

from pathlib import Path

import numpy as np
import pytest

import van


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    import bf16_quality

    return bf16_quality


@pytest.mark.parametrize(
    ("where", "value", "missed"),
    [
        ("van_b0/bf16/sqnr", 35.0, 0),
        ("van_b3/bf16/sqnr", 34.9, 1),
        ("van_b6/bf16/sqnr", 30.0, 0),
        ("van_b0/optimised/sqnr", 30.0, 0),
        ("digits/agreement", 100.0, 0),
        ("digits/agreement", 99.7, 1),
        ("digits/sqnr", 20.0, 0),
    ],
)
def test_what_it_requires(quality, where, value, missed):
    entry = {"id": f"measured/bf16/AVX512/{where}", "what": where, "value": value}
    assert len(list(quality.below([entry]))) == missed


def test_logits_are_compared_with_those_in_float64(quality):
    model = van.create_model("van_b0", num_classes=10, seed=0, embed_dims=(8, 16, 16, 24), depths=(1, 1, 1, 1)).eval()
    images = list(np.random.default_rng(0).standard_normal((2, 1, 3, 32, 32), np.float32))
    found = quality.logits(model, images)
    assert {form: len(every) for form, every in found.items()} == {"exact": 2, "bf16": 2, "optimised": 2}
    assert found["exact"][0].dtype == np.float64
    gaps = {
        form: np.abs(every[1] - found["exact"][1]).max() / np.abs(found["exact"][1]).max()
        for form, every in found.items()
    }
    assert gaps["optimised"] < 1e-4 < gaps["bf16"] < 5e-2
