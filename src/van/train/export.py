"""What a finished run leaves: a model file that `van.load` and `van predict` take, and its figures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from .. import __version__
from ..errors import VanNotice
from ..models import save
from ..nn import Model
from ..recipes.trainer_spec import BaseTrainerSpec
from .callbacks import EpochTable
from .checkpoint_io import BEST, read_training_checkpoint
from .folder import MODEL, MODEL_WITHOUT_EMA, write_summary
from .prepare import PreparedRun


def export(run: PreparedRun, folder: Path, table: EpochTable, *, seconds: float) -> None:
    """model.safetensors (the averaged weights with EMA, the plain ones beside them) and summary.json."""
    spec, unit = run.recipe.trainer, run.recipe.unit
    row = load_kept(run.module, folder, table, spec)
    # scores may be undefined, which JSON has no number for
    scores: dict[str, float] = {name: row[name] for name in spec.MONITORS if isfinite(row.get(name, nan))}
    used, there = run.data.val_counted
    provenance = {**provenance_of(run), unit: int(row[unit]), "scores": scores, "val_images": used}
    evaluated: Any = run.module.evaluated
    if evaluated is not run.network:
        _write(run, run.network, folder / MODEL_WITHOUT_EMA, {**provenance, "averaged": False, "scores": {}})
        provenance["averaged"] = True
    _write(run, evaluated, folder / MODEL, provenance)
    last = table.rows[-1]
    write_summary(
        folder,
        {
            "recipe": run.recipe.name,
            "model": MODEL,
            "kept": spec.keep,
            unit: int(row[unit]),
            **scores,
            "val_images": used,
            "val_images_there": there,
            **({"epochs": len(table.rows)} if unit == "epoch" else {}),
            "steps": int(last["step"]),
            "seconds": round(seconds, 1),
            "images_per_s": last["images_per_s"],
            "device": run.device,
        },
    )


def load_kept(module: LightningModule, folder: Path, table: EpochTable, spec: BaseTrainerSpec) -> dict[str, float]:
    """Give the module the weights that the recipe keeps; returns their row of the table.

    Where best.ckpt was lost with an earlier folder, the last weights are kept, with a notice.
    """
    if spec.keep == "last":
        return table.rows[-1]
    if not (folder / BEST).is_file():
        warnings.warn(f"{folder / BEST} is gone: the last weights are kept", VanNotice, stacklevel=3)
        return table.rows[-1]
    state = read_training_checkpoint(folder / BEST)
    module.load_state_dict(state["state_dict"])
    return next(row for row in table.rows if row["epoch"] == state["epoch"] + 1)


def provenance_of(run: PreparedRun) -> dict[str, Any]:
    """What is known of the network from the start of its training."""
    start, model = run.network.provenance, run.recipe.model
    facts: dict[str, Any] = {
        "trained_by": f"van {__version__}",
        "recipe": run.recipe.name,
        "data": Path(run.recipe.data.path or "").name,
        **run.training.provenance(run.network),
    }
    if model.checkpoint is not None:
        facts["started_from"] = {"checkpoint": Path(model.checkpoint).name, **start}
        if start.get("licence"):
            facts["licence"] = start["licence"]
    return facts


def _write(run: PreparedRun, network: Model, path: Path, provenance: dict[str, Any]) -> None:
    before = network.provenance
    network.metadata = replace(run.network.metadata, preprocess=run.preprocess, provenance=provenance)
    save(network.cpu().eval(), path)
    network.provenance = before
