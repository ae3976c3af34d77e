"""What cpu_inference.py requires, prints, records and draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ledger

PICTURE = ledger.ROOT / "docs" / "cpu_inference.png"
COLUMNS = {
    "peer": "transformers 4.57",
    "peer-onnx": "the same, ONNX Runtime",
    "peer-openvino": "the same, OpenVINO",
    "eager": "ours, eager",
    "optimised": "ours, optimised",
    "compiled": "ours, compiled",
    "onnx": "ours, ONNX Runtime",
    "openvino": "ours, OpenVINO",
    "onnx-int8": "ours, int8, ONNX Runtime",
    "openvino-int8": "ours, int8, OpenVINO",
}
# What the optimised network must reach over the peer's eager code at batch 1 on two threads, and all torch everywhere.
REQUIRED_AT_BATCH_1 = {"van_b0": 1.6, "van_b1": 1.6}
REQUIRED_EVERYWHERE = 0.97
TORCH = ("eager", "optimised", "compiled")
# What is meant at batch 1 on two threads: of the optimised network over the peer's eager code, …
MEANT_EAGER = {"van_b0": 4.0, "van_b1": 3.0}
# … of our best in float32 over the faster of the peer's runtimes, and as a multiple of the floor, …
MEANT_BEST = dict.fromkeys(("van_b0", "van_b1", "van_b2", "van_b3"), 1.1)
MEANT_FLOOR = dict.fromkeys(("van_b1", "van_b2", "van_b3"), 1.6)
# … and of int8 over the peer in OpenVINO.
MEANT_INT8 = {"van_b0": 1.7, "van_b1": 2.2, "van_b2": 2.2, "van_b3": 2.2}

Row = dict[str, Any]


def missed(rows: list[Row]) -> Iterator[str]:
    """What is slower than it has to be."""
    for row in rows:
        first = (row["batch"], row["threads"], row["kind"]) == (1, 2, "optimised")
        required = (REQUIRED_AT_BATCH_1.get(row["model"]) if first else None) or REQUIRED_EVERYWHERE
        if row["kind"] in TORCH and row["ratio"] < required:
            yield f"MISSED: {_where(row)}: {row['ratio']:.2f} times the peer's speed; required {required}"


def below_the_aim(rows: list[Row]) -> Iterator[str]:
    """What is not yet as fast as it is meant to be, at batch 1 on two threads."""
    for model in dict.fromkeys(row["model"] for row in rows):
        ms = {row["kind"]: row["ms"] for row in rows if (row["model"], row["batch"], row["threads"]) == (model, 1, 2)}
        floor = next((row["floor_ms"] for row in rows if (row["model"], row["batch"]) == (model, 1)), None)
        best = min((ms[kind] for kind in (*TORCH, "onnx", "openvino") if kind in ms), default=None)
        runtimes = [ms[kind] for kind in ("peer-onnx", "peer-openvino") if kind in ms]
        reached = {
            "optimised over the peer's eager code": _over(ms.get("peer"), ms.get("optimised"), MEANT_EAGER.get(model)),
            "best float32 over the peer's faster runtime": _over(
                min(runtimes, default=None), best, MEANT_BEST.get(model)
            ),
            "int8 over the peer in OpenVINO": _over(
                ms.get("peer-openvino"), ms.get("openvino-int8"), MEANT_INT8.get(model)
            ),
            "the floor over best float32": _over(floor, best, 1 / MEANT_FLOOR[model] if model in MEANT_FLOOR else None),
        }
        for what, found in reached.items():
            if found is not None and found[0] < found[1]:
                yield f"below the aim: {model}, batch 1, 2 threads: {what}: {found[0]:.2f}; meant: {found[1]:.2f}"


def _over(base: float | None, own: float | None, meant: float | None) -> tuple[float, float] | None:
    return None if base is None or own is None or meant is None else (base / own, meant)


def _where(row: Row) -> str:
    return f"{row['model']}, batch {row['batch']}, {row['threads']} threads, {row['kind']}"


def show(rows: list[Row]) -> None:
    """Print the rows of one case."""
    print(f"{rows[0]['gemm_gflops']:.0f} GFLOP/s, floor {rows[0]['floor_ms']:.2f} ms")
    for row in rows:
        noise = "" if row["sqnr_db"] is None else f"  logits {row['sqnr_db']:.1f} dB"
        print(
            f"{row['model']}  batch {row['batch']}  threads {row['threads']}  {row['kind']:<13}  {row['ms']:8.2f} ms"
            f"  ({row['low']:.2f} to {row['high']:.2f})  {row['ratio']:5.2f}x"
            f"  {row['ms'] / row['floor_ms']:5.2f} floors{noise}",
            flush=True,
        )


def record(rows: list[Row], versions: dict[str, str], *, command: str) -> None:
    """Write the ledger: milliseconds of everything, the ratios and the floors; draw the picture anew."""
    entries: list[Row] = []
    torch = any(row["kind"] in TORCH for row in rows)
    for row in rows:
        where, what, common = _case(row, versions)
        if torch or row["kind"] != "peer":  # its time stands beside our forms in PyTorch, of the same rounds
            entries += _entries(row, where, what, common | {"table": _table(row["kind"])})
        if row["kind"] == "peer":
            value = {"id": f"{_of(where, 'floor')}/ms", "value": round(row["floor_ms"], 2), "unit": "ms"}
            about = f"{what}: floor, 1x1 convolutions at {row['gemm_gflops']:.0f} GFLOP/s of a float32 product"
            entries.append(common | value | {"table": "cpu-runtimes", "column": "floor (ms)", "what": about})
    ledger.record(entries, command=command)
    ledger.write(in_order(ledger.read()))
    draw(ledger.read(), PICTURE)


def in_order(entries: list[Row]) -> list[Row]:
    """The ledger with this script's entries at its end, by model, batch, threads and kind, as tables show them."""

    def place(entry: Row) -> tuple[bool, str, int, bool, int]:
        _, _, model, batch, kind, *rest = entry["id"].split("/")
        return (
            not model.startswith("van_"),
            model,
            int(batch.removeprefix("batch")),
            "1thread" in rest,
            kinds.index(kind),
        )

    kinds = [*COLUMNS, "floor"]
    own = [entry for entry in entries if entry["id"].startswith("measured/cpu/")]
    return [entry for entry in entries if entry not in own] + sorted(own, key=place)


def _case(row: Row, versions: dict[str, str]) -> tuple[str, str, Row]:
    label = _label(row["model"], row["size"])
    alone = row["threads"] == 1
    where = f"measured/cpu/{row['model']}/batch{row['batch']}{'/1thread' if alone else ''}"
    what = f"{label}, batch {row['batch']}, {row['size']}², {row['threads']} threads"
    name = f"{label}, batch {row['batch']}{', 1 thread' if alone else ''}"
    return where, what, {"row": name, "versions": versions}


def _label(model: str, size: int) -> str:
    if model.startswith("van_"):
        return model.upper().replace("_", "-")
    return f"{model.replace('_van_', ' ').replace('_', '-').title()} at {size}²"


def _of(where: str, kind: str) -> str:
    case, alone, _ = where.partition("/1thread")
    return f"{case}/{kind}{alone}"


def _table(kind: str) -> str:
    return "cpu" if kind in ("peer", *TORCH) else "cpu-int8" if kind.endswith("int8") else "cpu-runtimes"


def _entries(row: Row, where: str, what: str, common: Row) -> Iterator[Row]:
    kind = row["kind"]
    where = _of(where, kind)
    shown = f"{row['ms']:.1f}" + (f" ({row['ratio']:.2f}×)" if kind != "peer" else "")
    if row["sqnr_db"] is not None:
        noise = {"id": f"{where}/sqnr", "value": round(row["sqnr_db"], 1), "unit": "dB"}
        yield noise | {"what": f"{what}: logits of {COLUMNS[kind]} on random images, weights that look trained"}
    spread = {"quartiles": [round(row["low"], 2), round(row["high"], 2)], "shown": shown}
    time_ms = {"id": f"{where}/ms", "value": round(row["ms"], 2), "unit": "ms", "column": f"{COLUMNS[kind]} (ms)"}
    yield common | time_ms | spread | {"what": f"{what}: {COLUMNS[kind]}, time per batch"}
    if kind != "peer":
        ratio = {"id": f"{where}/ratio", "value": round(row["ratio"], 3), "unit": "×", "versions": common["versions"]}
        yield ratio | {"what": f"{what}: speed of {COLUMNS[kind]} over transformers 4.57, eager"}


def draw(entries: list[Row], path: Path) -> None:
    """Bars of every form at batch 1 on two threads, a group per model, the floor as a line across each group."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    found = {entry["id"]: entry["value"] for entry in entries if entry["id"].startswith("measured/cpu/")}
    at = lambda model, kind: found.get(f"measured/cpu/{model}/batch1/{kind}/ms")  # noqa: E731
    models = [model for model in MEANT_BEST if at(model, "peer-openvino") is not None]
    kinds = [kind for kind in COLUMNS if any(at(model, kind) is not None for model in models)]
    figure, axes = plt.subplots(
        1, len(models), figsize=(2.4 + 3.2 * len(models), 3.2), layout="constrained", squeeze=False
    )
    colours = plt.colormaps["Greys"](0.45), plt.colormaps["Blues"](0.75), plt.colormaps["Oranges"](0.6)
    for axis, model in zip(axes[0], models, strict=True):
        values = [at(model, kind) for kind in kinds]
        paint = [colours[0 if kind.startswith("peer") else 2 if kind.endswith("int8") else 1] for kind in kinds]
        bars = axis.barh([COLUMNS[kind] for kind in kinds], [value or 0 for value in values], color=paint)
        axis.bar_label(bars, ["" if value is None else f"{value:.1f}" for value in values], padding=2, fontsize=7)
        if (floor := at(model, "floor")) is not None:
            axis.axvline(floor, color="black", linewidth=0.8, linestyle="--")
        axis.set(title=model.upper().replace("_", "-"), xlabel="ms", xlim=(0, 1.15 * max(filter(None, values))))
        axis.invert_yaxis()
        axis.tick_params(labelsize=7, labelleft=axis is axes[0][0])
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "One 224² image, two threads: the VAN of transformers (grey), ours in float32 (blue) and int8 (orange);\n"
        "dashed: arithmetic of the 1×1 convolutions",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
