"""The model card of a folder for the Hub: what the Hub shows, made from what the folder knows.

Nothing in a card is guessed: a score, a licence or a source that neither the checkpoint nor the table of published
weights show is marked as unknown.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoints
from ..checkpoints import Checkpoint
from ..checkpoints.folders import WEIGHTS as WEIGHT_FILES
from ..configs.backbone import PUBLISHED
from ..configs.published_weights import WEIGHTS, Weight, by_filename
from ..errors import CheckpointError, VanNotice
from ..files import write_file

DATASETS = {"in1k": ("ImageNet-1K", "imagenet-1k"), "in21k": ("ImageNet-22K", "imagenet-22k")}
CITATION = """@article{guo2022visual,
  title={Visual Attention Network},
  author={Guo, Meng-Hao and Lu, Cheng-Ze and Liu, Zheng-Ning and Cheng, Ming-Ming and Hu, Shi-Min},
  journal={arXiv preprint arXiv:2202.09741},
  year={2022}
}"""


def write(folder: str | Path, repo: str) -> Path:
    """README.md for a folder, ready to be pushed as `repo` (org/name).

    The folder is one that `van convert --to transformers` made, or holds a model.safetensors of this package.

    Warns with VanNotice when the licence is unknown, which a card must have before it is published.
    Raises CheckpointError when the folder holds no such checkpoint or cannot be written.
    """
    checkpoint = checkpoints.read(folder)
    own = checkpoint.format == "van" and Path(folder, WEIGHT_FILES[0]).is_file()
    if not Path(folder).is_dir() or not (own or checkpoint.format == "transformers"):
        raise CheckpointError(
            f"{folder} is not a folder in transformers' layout; create one with van convert --to transformers, or with "
            f"van convert --to van FOLDER/{WEIGHT_FILES[0]}"
        )
    if _licence(checkpoint, published(checkpoint)) is None:
        warnings.warn(
            f"the licence of {folder} is unknown; state it in its README.md before you publish",
            VanNotice,
            stacklevel=2,
        )
    path = Path(folder) / "README.md"
    write_file(path, text(checkpoint, repo), error=CheckpointError)
    return path


def published(checkpoint: Checkpoint) -> Weight | None:
    """The row of the published weight that a checkpoint is, by its record or its source's file name; None if none."""
    stated = checkpoint.provenance
    row = next((row for row in WEIGHTS if row.name == stated.get("published_as")), None)
    if row is None and "trained_by" not in stated:
        row = by_filename(str(stated.get("source", "")))
    fits = row is not None and row.model == checkpoint.name and row.num_classes in (None, checkpoint.config.num_classes)
    return row if fits else None


def text(checkpoint: Checkpoint, repo: str) -> str:
    """The card, as Markdown behind the Hub's YAML."""
    row = published(checkpoint)
    parts = [
        _front_matter(checkpoint, row),
        f"# {repo.split('/')[-1]}",
        _summary(checkpoint),
        "## Scores\n\n" + _scores(checkpoint, row),
        "## Preprocessing\n\n" + _preprocessing(checkpoint),
        "## How to load it\n\n" + _loading(checkpoint, repo),
        "## Provenance\n\n" + _provenance(checkpoint, row),
        "## Licence\n\n" + (_licence(checkpoint, row) or "Unknown: the publisher of this folder has to state it."),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(checkpoint: Checkpoint, row: Weight | None) -> str:
    licence = _licence(checkpoint, row)
    hosted = checkpoint.format == "transformers"
    fields: dict[str, Any] = {"library_name": "transformers" if hosted else "visual-attention-network"}
    if checkpoint.config.num_classes:
        fields["pipeline_tag"] = checkpoint.config.pipeline_tag
    fields["tags"] = ["visual-attention-network", "van", "vision", *(["timm"] if hosted else [])]
    if licence is not None:
        fields["license"] = "apache-2.0" if licence.lower() == "apache-2.0" else "other"
        if fields["license"] == "other":
            fields["license_name"] = licence
    if row is not None and row.dataset in DATASETS:
        fields["datasets"] = [DATASETS[row.dataset][1]]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]  # JSON is YAML
    return "\n".join(["---", *lines, "---"])


def _summary(checkpoint: Checkpoint) -> str:
    config, figures = checkpoint.backbone, PUBLISHED.get(checkpoint.name)
    count = sum(a.size for key, a in checkpoint.arrays.items() if not key.endswith(("_mean", "_var", "_tracked")))
    classes, noun = checkpoint.num_classes, checkpoint.config.noun
    article = "an" if noun[0] in "aeiou" else "a"
    task = f"as {article} {noun} of {classes} classes" if classes else "that computes image features"
    cost = f", {figures[1]:g} G multiply-adds at 224 x 224" if figures else ""
    return (
        f"A [Visual Attention Network](https://arxiv.org/abs/2202.09741) (`{checkpoint.name}`) {task}: "
        f"{count / 1e6:.2f} M parameters{cost}. LayerNorm's epsilon is {config.layer_norm_eps:g}."
    )


def _scores(checkpoint: Checkpoint, row: Weight | None) -> str:
    lines = []
    if row is not None and row.scores:
        dataset = DATASETS.get(row.dataset, (row.dataset,))[0]
        lines += [f"| {dataset} top-1 / top-5 | {row.scores} | published: {row.score_from} |"]
    own = checkpoint.provenance.get("scores") or {}
    data = checkpoint.provenance.get("data") or "held-out data"
    images = checkpoint.provenance.get("val_images")
    data = f"{data}, {images} images" if images else data
    lines += [f"| {name} | {_number(value)} | measured in training, on {data} |" for name, value in own.items()]
    if not lines:
        return "None is known."
    return "\n".join(["| metric | value | source |", "|---|---|---|", *lines])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _preprocessing(checkpoint: Checkpoint) -> str:
    record, chosen = checkpoint.preprocess, checkpoint.config.input_rows
    if chosen:
        return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in chosen.items())
    if record is None:
        return "Unknown."
    how = "warped to it" if record.resize == "squash" else f"centre crop of {record.crop_pct:g} of the resized image"
    rows = {
        "size": f"{record.size[0]} x {record.size[1]}, {how}",
        "interpolation": record.interpolation,
        "mean": ", ".join(f"{value:g}" for value in record.mean),
        "std": ", ".join(f"{value:g}" for value in record.std),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    if checkpoint.format != "transformers":
        return f"| | |\n|---|---|\n{table}"
    return f"| | |\n|---|---|\n{table}\n\n`preprocessor_config.json` and the record in `config.json` say the same."


def _loading(checkpoint: Checkpoint, repo: str) -> str:
    automatic = "AutoModelForImageClassification" if checkpoint.config.num_classes else "AutoModel"
    lines = [
        "import van  # pip install visual-attention-network",
        "",
        f'model = van.load("{repo}")  # a torch.nn.Module in eval mode',
    ]
    if checkpoint.format == "van":
        shown = f'van.Predictor("{repo}")("picture.jpg").draw().save("seen.png")'
        return "\n".join(["```python", *lines, *([shown] if checkpoint.num_classes else []), "```"])
    lines += [
        *([f'van.Predictor("{repo}")("picture.jpg").label'] if checkpoint.config.num_classes else []),
        "",
        'van.register("transformers")  # transformers 5 has no VAN of its own; transformers 4.57 and older do',
        f"from transformers import {automatic}, AutoImageProcessor",
        "",
        f'model = {automatic}.from_pretrained("{repo}")',
        f'processor = AutoImageProcessor.from_pretrained("{repo}")',
    ]
    if checkpoint.name in PUBLISHED:
        create = f'model = timm.create_model("hf-hub:{repo}", pretrained=True)'
        lines += ["", 'van.register("timm")', "import timm", "", create]
    return "\n".join(["```python", *lines, "```"])


def _provenance(checkpoint: Checkpoint, row: Weight | None) -> str:
    stated = {key: value for key, value in checkpoint.provenance.items() if key not in ("scores", "licence")}
    lines = [
        f"* {key.replace('_', ' ')}: {_plain(value)}" for key, value in stated.items() if value not in (None, "", {})
    ]
    if row is not None:
        lines.append(f"* published as `{row.name}`: {row.source or 'no link'}" + (f" ({row.note})" if row.note else ""))
    lines += [f"* {note}" for note in checkpoint.notes]
    if checkpoint.format == "transformers":
        lines.append(
            "* converted by `van convert --to transformers`, which compared every tensor and the outputs bit for bit"
        )
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _licence(checkpoint: Checkpoint, row: Weight | None) -> str | None:
    stated = checkpoint.provenance.get("licence")
    return str(stated) if stated else row.licence if row is not None else None
