"""The toy task, known while a test runs."""

import pytest
import torch
from mean_colour import MEAN_COLOUR, MeanColourConfig
from mean_colour.config import TINY

import van
from van.nn.build import BUILDERS, build
from van.tasks import TASKS, register


@pytest.fixture(autouse=True)
def toy():
    """Registered, and forgotten afterwards."""
    yield register(MEAN_COLOUR)
    del TASKS[MEAN_COLOUR.name], BUILDERS[MEAN_COLOUR.config]


@pytest.fixture
def model():
    """A network whose guess of every colour is near its mean."""
    found = build(MeanColourConfig(backbone=TINY))
    found.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        found.head.bias.fill_(0.45)
    return found.eval()


@pytest.fixture
def checkpoint(model, tmp_path):
    """Its file."""
    path = tmp_path / "toy.safetensors"
    van.save(model, path)
    return str(path)
