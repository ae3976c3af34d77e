"""What gpu_ops.py and gpu_model.py measured, drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent.parent / "docs"
Row = dict[str, Any]


def draw_ops(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """A panel per direction and type: how much of the floor's speed each way reaches, by convolution and map."""
    directions, dtypes, ways = (_values(rows, key) for key in ("direction", "dtype", "way"))
    figure, panels = _figure(len(directions), len(dtypes), title)
    for panel, (direction, dtype) in zip(panels, [(a, b) for a in directions for b in dtypes], strict=True):
        here = [row for row in rows if (row["direction"], row["dtype"]) == (direction, dtype)]
        _bars(panel, here, ways, "way", _case, lambda row: 100 * row["floor_ms"] / row["ms"])
        panel.set_title(f"{direction}, {dtype}")
        panel.set_ylabel("% of the floor's speed")
    _save(figure, panels, path)


def draw_models(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Images per second at the largest batch, of inference and training, and the peak memory of training."""
    kinds = _values(rows, "kind")
    figure, panels = _figure(3, 1, title)
    shown = (("inference", "images_per_s", "images/s"), ("training", "images_per_s", "images/s"))
    for panel, (mode, value, unit) in zip(panels, (*shown, ("training", "peak_mib", "peak memory, MiB")), strict=True):
        here = [row for row in rows if row["mode"] == mode]
        largest = {row["model"]: row["batch"] for row in sorted(here, key=lambda row: row["batch"])}
        here = [row for row in here if row["batch"] == largest[row["model"]]]
        _bars(panel, here, kinds, "kind", _network, lambda row, value=value: row[value])
        panel.set_title(mode)
        panel.set_ylabel(unit, fontsize=9)
    _save(figure, panels, path)


def _case(row: Row) -> str:
    return f"{row['name']}\n{row['side']}²×{row['channels']}"


def _network(row: Row) -> str:
    return f"{row['model'].partition('_patch')[0]}\n{row['size']}², batch {row['batch']}"


def _values(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _figure(down: int, across: int, title: str) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 * across, 3.2 * down), layout="constrained")
    figure.suptitle(title)
    return figure, list(figure.subplots(down, across, squeeze=False).flat)


def _bars(
    panel: Any,
    rows: Sequence[Row],
    kinds: list[str],
    key: str,
    name: Callable[[Row], str],
    value: Callable[[Row], float],
) -> None:
    """A group of bars per name, a colour per kind; what was not measured leaves a gap."""
    names = list(dict.fromkeys(name(row) for row in rows))
    for place, kind in enumerate(kinds):
        found = {name(row): value(row) for row in rows if row[key] == kind}
        at = [x + (place - (len(kinds) - 1) / 2) * 0.8 / len(kinds) for x in range(len(names))]
        heights = [found.get(n, float("nan")) for n in names]
        panel.bar(at, heights, 0.8 / len(kinds), label=kind, color=_colour(kind, place))
    panel.set_xticks(range(len(names)), names, fontsize=8)
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.grid(axis="y", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _colour(kind: str, place: int) -> str:
    """Ours stand out in reds, the others in the colours of a map without red."""
    reds, others = ("#a50f15", "#de2d26", "#fb6a4a", "#fcae91"), ("#08306b", "#4292c6", "#9ecae1", "#737373", "#bdbdbd")
    return reds[place % 4] if kind.startswith("ours") else others[place % 5]


def _save(figure: Any, panels: list[Any], path: Path) -> None:
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
