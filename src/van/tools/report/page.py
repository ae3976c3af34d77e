"""`write_report(run)`: one HTML file that tells a run, with nothing outside it.

Curves are SVG, pictures PNG inside the page. For the confusion matrix and the worst images the finished model is
evaluated anew, see html_looks.py.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...recipes import AnyRecipe
from ...train.folder import ENVIRONMENT, MODEL, RECIPE, SUMMARY, held_out, read_recipe, write_text
from .examples import evaluation
from .run_picture import read_table

REPORT = "report.html"
_COLORS = ("#8250df", "#0969da", "#1a7f37", "#bc4c00")
_MACRO = "mean over classes (%)"  # drawn where the run is steered by one of them
# Title of a chart -> columns of metrics.csv and what to call them.
_CHARTS = {
    "loss": {"train/loss": "training", "val/loss": "held out"},
    "accuracy (%)": {"val/top1": "top-1", "val/top5": "top-5"},
    _MACRO: {
        "val/macro_f1": "F1",
        "val/macro_precision": "precision",
        "val/macro_recall": "recall",
    },
    "segmentation": {"val/mIoU": "mIoU", "val/aAcc": "aAcc", "val/mAcc": "mAcc"},
    "learning rate": {"lr": "learning rate"},
    "images per second": {"images_per_s": "training"},
}
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#656d76;--line:#d0d7de;--page:#fff;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#8d96a0;--line:#30363d;--page:#0d1117;--card:#161b22}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1080px;
padding:32px 20px}h1{font-size:26px;margin:0}h2{font-size:18px;margin:40px 0 12px;border-bottom:1px solid var(--line)}
.soft{color:var(--soft)}.figures{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}
.figure{background:var(--card);border-radius:8px;padding:10px 18px}.figure b{display:block;font-size:22px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px}
.chart{background:var(--card);border-radius:8px;padding:12px}.chart svg{width:100%;height:auto}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg .grid{stroke:var(--line)}
.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(118px,1fr));gap:14px}
.worst figure{margin:0;font-size:12px;line-height:1.35;overflow-wrap:anywhere}
.worst img{width:112px;height:112px;object-fit:contain;background:var(--card);image-rendering:auto}
.wide{overflow-x:auto}.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:8px;
border:1px solid var(--line)}.bar{display:inline-block;width:120px;height:8px;border-radius:4px;margin-right:10px;
background:var(--line)}.bar i{display:block;height:8px;border-radius:4px;background:#0969da}
.masks{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:20px}
.three{display:grid;grid-template-columns:repeat(3,1fr);gap:8px}.three figure{margin:0;font-size:12px}
.three img{width:100%;aspect-ratio:1;object-fit:contain;background:var(--card)}.mask .soft{overflow-wrap:anywhere}
.wrong{color:#cf222e}img.matrix{max-width:100%;background:#fff;border-radius:8px}
pre{background:var(--card);border-radius:8px;padding:14px;overflow:auto;font-size:13px}
table{border-collapse:collapse}td,th{padding:3px 14px 3px 0;text-align:left;white-space:nowrap;
font-variant-numeric:tabular-nums}.facts td{white-space:normal;overflow-wrap:anywhere}
"""


def write_report(folder: Path, out: Path | None = None, *, device: str = "cpu") -> Path:
    """Write report.html into a run's folder, or to `out`; returns where.

    Works while the run is under way too, then without the pages that need the model. Raises DataError for a folder
    that is no run, and what loading its model and data raises.
    """
    if not (folder / RECIPE).is_file():
        raise DataError(f"{folder} is no run: it has no {RECIPE}; give the folder that `van train` made")
    recipe, table = read_recipe(folder / RECIPE), read_table(folder)
    parts = [_head(folder, recipe, table), _charts(table, recipe.trainer.monitor)]
    if (folder / MODEL).is_file():
        parts.append(evaluation(folder, recipe, device=device))
    parts += [_epochs(table), _text("Recipe", (folder / RECIPE).read_text(encoding="utf-8")), _environment(folder)]
    title = html.escape(f"{recipe.name} · {folder.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{"".join(parts)}'
        "</body></html>\n"
    )
    target = out or folder / REPORT
    write_text(target, page.encode(errors="backslashreplace").decode())  # names that are not UTF-8
    return target


def _head(folder: Path, recipe: AnyRecipe, table: dict[str, list[float]]) -> str:
    figures: dict[str, str] = {}
    summary: dict[str, Any] = {}
    if (folder / SUMMARY).is_file():
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    for name, text in (
        ("val/top1", "{:.2f}%"),
        ("val/top5", "{:.2f}%"),
        ("val/macro_f1", "{:.2f}%"),
        ("val/mIoU", "{:.2%}"),
        ("val/loss", "{:.4f}"),
    ):
        if name in summary:
            figures[name.removeprefix("val/")] = text.format(summary[name])
    if "seconds" in summary:
        figures["minutes"] = f"{summary['seconds'] / 60:.1f}"
    state = f"under way: {len(table.get('epoch', []))} of {recipe.total_epochs} epochs"
    if summary:
        state = f"finished; scores over {held_out(summary)}"
    cards = "".join(f'<div class="figure"><b>{value}</b>{name}</div>' for name, value in figures.items())
    cards = f'<div class="figures">{cards}</div>' if cards else ""
    line = html.escape(f"{recipe.model.name or recipe.model.checkpoint} on {recipe.data.path}; {state}")
    return f'<h1>{html.escape(recipe.name)}</h1><div class="soft">{line}</div>{cards}'


def _charts(table: dict[str, list[float]], monitor: str) -> str:
    charts = []
    for title, columns in _CHARTS.items():
        if title == _MACRO and monitor not in columns:
            continue
        lines = {label: table[name] for name, label in columns.items() if name in table}
        if lines and "epoch" in table:
            charts.append(f'<div class="chart"><b>{title}</b>{chart(table["epoch"], lines)}</div>')
    return f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def chart(x: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Lines over epochs as an SVG, with their last values."""
    width, height, left, right, top, bottom = 380, 210, 52, 10, 12, 34
    marks = ticks([value for line in lines.values() for value in line if np.isfinite(value)])
    low, high = marks[0], marks[-1]
    span = max(x[-1] - x[0], 1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = left + (epoch - x[0]) / span * (width - left - right)
        return across, top + (high - value) / (high - low) * (height - top - bottom)

    parts = []
    for value in marks:
        _, y = place(x[0], value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for epoch, anchor in ((x[0], "start"), (x[-1], "end")):
        parts.append(f'<text x="{place(epoch, low)[0]:.1f}" y="{height - 18}" text-anchor="{anchor}">{epoch:g}</text>')
    for number, (label, line) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        points = [place(epoch, value) for epoch, value in zip(x, line, strict=True) if np.isfinite(value)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{color}"/>' for a, b in points[-1:]]
        text = f"{html.escape(label)} {line[-1]:.4g}"
        parts.append(f'<text x="{left + 110 * number}" y="{height - 3}" style="fill:{color}">{text}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def ticks(values: Sequence[float]) -> list[float]:
    """A few round numbers, evenly apart, that reach around `values`."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (high - low) or abs(low) * 0.1 or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(part for part in (power / 4, power / 2, power, 2 * power, 2.5 * power) if span <= 4 * part)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [float(f"{step * number:.6g}") for number in range(first, last + 1)]


def _epochs(table: dict[str, list[float]]) -> str:
    """The last epochs' numbers."""
    names = list(table)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = list(zip(*(table[name] for name in names), strict=True))[-10:]
    body = "".join("<tr>" + "".join(f"<td>{value:.6g}</td>" for value in row) + "</tr>" for row in rows)
    return f'<h2>Last epochs</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _environment(folder: Path) -> str:
    path = folder / ENVIRONMENT
    if not path.is_file():
        return ""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    return f'<h2>Environment</h2><table class="facts">{rows}</table>'


def _text(title: str, text: str) -> str:
    return f"<h2>{title}</h2><pre>{html.escape(text)}</pre>"
