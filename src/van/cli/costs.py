"""The tables of `van info` for models: what they cost by layer, by size and by option of the attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ..configs.backbone import VARIANTS
from ..configs.catalog import OBJECT_MODELS
from ..configs.segmenter import SEGMENTERS
from ..tools.complexity_tables import (
    CONVENTIONS,
    OBJECT_SIZE,
    PUBLISHED_OBJECTS,
    PUBLISHED_SEGMENTERS,
    Alternative,
    Complexity,
    SegmenterComplexity,
    counted_classifier,
    counted_segmenter,
    sides,
)
from .output import print_table, to_json


def show_model(name: str, *, size: Sequence[int], with_ablations: bool, as_json: bool) -> None:
    """One model: its layers and totals and, if asked, what the options of its attention cost."""
    cost, options = _classifier(name, size), _alternatives(name, size) if with_ablations else ((), ())
    if as_json:
        tables = zip(("ablations", "kernels"), options, strict=True)
        extra = {key: [row.to_dict() for row in rows] for key, rows in tables if rows}
        print(to_json(cost.to_dict() | extra))
        return
    _print_layers(cost)
    for title, rows in zip(("ablations of the attention", "kernels of the attention"), options, strict=True):
        if rows:
            _print_options(f"{cost.name}: {title}", rows)


def show_variants(*, size: Sequence[int], as_json: bool) -> None:
    """Every published size on a line, counted next to published."""
    rows = [_classifier(name, size) for name in VARIANTS]
    if as_json:
        print(to_json([{key: value for key, value in row.to_dict().items() if key != "layers"} for row in rows]))
        return
    table = _table(
        f"for one image of {_by(rows[0].size)} pixels",
        ["model", "parameters", "published", "multiply-adds", "published convention", "published", "difference"],
    )
    for row in rows:
        millions, giga = row.published or (None, None)
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            "" if millions is None else f"{millions:g} M",
            f"{row.macs / 1e9:.3f} G",
            f"{row.mmcv_without_layer_norm / 1e9:.3f} G",
            "" if giga is None else f"{giga:g} G",
            "" if row.deviation is None else f"{row.deviation:+.2f}%",
        )
    print_table(table)
    print("\n".join(CONVENTIONS))
    print("van_b6: published by the paper, third stage 384 wide; van_b6_480: by OpenMMLab, 480 wide.")


def show_segmenter(name: str, *, size: Sequence[int], as_json: bool) -> None:
    """One segmenter: its parts, and its operations in every convention next to what was published."""
    pixels = sides(size)
    cost, published = _segmenter(name, size), PUBLISHED_SEGMENTERS.get(name, ())
    if as_json:
        tables = [asdict(row) | {"size": list(row.size)} for row in published]
        print(to_json({"name": name, "size": list(pixels), **asdict(cost), "published": tables}))
        return
    counted = {
        "torchprofile": ("multiply-adds as torchprofile counts", cost.torchprofile),
        "mmcv": ("multiply-adds as mmcv counts", cost.mmcv),
    }
    table = _table(f"{name}, {_by(pixels)} pixels", ["what", "counted", "published"])
    for part, parameters in cost.by_part.items():
        table.add_row(f"parameters: {part}", f"{parameters:,}", "")
    millions = ", ".join(f"{row.parameters_m} M" for row in published)
    table.add_row("parameters", f"{cost.parameters:,}", millions, end_section=True)
    table.add_row("multiply-adds of convolutions", f"{cost.macs / 1e9:.3f} G", "")
    table.add_row("multiply-adds of matrix products", f"{cost.matmul_macs / 1e9:.3f} G", "")
    for convention, (what, count) in counted.items():
        rows = [row for row in published if row.convention == convention and row.giga]
        theirs = ", ".join(f"{row.giga} G" + (f" at {_by(row.size)}" if row.size != pixels else "") for row in rows)
        table.add_row(what, f"{count / 1e9:.3f} G", theirs)
    print_table(table)
    print("convolutions and matrix products: no bias, norms, activations or resizing; the auxiliary head never runs.")


def show_objects(name: str, *, size: Sequence[int], as_json: bool) -> None:
    """One model that finds objects: its parts and its operations, next to what was published."""
    from ..tools.object_complexity import describe_objects

    pixels = sides(size or _usual_size(name))
    cost, published = describe_objects(OBJECT_MODELS[name], size=pixels), PUBLISHED_OBJECTS.get(name)
    if as_json:
        row = None if published is None else asdict(published) | {"size": list(published.size)}
        print(to_json({"name": name, "size": list(pixels), **asdict(cost), "published": row}))
        return
    table = _table(f"{name}, {_by(pixels)} pixels", ["what", "counted", "published"])
    for part, parameters in cost.by_part.items():
        table.add_row(f"parameters: {part}", f"{parameters:,}", "")
    millions = "" if published is None else f"{published.parameters_m} M"
    table.add_row("parameters", f"{cost.parameters:,}", millions, end_section=True)
    table.add_row("multiply-adds of convolutions and linear layers", f"{cost.macs / 1e9:.3f} G", "")
    table.add_row("multiply-adds of matrix products", f"{cost.matmul_macs / 1e9:.3f} G", "")
    theirs = "" if published is None else f"{published.giga} G"
    theirs += "" if published is None or published.size == pixels else f" at {_by(published.size)}"
    table.add_row("multiply-adds as mmcv counts", f"{cost.mmcv / 1e9:.3f} G", theirs)
    print_table(table)
    print("multiply-adds: one per use of a weight; no norms, activations, resizing, pooling of boxes or suppression.")
    print("as mmcv counts: 1 more per use of a bias, 2 per element of a BatchNorm or GroupNorm.")
    print("box and mask heads of two stages: 1,000 proposals and 100 masks, as OpenMMLab's tool takes them.")


def _usual_size(name: str) -> tuple[int, int]:
    config = OBJECT_MODELS[name]
    return (config.min_size, config.min_size) if config.stretched else OBJECT_SIZE


def _classifier(name: str, size: Sequence[int]) -> Complexity:
    """Counted before, else counted now, for which torch is imported."""
    if (cost := counted_classifier(name, size)) is not None:
        return cost
    from ..tools.complexity import describe

    return describe(name, size=size)


def _segmenter(name: str, size: Sequence[int]) -> SegmenterComplexity:
    if (cost := counted_segmenter(name, size)) is not None:
        return cost
    from ..tools.complexity import describe_segmenter

    return describe_segmenter(SEGMENTERS[name], size=size)


def _alternatives(name: str, size: Sequence[int]) -> tuple[tuple[Alternative, ...], tuple[Alternative, ...]]:
    from ..tools.complexity import ablations, kernels

    return ablations(name, size=size), kernels(name, size=size)


def _print_layers(cost: Complexity) -> None:
    table = _table(f"{cost.name}, {_by(cost.size)} pixels", ["layer", "output", "parameters", "multiply-adds"])
    for layer in cost.layers:
        weights = layer.parameters + layer.statistics
        table.add_row(
            layer.name, _by(layer.shape), f"{weights:,}", f"{layer.macs:,}", end_section=_ends_stage(layer.name)
        )
    table.add_row("total", "", f"{cost.parameters + cost.statistics:,}", f"{cost.macs:,}")
    print_table(table)
    print(f"parameters: {cost.parameters:,} trainable, {cost.statistics:,} BatchNorm statistics{_published(cost, 0)}")
    print(
        f"multiply-adds: {cost.macs / 1e9:.3f} G; {cost.mmcv_without_layer_norm / 1e9:.3f} G in the published"
        f" convention{_published(cost, 1)}"
    )
    print("\n".join(CONVENTIONS))


def _published(cost: Complexity, which: int) -> str:
    if cost.published is None:
        return ""
    return f"; published: {cost.published[which]:g} {('M', 'G')[which]}"


def _print_options(title: str, rows: Iterable[Alternative]) -> None:
    table = _table(title, ["option", "meaning", "parameters", "multiply-adds", "ImageNet-1K top-1 of van_b0"], left=2)
    for row in rows:
        cost = row.complexity
        table.add_row(row.option, row.meaning, f"{cost.parameters:,}", f"{cost.macs:,}", f"{row.top1}")
    print_table(table)


def _table(title: str, columns: Sequence[str], left: int = 1) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < left else "right")
    return table


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _ends_stage(name: str) -> bool:
    return name.endswith(".norm") or name == "head"
