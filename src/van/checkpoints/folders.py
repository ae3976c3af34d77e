"""Which checkpoint a folder means.

| what is in it | what is read |
|---|---|
| a name of WEIGHTS (a finished run, a repository of the hub) | that file, or the shards it names |
| config.json, metadata.json, model.weights.h5 (an unpacked .keras, a preset) | the network that they describe |
| recipe.yaml and a name of RUN_CHECKPOINTS (a run that has not finished) | the first of them |
| one checkpoint of any other name | that file |

Anything else is an error that names what is there. Where checkpoints are looked for in folders, the first three kinds
count as one, the first unless checkpoints of other names lie beside a file without config.json and recipe.yaml.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import CheckpointError

# The names of weights in repositories of the hub, those to prefer first; our runs use the first as well.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".pdparams", ".weights")
RECIPE = "recipe.yaml"  # is in every folder of a training
RUN_CHECKPOINTS = ("best.ckpt", "last.ckpt", "previous.ckpt")
KERAS_WEIGHTS, KERAS_METADATA = "model.weights.h5", "metadata.json"
KERAS = ("config.json", KERAS_METADATA, KERAS_WEIGHTS)
PRESET_TASK = ("task.json", "task.weights.h5")  # the head of a preset's classifier, in files of its own

SHOWN = 10  # names that an error or a note lists


def is_one(names: Collection[str]) -> bool:
    """Whether files of these names, in one folder, are one checkpoint."""
    if RECIPE in names:
        return any(name in names for name in (*WEIGHTS, *RUN_CHECKPOINTS))
    sharded = any(name in names for name in WEIGHTS if name.endswith(".json"))
    named = any(name in names for name in WEIGHTS)
    alone = named and not _others(names)
    return sharded or alone or (named and "config.json" in names) or all(name in names for name in KERAS)


def choose(folder: Path, checkpoints: list[str]) -> tuple[str, tuple[str, ...]]:
    """The name of the file to read in a folder, and notes; `checkpoints`: the files in it that may be one.

    Raises CheckpointError where there is none, or several and no rule.
    """
    names = names_in(folder)
    chosen = next((name for name in WEIGHTS if name in names), None)
    if chosen is not None and is_one(names):
        return chosen, ()
    if chosen is not None:
        return chosen, (f"{chosen} is read; the folder also holds {_listed(_others(names))}",)
    if all(name in names for name in KERAS):
        return KERAS_WEIGHTS, ()
    run = next((name for name in RUN_CHECKPOINTS if name in names), None)
    if RECIPE in names and run is not None:
        return run, (f"the run has not finished; its {run} is used",)
    if len(checkpoints) == 1:
        return checkpoints[0], ()
    if checkpoints:
        raise CheckpointError(
            f"the folder {folder} holds {len(checkpoints)} checkpoints ({_listed(checkpoints)}); name one of them"
        )
    raise CheckpointError(f"no checkpoint in the folder {folder}; {_instead(folder, names)}")


def names_in(folder: Path) -> list[str]:
    """The names of the files in a folder, sorted; raises CheckpointError where it cannot be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise CheckpointError(f"cannot read the folder {folder}: {error.strerror or error}") from error


def refuse_overwriting(source: str | Path, target: Path) -> None:
    """Raises CheckpointError where writing `target` would destroy what is read from `source`, or what a run wrote."""
    origin = Path(source)
    read = {origin, *(origin / name for name in (*WEIGHTS, *RUN_CHECKPOINTS, *KERAS))}
    if not target.is_file():
        return
    if target.resolve() in {path.resolve() for path in read}:
        raise CheckpointError(f"{target} is the source itself and would be overwritten; choose another destination")
    if (target.parent / RECIPE).is_file() and target.name in (*WEIGHTS, *RUN_CHECKPOINTS):
        raise CheckpointError(
            f"{target} was written by the run in {target.parent} and would be overwritten; choose another destination"
        )


def _others(names: Collection[str]) -> list[str]:
    """Further checkpoints beside weights of these names; .bin is also what trainers leave beside them."""
    found = [name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
    return sorted(name for name in found if name not in WEIGHTS and not name.endswith(".bin"))


def _instead(folder: Path, names: Collection[str]) -> str:
    if RECIPE in names:
        return "the run in it has written none yet"
    inner = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and is_one(names_in(entry)))
    if inner:
        return f"there is one in each of its folders {_listed(inner)}; name one of them"
    return "expected model.safetensors or pytorch_model.bin, with config.json, or one file of any format"


def _listed(names: list[str]) -> str:
    more = f", … ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
