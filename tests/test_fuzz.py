"""Seeded damage of every kind of file: reading it succeeds or raises a VanError of one line, in bounded time and memory.

The default suite tries some three hundred files; `pytest -m slow tests/test_fuzz.py` thousands.
"""

from functools import cache

import pytest
import torch

import van
from networks import TINY, lived_in
from van.nn import Classifier
from van.preprocess import Preprocess

SMALL = TINY.with_options(embed_dims=(4, 8), depths=(1, 1), mlp_ratios=(2, 2), patch_sizes=(7, 3), strides=(4, 2),
                          out_indices=(0, 1))  # fmt: skip
FOUR = TINY.with_options(embed_dims=(4, 4, 4, 8), depths=(1, 1, 1, 1), mlp_ratios=(1, 1, 1, 1))
TIMES_SLOW = 25


@cache
def network(config=SMALL):
    model = lived_in(Classifier(config)).eval()
    model.classes = tuple(f"class {i}" for i in range(config.num_classes))
    model.preprocess = Preprocess(size=(32, 32))
    model.provenance = {"split": {"seed": 0, "val_fraction": 0.2}, "scores": {"val/top1": 50.0}}
    return model


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, suffix, config in (
        ("van", ".safetensors", SMALL),
        ("official", ".pth", FOUR),
        ("mmpretrain", ".pth", FOUR),
        ("keras", ".weights.h5", FOUR),
        ("transformers", "", FOUR),
    ):
        with pytest.warns():
            van.save(network(config), folder / f"{name}{suffix}", format=name)
            import warnings

            warnings.warn("one at least", stacklevel=1)
    tree = torch.load(folder / "official.pth", weights_only=False)
    torch.save(tree, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return folder


def rounds(few):
    """Parameters of a test: some rounds in the default suite, many in the slow one."""
    return pytest.mark.parametrize("count", [few, pytest.param(few * TIMES_SLOW, marks=pytest.mark.slow)])
