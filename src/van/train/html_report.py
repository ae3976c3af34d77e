"""`write_report(run)`: one HTML file that tells a run, with nothing outside it.

Curves are SVG, pictures PNG inside the page. A classifier's page also shows the confusion matrix and the images that
were classified worst; the model is evaluated anew for them.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data import ClassificationData
from ..errors import DataError
from ..metrics import ClassificationMeter
from ..metrics.classification import softmax
from ..metrics.pictures import confusion_picture
from ..recipes import AnyRecipe, Recipe
from .folder import ENVIRONMENT, MODEL, RECIPE, SUMMARY, read_recipe, write_text
from .report import read_table
from .sources import open_images

REPORT = "report.html"
_WORST = 24
_THUMB = 112
_COLORS = ("#8250df", "#0969da", "#1a7f37", "#bc4c00")
# Title of a chart -> columns of metrics.csv and what to call them.
_CHARTS = {
    "loss": {"train/loss": "training", "val/loss": "held out"},
    "accuracy (%)": {"val/top1": "top-1", "val/top5": "top-5"},
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
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:16px}
.chart{background:var(--card);border-radius:8px;padding:12px}.chart svg{width:100%;height:auto}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg .grid{stroke:var(--line)}
.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(118px,1fr));gap:14px}
.worst figure{margin:0;font-size:12px;line-height:1.35;overflow-wrap:anywhere}
.worst img{width:112px;height:112px;object-fit:contain;background:var(--card);image-rendering:auto}
.wrong{color:#cf222e}img.matrix{max-width:100%;background:#fff;border-radius:8px}
pre{background:var(--card);border-radius:8px;padding:14px;overflow:auto;font-size:13px}
table{border-collapse:collapse}td,th{padding:3px 14px 3px 0;text-align:left;font-variant-numeric:tabular-nums}
"""


@dataclass(frozen=True)
class Miss:
    """An image that was classified wrongly: how sure the network was of the wrong class."""

    image: Image.Image
    name: str
    true: str
    predicted: str
    probability: float


def write_report(folder: Path, out: Path | None = None, *, device: str = "cpu") -> Path:
    """Write report.html into a run's folder, or to `out`; returns where.

    Works while the run is under way too, then without the pages that need the model. Raises DataError for a folder
    that is no run, and what loading its model and data raises.
    """
    if not (folder / RECIPE).is_file():
        raise DataError(f"{folder} is no run: it has no {RECIPE}; give the folder that `van train` made")
    recipe, table = read_recipe(folder / RECIPE), read_table(folder)
    parts = [_head(folder, recipe, table), _charts(table)]
    if (folder / MODEL).is_file() and isinstance(recipe, Recipe):
        parts.append(_evaluation(folder, recipe, device))
    parts += [_epochs(table), _text("Recipe", (folder / RECIPE).read_text(encoding="utf-8")), _environment(folder)]
    title = html.escape(f"{recipe.name} · {folder.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{"".join(parts)}'
        "</body></html>\n"
    )
    target = out or folder / REPORT
    write_text(target, page)
    return target


def _head(folder: Path, recipe: AnyRecipe, table: dict[str, list[float]]) -> str:
    figures: dict[str, str] = {}
    summary: dict[str, Any] = {}
    if (folder / SUMMARY).is_file():
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    for name, text in (
        ("val/top1", "{:.2f}%"),
        ("val/top5", "{:.2f}%"),
        ("val/mIoU", "{:.2%}"),
        ("val/loss", "{:.4f}"),
    ):
        if name in summary:
            figures[name.removeprefix("val/")] = text.format(summary[name])
    if "seconds" in summary:
        figures["minutes"] = f"{summary['seconds'] / 60:.1f}"
    state = "finished" if summary else f"under way: {len(table.get('epoch', []))} of {recipe.total_epochs} epochs"
    cards = "".join(f'<div class="figure"><b>{value}</b>{name}</div>' for name, value in figures.items())
    cards = f'<div class="figures">{cards}</div>' if cards else ""
    line = html.escape(f"{recipe.model.name or recipe.model.checkpoint} on {recipe.data.path}; {state}")
    return f'<h1>{html.escape(recipe.name)}</h1><div class="soft">{line}</div>{cards}'


def _charts(table: dict[str, list[float]]) -> str:
    charts = []
    for title, columns in _CHARTS.items():
        lines = {label: table[name] for name, label in columns.items() if name in table}
        if lines and "epoch" in table:
            epochs = [epoch + 1 for epoch in table["epoch"]]
            charts.append(f'<div class="chart"><b>{title}</b>{chart(epochs, lines)}</div>')
    return f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def chart(x: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Lines over epochs as an SVG, with their last values."""
    width, height, left, right, top, bottom = 380, 210, 52, 10, 12, 34
    values = [value for line in lines.values() for value in line if np.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    high = high if high > low else low + (abs(low) or 1.0) * 0.1
    span = max(x[-1] - x[0], 1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = left + (epoch - x[0]) / span * (width - left - right)
        return across, top + (high - value) / (high - low) * (height - top - bottom)

    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        _, y = place(x[0], value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
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


def _evaluation(folder: Path, recipe: Recipe, device: str) -> str:
    """Confusion matrix and worst images, where the validation images can be looked at one by one."""
    _, val = open_images(recipe)
    if not isinstance(val, ClassificationData):
        return ""
    meter, misses = look(folder / MODEL, val, device=device, batch_size=recipe.trainer.eval_batch_size or 32)
    picture = confusion_picture(meter.confusion(), val.classes, f"top-1 {meter.top1:.2f}%")
    return (
        f'<h2>Confusion matrix</h2><img class="matrix" alt="confusion matrix" src="{_inline(picture)}">'
        f"{_worst(misses, meter)}"
    )


def look(
    model: Path, data: ClassificationData, *, device: str, batch_size: int
) -> tuple[ClassificationMeter, list[Miss]]:
    """Scores of a model on images with labels, and the images it was most surely wrong about, the surest first."""
    from ..engines import open_classifier

    opened = open_classifier(model, device=device)
    meter, misses = ClassificationMeter(data.classes), []
    for start in range(0, len(data), batch_size):
        places = range(start, min(start + batch_size, len(data)))
        pictures = [data.load(place) for place in places]
        arrays = np.stack([opened.preprocess(image) for image, _ in pictures])
        logits = opened.engine.run(arrays)["logits"]
        labels = [label for _, label in pictures]
        meter.update(logits, labels)
        shares = softmax(logits)
        for row, (place, (image, label)) in enumerate(zip(places, pictures, strict=True)):
            guess = int(shares[row].argmax())
            if guess != label:
                image = image.copy()
                image.thumbnail((_THUMB * 2, _THUMB * 2))
                names = data.classes[label], data.classes[guess]
                misses.append(Miss(image, data.name(place), *names, float(shares[row, guess])))
        misses = sorted(misses, key=lambda miss: -miss.probability)[:_WORST]
    return meter, misses


def _worst(misses: Iterable[Miss], meter: ClassificationMeter) -> str:
    cells = [
        f'<figure><img alt="" src="{_inline(_png(miss.image))}"><figcaption><span class="wrong">'
        f"{html.escape(miss.predicted)}</span> {miss.probability:.0%}<br>is {html.escape(miss.true)}<br>"
        f'<span class="soft">{html.escape(Path(miss.name).name)}</span></figcaption></figure>'
        for miss in misses
    ]
    if not cells:
        return f"<h2>Worst-classified images</h2><p>None of {meter.count} images is wrong.</p>"
    return f'<h2>Worst-classified images</h2><div class="worst">{"".join(cells)}</div>'


def _epochs(table: dict[str, list[float]]) -> str:
    """The last epochs' numbers."""
    names, rows = list(table), list(zip(*table.values(), strict=True))[-10:]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{value:.6g}</td>" for value in row) + "</tr>" for row in rows)
    return f"<h2>Last epochs</h2><table><tr>{head}</tr>{body}</table>"


def _environment(folder: Path) -> str:
    path = folder / ENVIRONMENT
    if not path.is_file():
        return ""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    return f"<h2>Environment</h2><table>{rows}</table>"


def _text(title: str, text: str) -> str:
    return f"<h2>{title}</h2><pre>{html.escape(text)}</pre>"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    (image if image.mode in ("RGB", "L") else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
