"""Short names of the settings that nearly every training changes, and what other tools call them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from ..errors import ConfigError

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


def spelled_out(arguments: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    """The arguments with the short options as settings: `--lr 1e-4` as `--optim.lr 1e-4`.

    settings: "optim.lr" and so on of the recipe at hand, for which an option without a section is looked up.
    Raises ConfigError for what is another tool's option, and for a setting that is given twice in different words.
    """
    words: list[str] = []
    given: dict[str, tuple[str, str]] = {}  # setting -> how it is written, its value
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        setting = SHORT.get(option.replace("_", "-")) if option.startswith("--") else None
        if setting is not None and setting in settings:
            word = f"--{setting}{equals}{value}"
        elif option.startswith("--") and "." not in option:
            _refuse_foreign(option, settings, section_file=following.endswith((".yaml", ".yml")))
        name = word.partition("=")[0].removeprefix("--")
        if name in settings and word.startswith("--"):
            value = value if equals else following
            before = given.setdefault(name, (option, value))
            if before[0] != option and before[1] != value:
                raise ConfigError(f"{before[0]} {before[1]} and {option} {value} set the same; give one of them")
        words.append(word)
    return words


def _refuse_foreign(option: str, settings: Mapping[str, str], *, section_file: bool) -> None:
    """Raises ConfigError for an option that is none here, where it is plain what it would be."""
    name = option.removeprefix("--").replace("-", "_")
    if name in _OWN or (section_file and name in {setting.partition(".")[0] for setting in settings}):
        return
    own = [f"--{setting}" for setting in _meant(name, settings)]
    if own:
        raise ConfigError(f"van train: there is no {option}; did you mean {' or '.join(own)}?")


_OWN = ("list", "config", "name", "preset", "help", "print_config", "task")


def _meant(name: str, settings: Iterable[str]) -> list[str]:
    known = [setting for setting in _ELSEWHERE.get(name, ()) if setting in settings]
    last = [setting for setting in settings if setting.partition(".")[2] == name]
    if known or last:
        return known or last
    ends = {setting.partition(".")[2]: setting for setting in settings}
    near = difflib.get_close_matches(name, ends, n=1, cutoff=0.8)
    return [ends[each] for each in near]
