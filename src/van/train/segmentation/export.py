"""What a finished segmentation run leaves: a model file that `van eval` and `van predict` take, and its figures."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from typing import Any

from ... import __version__
from ...models import save
from ...recipes.segmentation_spec import MONITORS
from ...tasks.segmentation.views import RECORDED
from ..callbacks import EpochTable
from ..export import load_kept
from ..folder import MODEL, write_summary
from .prepare import SegmentationJob


def export_segmenter(job: SegmentationJob, folder: Path, table: EpochTable, *, seconds: float) -> None:
    """model.safetensors with classes, palette, preprocessing and provenance, and summary.json."""
    spec = job.recipe.trainer
    row = load_kept(job.module, folder, table, spec)
    # scores may be undefined, which JSON has no number for
    scores = {name: row[name] for name in MONITORS if isfinite(row.get(name, nan))}
    seen, there = job.data.val_seen
    network = job.network.cpu().eval()
    provenance = {**provenance_of_segmenter(job), "step": int(row["step"]), "scores": scores, "val_images": seen}
    network.preprocess, network.provenance = job.preprocess, provenance
    save(network, folder / MODEL)
    write_summary(
        folder,
        {
            "recipe": job.recipe.name,
            "model": MODEL,
            "kept": spec.keep,
            "step": int(row["step"]),
            **scores,
            "val_images": seen,
            "val_images_there": there,
            "steps": int(table.rows[-1]["step"]),
            "seconds": round(seconds, 1),
            "images_per_s": table.rows[-1]["images_per_s"],
            "device": job.device,
        },
    )


def provenance_of_segmenter(job: SegmentationJob) -> dict[str, Any]:
    """What is known of the segmenter from the start of its training."""
    start: dict[str, Any] = job.network.provenance
    data, how = job.recipe.data, job.inference
    facts: dict[str, Any] = {
        "trained_by": f"van {__version__}",
        "recipe": job.recipe.name,
        "data": Path(data.path or "").name,
        "inference": {name: list(v) if isinstance(v := getattr(how, name), tuple) else v for name in RECORDED},
    }
    chosen = {"seed": data.split_seed, "val_fraction": data.val_fraction, "scene_size": data.scene_size}
    split = {name: value for name, value in chosen.items() if value is not None}
    if split:  # to evaluate on what was held out
        facts["split"] = split
    if job.recipe.model.checkpoint is not None:
        facts["started_from"] = {"checkpoint": Path(job.recipe.model.checkpoint).name, **start}
        if start.get("licence"):
            facts["licence"] = start["licence"]
    return facts
