"""A run that was cut off and resumed equals one that never was."""

import csv

import pytest
import torch
from interrupted_runs import cut_off
from safetensors.torch import load_file
from tiny_training import make_stripes, slim_recipe

from van.errors import CheckpointError, ConfigError
from van.train import run
from van.train.checkpoint_io import AtomicCheckpointIO, read_training_checkpoint

EVERYTHING = {
    "trainer.epochs": 4,
    "trainer.keep": "last",
    "trainer.ema_decay": 0.9,
    "trainer.accumulate": 2,
    "optim.clip_norm": 1.0,
    "schedule.warmup_epochs": 1.0,
    "augment.mixup": 0.8,
    "augment.cutmix": 1.0,
    "augment.auto_augment": "rand-m9-mstd0.5-inc1",
    "augment.erasing": 0.5,
    "model.drop_path_rate": 0.2,
}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes"))


def numbers(folder):
    """metrics.csv without times."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in csv.DictReader(file)]


VERSIONS = {
    **EVERYTHING,
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
    "augment.splits": 3,
    "augment.repeats": 2,
    "augment.auto_augment": "augmix-m5-w4-d2",
    "loss.name": "jsd",
    "schedule.noise": (0.2,),
    "schedule.cycles": 2,
    "trainer.epochs": 2,
    "optim.clip_norm": None,
    "optim.clip_agc": 0.05,
    "optim.layer_decay": 0.8,
}


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, EVERYTHING),
        (2, {**EVERYTHING, "schedule.per": "epoch", "augment.mix_off_epoch": 3, "augment.mix_mode": "elem"}),
        (0, VERSIONS),
    ],
)
def test_resumed_equals_uninterrupted(workers, options, stripes, tmp_path, monkeypatch):
    options = {**options, "trainer.workers": workers}
    whole = run(slim_recipe(stripes, tmp_path / "whole", **options))
    recipe = slim_recipe(stripes, tmp_path / "cut", **options)
    cut_off(monkeypatch, recipe, at_step=5)  # in the third epoch of two steps each
    assert len(numbers(tmp_path / "cut")) == 2
    torch.rand(7)  # another process has other random numbers
    resumed = run(recipe.with_options(**{"trainer.resume": str(tmp_path / "cut")}))
    assert resumed == tmp_path / "cut"
    assert numbers(resumed) == numbers(whole)
    for name in ("model.safetensors", "model-without-ema.safetensors"):
        one, two = load_file(whole / name), load_file(resumed / name)
        assert all(torch.equal(one[key], two[key]) for key in one), name
    optimizers = [torch.load(f / "last.ckpt", weights_only=True)["optimizer_states"] for f in (whole, resumed)]
    for a, b in zip(optimizers[0][0]["state"].values(), optimizers[1][0]["state"].values(), strict=True):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])


def test_resume_refuses_what_is_no_continuation(stripes, tmp_path, monkeypatch):
    recipe = slim_recipe(stripes, tmp_path / "run")
    cut_off(monkeypatch, recipe, at_step=4)
    resuming = recipe.with_options(**{"trainer.resume": str(tmp_path / "run" / "last.ckpt")})
    with pytest.raises(ConfigError, match=r"optim\.lr \(0\.001 before, 0\.5 now\)"):
        run(resuming.with_options(**{"optim.lr": 0.5}))
    with pytest.raises(ConfigError, match="stays in"):
        run(resuming.with_options(**{"trainer.out": str(tmp_path / "elsewhere")}))
    (make_stripes(tmp_path / "other") / "along").rename(tmp_path / "other" / "slanted")
    with pytest.raises(ConfigError, match="other classes"):
        run(resuming.with_options(**{"data.path": str(tmp_path / "other")}))
    finished = run(resuming)
    with pytest.raises(ConfigError, match="has finished"):
        run(resuming)
    assert len(numbers(finished)) == 3


def test_resume_refuses_damaged_files(stripes, tmp_path, monkeypatch):
    recipe = slim_recipe(stripes, tmp_path / "run")
    cut_off(monkeypatch, recipe, at_step=4)
    last = tmp_path / "run" / "last.ckpt"
    resuming = recipe.with_options(**{"trainer.resume": str(tmp_path / "run")})
    last.write_bytes(last.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match="damaged"):
        run(resuming)
    torch.save({"state_dict": {}}, last)
    with pytest.raises(CheckpointError, match="no training state"):
        run(resuming)


def test_checkpoints_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"van_recipe": {}, "loops": {}, "value": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        AtomicCheckpointIO().save_checkpoint({"value": lambda: 0}, path)  # cannot be written
    assert read_training_checkpoint(path)["value"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
