"""The folder of a run.

recipe.yaml         everything that was set, ready for `van train --config`
environment.json    versions, machine, device
metrics.csv         one row per epoch; tensorboard/ has the steps
best.ckpt last.ckpt training state, for trainer.resume; previous.ckpt is the last.ckpt before, should that be damaged
model.safetensors   the result: weights with classes, preprocessing and provenance, for `van predict`
summary.json        the figures of the run
run.lock            while it trains: which process on which machine
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, DataError
from ..files import is_temporary, write_file
from ..recipes import BaseRecipe, recipe_of
from ..recipes.reading import read_settings
from .checkpoint_io import BEST, LAST, PREVIOUS
from .distributed import is_first, process_info
from .lock import RunLock

MODEL, MODEL_WITHOUT_EMA = "model.safetensors", "model-without-ema.safetensors"
RECIPE, ENVIRONMENT, SUMMARY = "recipe.yaml", "environment.json", "summary.json"
TABLE = "metrics.csv"
_WRITTEN = (MODEL, MODEL_WITHOUT_EMA, RECIPE, ENVIRONMENT, SUMMARY)


def open_folder(recipe: BaseRecipe, lock: RunLock | None = None) -> Path:
    """The run's folder, created, writable, and this run's alone; what killed runs left half-written is removed.

    Raises ConfigError when it already holds a run, is in use, or cannot be written.
    """
    spec = recipe.trainer
    if process_info().launcher and process_info().world_size > 1 and spec.out is None and spec.resume is None:
        raise ConfigError(
            f"{process_info().world_size} processes need one folder that all of them see; give trainer.out"
        )
    if spec.resume == "auto" or not is_first():
        folder = Path(spec.out or resume_file(spec.resume or "").parent)
    elif spec.resume is not None:
        folder = resume_file(spec.resume).parent
        if spec.out is not None and Path(spec.out).resolve() != folder.resolve():
            raise ConfigError(f"trainer.out is {spec.out}, but a resumed run stays in {folder}; leave trainer.out out")
    else:
        folder = Path(spec.out) if spec.out else _new_folder(recipe.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if is_first() and lock is not None:
            lock.take(folder)
    except OSError as error:
        raise ConfigError(
            f"cannot write to the output folder {folder}: {error.strerror}; choose trainer.out"
        ) from error
    if is_first():
        if spec.resume is None and holds_run(folder):
            raise ConfigError(f"{folder} holds a run already; use another trainer.out, or trainer.resume {folder}")
        _clear(folder)
    return folder


def _new_folder(name: str) -> Path:
    """A folder of this run's own, also where two begin in the same second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = itertools.chain([f"{name}-{stamp}"], (f"{name}-{stamp}-{number}" for number in itertools.count(2)))
    for each in names:
        folder = Path("runs", each)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:
            pass  # open_folder says why
        return folder
    raise AssertionError


def holds_run(folder: Path) -> bool:
    """Whether a run left something in a folder that a new one would destroy: a checkpoint to go on from, a result."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS, SUMMARY, MODEL))


def _clear(folder: Path) -> None:
    """Remove the temporary files of runs that were killed; the lock says that no other run is using them."""
    names = (*map(re.escape, (*_WRITTEN, LAST, PREVIOUS, BEST, TABLE)), r"epoch-\d+\.ckpt")
    earlier = re.compile(rf"\.(?:{'|'.join(names)})\.(?:(?:\d+\.)?tmp|[a-z0-9_]{{8}})")  # of earlier versions
    for path in (*folder.glob(".*"), *folder.glob("history/.*")):
        if (is_temporary(path, *names) or earlier.fullmatch(path.name)) and path.is_file():
            path.unlink(missing_ok=True)
    if not holds_run(folder):
        (folder / TABLE).unlink(missing_ok=True)  # of a run that was stopped before its first checkpoint


def known_folder(spec: Any) -> Path | None:
    """The folder that a run will have, where its settings say so."""
    if spec.resume not in (None, "auto"):
        return Path(spec.resume) if Path(spec.resume).is_dir() else Path(spec.resume).parent
    return None if spec.out is None else Path(spec.out)


def resume_source(spec: Any) -> Path | None:
    """The checkpoint to go on from: the one that trainer.resume names; of "auto", the one that is there, if any.

    Raises as `resume_file`.
    """
    if spec.resume != "auto":
        return None if spec.resume is None else resume_file(spec.resume)
    out = Path(spec.out)
    return resume_file(str(out)) if any((out / name).exists() for name in (LAST, PREVIOUS)) else None


def has_finished(folder: Path) -> bool:
    """Whether the run in a folder has left all its results."""
    return (folder / SUMMARY).exists()


def resume_file(source: str) -> Path:
    """The checkpoint that a path means: the file itself, or a run folder's last.ckpt."""
    path = Path(source)
    if path.is_dir():
        path = path / LAST
    if not path.is_file() and not (path.name == LAST and path.with_name(PREVIOUS).is_file()):
        folder = path.parent
        if (folder / RECIPE).is_file() and not has_finished(folder):
            raise DataError(
                f"nothing to resume: the run in {folder} was stopped before its first checkpoint; start it again with "
                f"the same command, or van train --config {folder / RECIPE} --trainer.out {folder}"
            )
        raise DataError(f"nothing to resume: {path} does not exist; expected a run's folder or its {LAST}")
    if has_finished(path.parent):
        raise ConfigError(
            f"the run in {path.parent} has finished; to go on from its weights, set model.checkpoint to its {MODEL}"
        )
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises ConfigError when that fails."""
    write_file(path, text)


class _Dumper(yaml.SafeDumper):
    """Sections as blocks, lists on one line."""


_Dumper.add_representer(list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True))


def write_recipe(folder: Path, recipe: BaseRecipe) -> None:
    """recipe.yaml."""
    text = yaml.dump(recipe.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    write_text(folder / RECIPE, text)


def read_recipe(path: Path) -> BaseRecipe:
    """The recipe in a YAML file; raises ConfigError when it is none."""
    return recipe_of(read_settings(path))


def write_environment(folder: Path, device: str) -> None:
    """environment.json: what the run's figures depend on besides the recipe."""
    import pytorch_lightning
    import timm
    import torch
    import torchvision

    from .. import __version__

    facts: dict[str, Any] = {
        "van": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "pytorch_lightning": pytorch_lightning.__version__,
        "device": device,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "arguments": sys.argv[1:],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_text(folder / ENVIRONMENT, json.dumps(facts, indent=2) + "\n")


def held_out(summary: dict[str, Any]) -> str:
    """What a run's scores are over: "400 held-out images", or "200 of 400 held-out images"."""
    seen, there = summary.get("val_images"), summary.get("val_images_there")
    if seen is None:  # of an older version
        return "held-out images"
    return f"{seen} held-out images" if seen == there else f"{seen} of {there} held-out images"


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """summary.json."""
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
