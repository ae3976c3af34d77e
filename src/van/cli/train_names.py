"""Short names of the settings that nearly every training changes, and what other tools call them."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# short option -> setting; the order of `van train --help`.
SHORT: dict[str, str] = {
    "--data": "data.path",
    "--checkpoint": "model.checkpoint",
    "--epochs": "trainer.epochs",
    "--steps": "trainer.steps",
    "--batch-size": "trainer.batch_size",
    "--lr": "optim.lr",
    "--weight-decay": "optim.weight_decay",
    "--size": "data.size",
    "--device": "trainer.device",
    "--devices": "trainer.devices",
    "--precision": "trainer.precision",
    "--workers": "trainer.workers",
    "--seed": "trainer.seed",
    "--resume": "trainer.resume",
    "--out": "trainer.out",
}
# What the same is called elsewhere -> our settings, of which the recipe's own are suggested.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "model": ("model.name", "model.checkpoint"),
    "arch": ("model.name",),
    "pretrained": ("model.checkpoint",),
    "weights": ("model.checkpoint",),
    "finetune": ("model.checkpoint",),
    "batch": ("trainer.batch_size",),
    "bs": ("trainer.batch_size",),
    "epoch": ("trainer.epochs", "trainer.steps"),
    "epochs": ("trainer.steps",),
    "num_epochs": ("trainer.epochs", "trainer.steps"),
    "max_steps": ("trainer.steps", "trainer.epochs"),
    "iterations": ("trainer.steps", "trainer.epochs"),
    "learning_rate": ("optim.lr",),
    "wd": ("optim.weight_decay",),
    "opt": ("optim.name",),
    "optimizer": ("optim.name",),
    "sched": ("schedule.name",),
    "scheduler": ("schedule.name",),
    "lr_scheduler": ("schedule.name",),
    "warmup": ("schedule.warmup_epochs", "schedule.warmup_steps"),
    "freeze": ("model.frozen_stages",),
    "dropout": ("model.drop_rate",),
    "drop_path": ("model.drop_path_rate",),
    "img_size": ("data.size", "augment.crop"),
    "imgsz": ("data.size", "augment.crop"),
    "image_size": ("data.size", "augment.crop"),
    "size": ("augment.crop",),
    "input_size": ("data.size", "augment.crop"),
    "num_workers": ("trainer.workers",),
    "gpus": ("trainer.devices",),
    "output": ("trainer.out",),
    "output_dir": ("trainer.out",),
    "save_dir": ("trainer.out",),
    "project": ("trainer.out",),
    "amp": ("trainer.precision",),
    "fp16": ("trainer.precision",),
    "bf16": ("trainer.precision",),
    "ema": ("trainer.ema_decay",),
    "patience": ("trainer.early_stopping",),
    "smoothing": ("augment.label_smoothing",),
    "clip_grad": ("optim.clip_norm",),
    "wandb": ("track.wandb",),
    "dataset": ("data.path",),
}


def meant(name: str, settings: Collection[str]) -> list[str]:
    """The settings that an option `--name` of another tool, or without its section, may stand for."""
    known = [setting for setting in _ELSEWHERE.get(name, ()) if setting in settings]
    last = [setting for setting in settings if setting.partition(".")[2] == name]
    if known or last:
        return known or last
    ends = {setting.partition(".")[2]: setting for setting in settings}
    near = difflib.get_close_matches(name, ends, n=1, cutoff=0.8)
    return [ends[each] for each in near]
