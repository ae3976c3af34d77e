"""Losses that are divided by means over all processes: two processes learn what one does from the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")

from torchvision_detectors import NAMES
from two_processes import learned

from van.nn.detection.normalizer import mean_over_processes

SCRIPT = Path(__file__).parents[2] / "support" / "two_processes.py"


def test_one_process_divides_by_its_own_count_and_never_by_nothing():
    assert mean_over_processes(torch.tensor(7)).item() == 7
    assert mean_over_processes(torch.tensor(0)).item() == 1
    assert not mean_over_processes(torch.tensor(3.0, requires_grad=True)).requires_grad


@pytest.mark.long
def test_two_processes_equal_one(tmp_path):
    """Sampling limits are so large that nothing is drawn at random."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT)]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    assert set(results) == set(NAMES)
    for name, (losses, gradients) in results.items():
        expected, expected_gradients = learned(name, [0, 1, 2, 3])
        for key, value in expected.items():
            assert losses[key].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), (name, key)
        for one, two in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4 * float(two.abs().max()) + 1e-9)
