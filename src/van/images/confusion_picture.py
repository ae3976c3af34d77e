"""The confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, MissingExtraError
from ..files import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 4000  # one pixel each
_ANNOTATED, _NAMED = 20, 60  # up to so many classes, cells carry counts and axes carry names
_LARGE = 100_000  # counts that no cell has room for, of pixels: their shares are written instead
_DPI = 150


def confusion_picture(confusion: np.ndarray, classes: Sequence[str], title: str = "") -> bytes:
    """A confusion matrix (K, K) of counts as PNG bytes; rows are true classes, colours shares of the row.

    Classes that neither occur nor are predicted are left out. Up to 20 classes, cells carry their counts (large ones:
    shares of the row); up to 60, axes carry names; beyond, every class has at least one pixel.
    Raises ConfigError for more than 4000 classes, MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "train", "for the confusion matrix picture") from error
    seen = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    if len(seen) > MAX_CLASSES:
        raise ConfigError(f"{len(seen)} classes are too many for a picture (at most {MAX_CLASSES}); take a subset")
    counts, names = confusion[np.ix_(seen, seen)], [_written(_short(printable(classes[i]))) for i in seen.tolist()]
    side = _side(len(seen))
    margin = 0.12 * max([3, *map(len, names)]) + 0.9 if len(seen) <= _NAMED else 0.8  # inches, left and below
    width, height = side + margin + 1.2, side + margin + 0.6
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    image = _draw(axes, counts)
    _label(axes, counts, names)
    axes.set_title("\n".join(_written(printable(line)) for line in title.split("\n")), fontsize=10, pad=8)
    bar = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.18 / width, side / height))
    figure.colorbar(image, cax=bar).set_label("share of the true class")
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    # Cropping to the ink would shift unnamed classes off the pixel grid.
    figure.savefig(buffer, format="png", bbox_inches="tight" if len(seen) <= _NAMED else None, pad_inches=0.15)
    return buffer.getvalue()


def _side(classes: int) -> float:
    """Side of the square in inches; beyond named classes a whole number of pixels per class."""
    if classes <= _NAMED:
        return max(3.5, 0.42 * classes if classes <= _ANNOTATED else 0.2 * classes)
    pixels = max(1, round(1000 / classes)) * classes
    return pixels / _DPI


def _draw(axes: Axes, counts: np.ndarray) -> Any:
    from matplotlib.colors import PowerNorm

    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # A root of the share: a few mistakes stay visible next to a strong diagonal, single pixels too.
    norm = PowerNorm(0.5 if len(counts) <= _NAMED else 0.3, 0, 1)
    return axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest", aspect="auto")


def _label(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) > _NAMED:
        return
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) > _ANNOTATED:
        return
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(counts):
        large = counts.max() >= _LARGE
        if share[row, column] >= 0.005 if large else count:
            color = "white" if share[row, column] > 0.35 else "black"
            text = f"{share[row, column]:.0%}" if large else str(count)
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)


def _written(text: str) -> str:
    """Text that matplotlib takes for text, not for a formula."""
    return text.replace("$", r"\$")


def _short(name: str, length: int = 20) -> str:
    half = length // 2
    return name if len(name) <= length else f"{name[: half - 1]}…{name[-half:]}"
