"""What a finished run leaves: a model file that `van.load` and `van predict` take, and its figures."""

from __future__ import annotations

import warnings
from math import isfinite, nan
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from .. import __version__
from ..configs.metadata import ModelMetadata
from ..data import has_own_val
from ..data.split import VAL_FRACTION
from ..errors import VanNotice
from ..models import save
from ..nn import Classifier
from .callbacks import EpochTable
from .checkpoint_io import BEST, read_training_checkpoint
from .folder import MODEL, MODEL_WITHOUT_EMA, write_summary
from .prepare import Job

SCORES = ("val/top1", "val/top5", "val/loss", "val/macro_f1", "val/macro_precision", "val/macro_recall")


def export(job: Job, folder: Path, table: EpochTable, *, seconds: float) -> None:
    """model.safetensors (the averaged weights with EMA, the plain ones beside them) and summary.json."""
    spec = job.recipe.trainer
    row = load_kept(job.module, folder, table, spec)
    scores: dict[str, float] = {name: row[name] for name in SCORES if isfinite(row.get(name, nan))}
    provenance = {**provenance_of(job), "epoch": int(row["epoch"]), "scores": scores}
    provenance["val_images"] = job.data.val_seen[0]  # that the scores are over
    evaluated: Any = job.module.evaluated
    if evaluated is not job.network:
        _write(job, job.network, folder / MODEL_WITHOUT_EMA, {**provenance, "averaged": False, "scores": {}})
        provenance["averaged"] = True
    _write(job, evaluated, folder / MODEL, provenance)
    write_summary(
        folder,
        {
            "recipe": job.recipe.name,
            "model": MODEL,
            "kept": spec.keep,
            "epoch": int(row["epoch"]),
            **scores,
            "val_images": job.data.val_seen[0],
            "val_images_there": job.data.val_seen[1],
            "epochs": len(table.rows),
            "steps": int(table.rows[-1]["step"]),
            "seconds": round(seconds, 1),
            "images_per_s": table.rows[-1]["images_per_s"],
            "device": job.device,
        },
    )


def load_kept(module: LightningModule, folder: Path, table: EpochTable, spec: Any) -> dict[str, float]:
    """Give the module the weights that the recipe keeps; returns their row of the table.

    Where best.ckpt was lost with an earlier folder, the last weights are kept, which is said.
    """
    if spec.keep == "last":
        return table.rows[-1]
    if not (folder / BEST).is_file():
        warnings.warn(f"{folder / BEST} is gone: the last weights are kept", VanNotice, stacklevel=3)
        return table.rows[-1]
    state = read_training_checkpoint(folder / BEST)
    module.load_state_dict(state["state_dict"])
    return next(row for row in table.rows if row["epoch"] == state["epoch"] + 1)


def provenance_of(job: Job) -> dict[str, Any]:
    """What is known of the network from the start of its training."""
    start: dict[str, Any] = job.network.provenance
    facts: dict[str, Any] = {
        "trained_by": f"van {__version__}",
        "recipe": job.recipe.name,
        "data": Path(job.recipe.data.path or "").name,
    }
    spec = job.recipe.data
    if spec.reader is None and not has_own_val(spec.path or ""):  # to evaluate on what was held out
        facts["split"] = {"seed": spec.split_seed or 0, "val_fraction": spec.val_fraction or VAL_FRACTION}
    if job.recipe.model.checkpoint is not None:
        facts["started_from"] = {"checkpoint": Path(job.recipe.model.checkpoint).name, **start}
        if start.get("licence"):
            facts["licence"] = start["licence"]
    return facts


def _write(job: Job, network: Classifier, path: Path, provenance: dict[str, Any]) -> None:
    before = network.provenance
    network.metadata = ModelMetadata(classes=job.network.classes, preprocess=job.preprocess, provenance=provenance)
    save(network.cpu().eval(), path)
    network.provenance = before
