"""Models that find objects in two processes: the same as one with the whole batch, and the loss of one survived."""

import json

import pytest
import torch
from chaos import Victim, assert_same, numbers
from safetensors.torch import load_file
from tiny_objects import HEADS, make_objects, slim_objects

import van

NAMES = list(HEADS)
# nothing is left to chance that differs between processes: no sample is drawn where all are taken
PLAIN = {
    "optim.name": "sgd", "optim.lr": 0.01, "optim.clip_norm": None, "trainer.batch_norm": "sync",
    "trainer.channels_last": False,
}  # fmt: skip
ALL_SAMPLES = {"mask_rcnn_digits": {"model.rpn_samples": 4096, "model.box_samples": 1024}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_objects(tmp_path_factory.mktemp("data") / "digits", train=8, val=3)


def lived(name, data, folder, *, ranks, **options):
    recipe = slim_objects(name, data, folder, **{"trainer.devices": ranks, **options})
    victim = Victim(recipe, folder, ranks=ranks)
    assert victim.live() == [0] * ranks, victim.said()
    return folder


@pytest.mark.long
# Mask2Former looks at random points of every mask; that its losses are of both processes is tested beside the network
@pytest.mark.parametrize("name", [name for name in NAMES if name != "mask2former_digits"])
def test_two_processes_are_one_with_the_whole_batch(name, data, tmp_path):
    options = {**PLAIN, **ALL_SAMPLES.get(name, {})}
    two = lived(name, data, tmp_path / "two", ranks=2, **{**options, "trainer.batch_size": 2})
    one = lived(name, data, tmp_path / "one", ranks=1, **{**options, "trainer.batch_size": 4})
    ours, theirs = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    for key, value in ours.items():
        assert torch.allclose(theirs[key].float(), value.float(), rtol=1e-3, atol=1e-4), key
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert {k: float(v) for k, v in a.items()} == pytest.approx({k: float(b[k]) for k in a}, abs=1e-3, nan_ok=True)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["retinanet_digits", *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[1:])]
)
def test_validation_over_two_processes_is_of_the_model_that_is_written(name, data, tmp_path):
    folder = lived(name, data, tmp_path / "run", ranks=2, **{"trainer.epochs": 1})
    scores, summary = (
        dict(van.evaluate(folder / "model.safetensors", data)),
        json.loads((folder / "summary.json").read_text()),
    )
    assert summary["val_images"] == 3
    for key in (key for key in summary if key.startswith("val/")):
        assert scores[key.removeprefix("val/")] == pytest.approx(summary[key], abs=1e-6), key


@pytest.mark.long
def test_a_lost_process(data, tmp_path):
    """Each process draws samples of its own, and goes on with them."""
    options = {"trainer.devices": 2, "trainer.checkpoint_every_steps": 1, "trainer.epochs": 3}
    whole, cut = (
        Victim(slim_objects("mask_rcnn_digits", data, tmp_path / name, **options), tmp_path / name, ranks=2)
        for name in ("a", "b")
    )
    assert whole.live() == [0, 0], whole.said()
    assert cut.live(("kill", "rename", 3)) == [-9, 69], cut.said(1)
    assert cut.live() == [0, 0], cut.said()
    assert_same(whole.folder, cut.folder)
