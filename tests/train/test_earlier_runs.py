"""Runs that version 0.1 interrupted go on: names that Lightning's files hold, and settings that were not there yet."""

import pytest
import torch
import yaml
from chaos import assert_same
from interrupted_runs import cut_off
from tiny_segmentation import slim_segmentation
from tiny_training import make_stripes, slim_recipe

from van.train import run

# section -> settings that version 0.1 had not for segmentation
NEW = {
    "data": ("reader", "train_split", "val_split", "train_images", "image_key", "label_key", "shuffle_buffer",
             "classes", "check", "prefetch"),
    "schedule": ("name", "k_decay", "milestones", "decay_rate", "noise", "noise_limit", "noise_std", "min_lr",
                 "decay_steps"),
    "trainer": ("eval_batch_size", "ema_decay", "history", "max_unreadable"),
}  # fmt: skip


def as_version_01(folder, data_module, new=None):
    """Give a run's files the names and the settings of version 0.1."""
    state = torch.load(folder / "last.ckpt", weights_only=True)
    state[data_module] = state.pop("SampledDataModule")
    recipes = [state["van_recipe"], yaml.safe_load((folder / "recipe.yaml").read_text())]
    for section, names in (new or {}).items():
        for recipe, name in ((recipe, name) for recipe in recipes for name in names):
            del recipe[section][name]
    torch.save(state, folder / "last.ckpt")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipes[1]))


def test_classification(tmp_path, monkeypatch):
    data = make_stripes(tmp_path / "data")
    options = {"trainer.checkpoint_every_steps": 1, "trainer.epochs": 2, "trainer.ema_decay": 0.9}
    whole = run(slim_recipe(data, tmp_path / "whole", **options))
    cut_off(monkeypatch, slim_recipe(data, tmp_path / "cut", **options), at_step=5)
    state = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert {"ProcessState", "EpochTable", "ImageWatch"} < state["callbacks"].keys()
    as_version_01(tmp_path / "cut", "ClassificationDataModule")
    resumed = run(slim_recipe(data, tmp_path / "cut", **options, **{"trainer.resume": str(tmp_path / "cut")}))
    assert_same(whole, resumed)


@pytest.mark.parametrize("at_step", [1, 3])
def test_segmentation(at_step, tmp_path, monkeypatch):
    options = {"trainer.checkpoint_every_steps": 1}
    whole = run(slim_segmentation(tmp_path / "whole", **options))
    cut_off(monkeypatch, slim_segmentation(tmp_path / "cut", **options), at_step=at_step)
    as_version_01(tmp_path / "cut", "SegmentationDataModule", NEW)
    resumed = run(slim_segmentation(tmp_path / "cut", **options, **{"trainer.resume": str(tmp_path / "cut")}))
    assert_same(whole, resumed)
