"""The toy task, known while a test runs."""

import pytest
import torch
from mean_colour import MEAN_COLOUR, MeanColourConfig
from mean_colour.config import TINY
from mean_colour.training import ColourRecipe, colours_tiny

import van
from van import recipes
from van.nn.build import BUILDERS, build
from van.tasks import TASKS, register


@pytest.fixture(autouse=True)
def toy():
    """Registered as its author would, and forgotten afterwards: other tests go through all that are known."""
    kinds, tables = [*recipes.KINDS], [(table, dict(table)) for table in (recipes.RECIPES, recipes.PRESETS_OF)]
    recipes.register(ColourRecipe, {"colours_tiny": colours_tiny})
    yield register(MEAN_COLOUR)
    del TASKS[MEAN_COLOUR.name], BUILDERS[MEAN_COLOUR.config]
    recipes.KINDS[:] = kinds
    for table, before in tables:
        table.clear()
        table.update(before)


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
