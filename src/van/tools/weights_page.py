"""The page of published weights, docs/published-weights.md, made from the table.

`python -m van.tools.weights_page FILE` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..configs.published_weights import WEIGHTS, Weight
from ..files import write_file

# The first part of the rows' names -> heading and a sentence, in the order of the page.
PUBLISHERS = {
    "official": ("The authors' files", "VAN-Classification's own checkpoints, on the hub and as two mirrors each."),
    "hub": ("The hub, transformers' layout", "The authors' weights as converted for transformers 4.x."),
    "openmmlab": (
        "OpenMMLab",
        "Classifiers of mmpretrain; segmenters and backbones of mmsegmentation's `projects/van`.",
    ),
    "segmentation": ("VAN-Segmentation and Enjoy-Hamburger", "The authors' segmenters."),
    "tsinghua": ("The authors' folder of backbones", "From where VAN-Segmentation's configurations start."),
    "keras": ("Keras, VAN-Classification-TensorFlow", "A port to TensorFlow."),
    "tfvan": ("Keras, tfvan", "A second port to TensorFlow."),
    "paddle": ("PaddleClas", "Paddle's own."),
    "flax": ("Flax, jax-models", "A port to JAX."),
}
_HEADING = """# Published weights

This page is made from `van/configs/published_rows.py` by `python -m van.tools.weights_page docs/published-weights.md`.

`van.load("official/van_b0")` loads the file of a row. `van list --weights` prints the rows, and `van verify-weights`
downloads the files and compares them with the rows ([how](checkpoints.md#verifying-published-weights)). {opened} of the
{count} rows' files have been opened so far: sizes of heads, epsilons and hashes come from the publishers' tables, file
names and code, and what no source states is left empty. The digits in a file's name are not always the first ones of
its sha256, so a mismatch is a finding, not proof of damage.

Scores are the publishers', in percent: top-1 / top-5, or mIoU. `in21k` is what its publishers call ImageNet-22K; files
that were fine-tuned from there to ImageNet-1K were never released."""
_COLUMNS = ("name", "model", "format", "trained on", "classes", "epsilon", "score", "sha256", "file")
_HUB_DIGITS = 8  # of a commit that the page shows


def page(rows: Sequence[Weight] = WEIGHTS) -> str:
    """The whole page, Markdown."""
    opened = sum(bool(row.labels or row.bytes) for row in rows)
    parts = [_HEADING.format(opened=opened or "None", count=len(rows))]
    for publisher, (title, sentence) in PUBLISHERS.items():
        own = [row for row in rows if row.name.split("/")[0] == publisher]
        parts += ["", f"## {title}", "", sentence, "", *_table(own), *_remarks(own)]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Weight]) -> list[str]:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    return [*lines, *("| " + " | ".join(_cells(row)) + " |" for row in rows)]


def _cells(row: Weight) -> list[str]:
    return [
        f"`{row.name}`",
        row.model,
        row.format,
        row.dataset,
        "" if row.num_classes is None else str(row.num_classes),
        f"{row.layer_norm_eps:g}",
        row.scores,
        f"`{row.sha256}`" if row.sha256 else "",
        _file(row),
    ]


def _file(row: Weight) -> str:
    """Links to the file and its mirrors."""
    if row.link is None:
        return "not published"
    commit = f" at `{row.revision[:_HUB_DIGITS]}`" if row.revision else ""
    mirrors = [f"[mirror]({mirror})" for mirror in row.mirrors]
    return ", ".join([f"[{row.filename or row.repo or 'file'}]({row.link}){commit}", *mirrors])


def _remarks(rows: Sequence[Weight]) -> list[str]:
    """Licences, sources of scores, notes and publishers' errors, each once with the rows it is about."""
    lines = [""]
    for label, text in (
        ("Licence", lambda row: f"{row.licence} ({row.licence_from})"),
        ("Scores", lambda row: row.score_from or ""),
        ("Note", lambda row: row.note),
        ("The publisher's error", lambda row: row.erratum),
    ):
        about: dict[str, list[str]] = {}
        for row in rows:
            about.setdefault(text(row), []).append(row.name.split("/")[1])
        for remark, names in about.items():
            if remark:
                whose = "" if len(names) == len(rows) else f" ({', '.join(f'`{name}`' for name in names)})"
                lines.append(f"* {label}{whose}: {remark}")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Write the page into the file that is named."""
    (path,) = arguments
    write_file(Path(path), page())


if __name__ == "__main__":
    main(sys.argv[1:])
