"""Lines over epochs as SVG, for a page that is read in light and in dark."""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence

from ...errors import MissingExtraError

_COLORS = ("#8250df", "#0969da", "#1a7f37", "#bc4c00")
_SOFT, _GRID = "#768390", "#768390"  # legible on white and on black
_WIDTH, _HEIGHT, _POINTS = 380, 210, 72  # points, and points per inch
_SETTINGS = {
    "axes.autolimit_mode": "round_numbers",  # the axis ends at a tick
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
}


def chart(x: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """An <svg> element with a line for each entry of `lines`, called by its name and its last value.

    x: epochs, in order. Values that are not finite leave a gap. The same values give the same text.
    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "train", "for the charts of a report") from error
    names = "\n".join(lines)
    with rc_context(_SETTINGS | {"svg.hashsalt": names}):
        figure = Figure(figsize=(_WIDTH / _POINTS, _HEIGHT / _POINTS))
        axes = figure.add_axes((0.14, 0.22, 0.83, 0.72))
        for number, (label, line) in enumerate(lines.items()):
            color = _COLORS[number % len(_COLORS)]
            values = [value if math.isfinite(value) else math.nan for value in line]
            axes.plot(x, values, color=color, linewidth=2, label=f"{label} {line[-1]:.4g}", gid=f"curve-{number}")
            axes.plot(x[-1:], values[-1:], "o", color=color, markersize=5, clip_on=False)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
        axes.set_xlim(x[0], max(x[-1], x[0] + 1))
        axes.set_xticks(sorted({x[0], x[-1]}), [f"{epoch:g}" for epoch in sorted({x[0], x[-1]})])
        axes.tick_params(length=0, pad=6, labelcolor=_SOFT)
        axes.grid(axis="y", color=_GRID, alpha=0.35, linewidth=0.8)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.legend(
            loc="lower left", bbox_to_anchor=(0.12, 0), ncols=len(lines), frameon=False, labelcolor="linecolor",
            handlelength=1, handletextpad=0.5, borderpad=0.2,
        )  # fmt: skip
        FigureCanvasSVG(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _embedded(file.getvalue(), prefix=f"c{zlib.crc32(names.encode()):08x}-")


def _embedded(document: str, *, prefix: str) -> str:
    """The <svg> element of a document, its ids made its own among those of the other elements of a page."""
    element = document[document.index("<svg") :].rstrip()
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", element)
