"""`write_report(run)`: a training run as one HTML file that fetches nothing.

Charts are SVG and pictures PNG inside the page. For the scores per class and the worst examples the finished model is
evaluated on the run's validation data; what they are, its task decides (tasks/report_parts.py).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ...errors import DataError
from ...recipes import AnyRecipe
from ...tasks import task_named
from ...tasks.report_parts import Curves, ReportParts, TaskReport
from ...train.folder import ENVIRONMENT, MODEL, RECIPE, SUMMARY, held_out, read_recipe, write_text
from .chart import chart
from .evaluation import evaluate_run
from .run_picture import read_table

REPORT = "report.html"
LAST_EPOCHS = 10
# Charts of every run, before and after those of its task.
_LOSS = Curves(title="loss", labels={"train/loss": "training", "val/loss": "held out"})
_PACE = (
    Curves(title="learning rate", labels={"lr": "learning rate"}),
    Curves(title="images per second", labels={"images_per_s": "training"}),
)


def write_report(folder: Path, out: Path | None = None, *, device: str = "cpu") -> Path:
    """Write report.html into a run's folder, or to `out`; returns where.

    Also for a run that is under way, then without the parts that need its model. Raises DataError for a folder
    that is no run, MissingExtraError without matplotlib, and what loading the run's model and data raises.
    """
    if not (folder / RECIPE).is_file():
        raise DataError(f"{folder} is no run: it has no {RECIPE}; give the folder that `van train` made")
    recipe, table = read_recipe(folder / RECIPE), read_table(folder)
    summary, task = _json(folder / SUMMARY), task_named(recipe.task).report
    parts = evaluate_run(folder, recipe, device=device) if (folder / MODEL).is_file() else None
    page = render(
        title=f"{recipe.name} · {folder.name}",
        name=recipe.name,
        subtitle=_subtitle(recipe, table, summary),
        headline={**(parts.headline if parts else {}), **_headline(task, summary)},
        charts=_charts((_LOSS, *task.curves, *_PACE), table, recipe.trainer.monitor),
        parts=parts,
        epochs=_last_epochs(table),
        recipe=(folder / RECIPE).read_text(encoding="utf-8"),
        environment=_json(folder / ENVIRONMENT),
    )
    target = out or folder / REPORT
    write_text(target, page.encode(errors="backslashreplace").decode())  # names that are not UTF-8
    return target


def render(*, charts: Mapping[str, str], parts: ReportParts | None, **values: Any) -> str:
    """The page from its parts; every text is escaped. charts: heading -> <svg> element."""
    environment = Environment(loader=PackageLoader("van.tools.report", ""), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"png": _png, "png_url": _png_url}
    elements = {heading: Markup(svg) for heading, svg in charts.items()}
    return environment.get_template("page.html").render(charts=elements, parts=parts, **values)


def _subtitle(recipe: AnyRecipe, table: Mapping[str, list[float]], summary: Mapping[str, Any]) -> str:
    state = f"under way: {len(table.get('epoch', []))} of {recipe.total_epochs} epochs"
    if summary:
        state = f"finished; scores over {held_out(dict(summary))}"
    return f"{recipe.model.name or recipe.model.checkpoint} on {recipe.data.path}; {state}"


def _headline(task: type[TaskReport], summary: Mapping[str, Any]) -> dict[str, str]:
    """The run's scores as text, and how long it took."""
    formats = {**task.headline, "val/loss": "{:.4f}"}
    scores = {
        name.removeprefix("val/"): text.format(summary[name]) for name, text in formats.items() if name in summary
    }
    return scores | ({"minutes": f"{summary['seconds'] / 60:.1f}"} if "seconds" in summary else {})


def _charts(curves: tuple[Curves, ...], table: Mapping[str, list[float]], monitor: str) -> dict[str, str]:
    """Heading -> chart, of what the run's table of epochs has."""
    charts = {}
    for each in curves:
        lines = {label: table[name] for name, label in each.labels.items() if name in table}
        if lines and "epoch" in table and (monitor in each.labels or not each.only_monitored):
            charts[each.title] = chart(table["epoch"], lines)
    return charts


def _last_epochs(table: Mapping[str, list[float]]) -> dict[str, Any]:
    rows = list(zip(*table.values(), strict=True))[-LAST_EPOCHS:]
    return {"columns": list(table), "rows": [[f"{value:.6g}" for value in row] for row in rows]}


def _json(path: Path) -> dict[str, Any]:
    """The values of a JSON file; none where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    (image if image.mode in ("RGB", "L") else image.convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def _png_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
