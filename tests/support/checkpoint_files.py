"""Checkpoints of every format, made on the spot, and the same in the words of other libraries."""

import numpy as np

from van import checkpoints
from van.checkpoints import Checkpoint, layout
from van.configs.backbone import VanConfig
from van.images.preprocess import Preprocess

SMALL = VanConfig(
    embed_dims=(8, 16, 24, 32),
    depths=(1, 2, 1, 1),
    mlp_ratios=(2, 2, 2, 2),
    num_classes=5,
    layer_norm_eps=1e-5,
    drop_path_rate=0.1,
)

CLASSES = ("ant", "bee", "cat", "dog", "eel")

PREPROCESS = Preprocess(size=(160, 160), crop_pct=0.875, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))

SUFFIX = {"van": ".safetensors", "official": ".pth.tar", "transformers": "", "keras": ".weights.h5"}
SUFFIX |= {"tfvan": ".h5", "paddle": ".pdparams", "flax": ".weights"}


def arrays_of(config, seed=0):
    """Random arrays with running variances that are positive and counters that are not 0."""
    random, out = np.random.default_rng(seed), {}
    for key, shape in layout.shapes(config).items():
        if key.endswith("num_batches_tracked"):
            out[key] = np.array(7, np.int64)
        elif key.endswith("running_var"):
            out[key] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            out[key] = (0.2 * random.standard_normal(shape)).astype(np.float32)
    return out


def checkpoint(config=SMALL, **more):
    facts = {"source": "somewhere.pth", "format": "official", "metric": 75.4}
    fields = {"format": "van", "classes": CLASSES, "preprocess": PREPROCESS, "provenance": facts, **more}
    return Checkpoint(arrays=arrays_of(config), config=config, **fields)


def write(folder, name, source=None):
    path = folder / f"{name}{SUFFIX.get(name, '.pth')}"
    checkpoints.write(source or checkpoint(), path, name)
    return path


def theirs(table, config=SMALL, seed=0):
    """A state under a format's own keys."""
    return {table.foreign(key): array for key, array in arrays_of(config, seed).items()}


def headless(table, seed=0):
    return theirs(table, SMALL.with_options(num_classes=0), seed)
