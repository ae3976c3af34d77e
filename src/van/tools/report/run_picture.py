"""A run at a glance: curves from its table of epochs, and some images with what was predicted."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import DataError, MissingExtraError
from ...train.callbacks import TABLE, counted_from_one

_COLUMNS = 8
_RIGHT, _WRONG = "#1a7f37", "#cf222e"
_TRAIN, _VAL = "#8250df", "#0969da"

Sample = tuple[Image.Image, str, str]  # image, predicted label, true label


def read_table(folder: Path) -> dict[str, list[float]]:
    """metrics.csv of a run: column -> one number per epoch, columns without numbers left out.

    Raises DataError for a run of which no epoch has ended, and for a table that is damaged.
    """
    path = folder / TABLE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in (rows[0] if rows else {}) if all(row[name] for row in rows)]
        numbers = counted_from_one([{name: float(row[name]) for name in names} for row in rows])
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no epoch of this run has ended, so there is nothing to report yet; where the run was stopped, "
            "start it again"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); expected a row of numbers per epoch") from error
    return {name: [row[name] for row in numbers] for name in names}


def run_picture(folder: Path, samples: Sequence[Sample], *, title: str = "") -> bytes:
    """PNG bytes: `samples` with their predicted labels, green when right and red when wrong, beside loss and top-1.

    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "train", "for pictures") from error
    rows = max(1, -(-len(samples) // _COLUMNS))
    height = max(4.8, 0.95 * rows + 0.8)
    figure = Figure(figsize=(7.6 + 5.0, height), dpi=120, layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(7.6, 5.0))
    left, right = parts
    figure.suptitle(title, fontsize=13)
    _draw_samples(left, samples, rows)
    _draw_curves(right, read_table(folder))
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_samples(figure: Any, samples: Sequence[Sample], rows: int) -> None:
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, (image, predicted, true) in zip(axes, samples, strict=False):
        place.imshow(image, cmap="gray", interpolation="nearest")
        right = predicted == true
        text = predicted if right else f"{predicted} (is {true})"
        place.set_title(text, color=_RIGHT if right else _WRONG, fontsize=11, fontweight="bold", pad=3)


def _draw_curves(figure: Any, table: dict[str, list[float]]) -> None:
    epochs = table["epoch"]
    above, below = figure.subplots(2, 1, sharex=True)
    for name, label, color in (("train/loss", "training", _TRAIN), ("val/loss", "held out", _VAL)):
        above.plot(epochs, table[name], color=color, label=label, marker="o", markersize=3)
    above.set_yscale("log")
    above.set_ylabel("loss")
    above.legend(frameon=False)
    below.plot(epochs, table["val/top1"], color=_VAL, marker="o", markersize=3)
    below.set_ylabel("top-1 on held-out images (%)")
    below.set_xlabel("epoch")
    below.annotate(
        f"{table['val/top1'][-1]:.2f}%", (epochs[-1], table["val/top1"][-1]), (0, -16), textcoords="offset points",
        ha="right", color=_VAL,
    )  # fmt: skip
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
