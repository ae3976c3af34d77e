"""benchmarks/serving.py at toy size, as anybody runs it, and what it misses."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def serving(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serving

    yield serving
    for name in ("serving", "http_load"):
        sys.modules.pop(name, None)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_at_toy_size_no_accepted_request_is_lost():
    ledger = BENCHMARKS.parent / "docs" / "results.json"
    before = ledger.read_bytes()
    source = str(BENCHMARKS.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(BENCHMARKS / "serving.py"), "--quick", "--threads", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "0 accepted requests without answer, exit code 0" in done.stdout
    assert ledger.read_bytes() == before


def tally_of(serving, seconds=(0.1, 0.2), **statuses):
    tally = serving.Tally(seconds=list(seconds))
    tally.statuses.update({int(name[1:]): count for name, count in statuses.items()})
    return tally


FLAT = [100.0, 110.0, 111.0]
OPTIONS = Namespace(latency_ms=100.0, quick=False)


def test_an_overload_that_is_held_misses_nothing(serving):
    assert list(serving.judged_overload(OPTIONS, tally_of(serving, s200=2, s503=9, s413=1), FLAT)) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"s500": 1}, "answers other than"),
        ({"s503": 0}, "nothing was refused"),
        ({"seconds": (0.1, 0.4)}, "p99"),
        ({"memory": [100.0, 110.0, 140.0]}, "memory grew"),
        ({"without_retry_after": 1}, "without Retry-After"),
    ],
)
def test_each_aim_of_overload_is_named_where_it_is_missed(serving, change, what):
    memory, without = change.pop("memory", FLAT), change.pop("without_retry_after", 0)
    tally = tally_of(serving, **{"s200": 2, "s503": 9} | change)
    tally.without_retry_after = without
    missed = list(serving.judged_overload(OPTIONS, tally, memory))
    assert len(missed) == 1
    assert what in missed[0]


def test_an_accepted_request_without_its_answer_is_lost(serving):
    lines = [{"id": f"e-{number}", "status": status} for number, status in enumerate([200, 200, 503, 499])]
    server = Namespace(logged=lambda: [*lines, {"id": "o-1", "status": 200}])
    tally = serving.Tally(answered={"e-0": 200, "e-2": 503})
    assert serving.lost(server, tally) == ["e-1", "e-3"]
