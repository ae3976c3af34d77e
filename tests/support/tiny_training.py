"""A training small enough for tests: a slim network on sixteen pictures of stripes."""

import numpy as np
from PIL import Image

from van.recipes import Recipe
from van.tasks import task_named

SLIM = {"model.embed_dims": (8, 16, 24, 32), "model.depths": (1, 1, 1, 1)}


def make_stripes(root, count=8, size=32):
    """Two classes, stripes along and across, each picture with its own noise."""
    rng = np.random.default_rng(0)
    wave = np.where(np.arange(size) % 8 < 4, 200, 50)
    for name, pattern in (("across", np.tile(wave[:, None], (1, size))), ("along", np.tile(wave, (size, 1)))):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = pattern[..., None] + rng.integers(-40, 40, (size, size, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def slim_recipe(root, out, **options):
    defaults = {
        "data.path": str(root),
        "data.size": 32,
        "augment.crop_scale": (0.5, 1.0),
        "trainer.epochs": 3,
        "trainer.batch_size": 4,
        "trainer.workers": 0,
        "trainer.threads": 1,
        "trainer.device": "cpu",
        "trainer.progress": "none",
        "trainer.out": str(out),
        **SLIM,
    }
    return Recipe(name="slim").with_options(**{**defaults, **options})


def training_of(recipe):
    """What training by a recipe needs of its task."""
    return task_named(recipe.task).training(recipe)
