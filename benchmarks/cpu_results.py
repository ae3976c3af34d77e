"""What cpu_inference.py requires, prints, records and draws."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ledger

DOCS = ledger.ROOT / "docs"
COLUMNS = {
    "peer": "transformers 4.57",
    "peer-onnx": "the same, ONNX Runtime",
    "peer-openvino": "the same, OpenVINO",
    "eager": "ours, eager",
    "optimised": "ours, optimised",
    "compiled": "ours, compiled",
    "bf16": "ours, bf16",
    "onnx": "ours, ONNX Runtime",
    "openvino": "ours, OpenVINO",
    "onnx-int8": "ours, int8, ONNX Runtime",
    "openvino-int8": "ours, int8, OpenVINO",
}
# Precision -> of the floor's entry: kind and column.
FLOORS = {"fp32": ("arithmetic", "arithmetic floor"), "bf16": ("arithmetic-bf16", "arithmetic floor, bf16")}
REPLACED_FLOOR = "floor"  # kind of older entries, which counted the 1x1 convolutions alone
# What the optimised network must reach over the peer's eager code at batch 1 on two threads, and all torch everywhere.
REQUIRED_AT_BATCH_1 = {"van_b0": 1.6, "van_b1": 1.6}
REQUIRED_EVERYWHERE = 0.97
TORCH = ("eager", "optimised", "compiled")
FLOAT32 = (*TORCH, "onnx", "openvino")  # of ours
LOSSY = ("bf16", "onnx-int8", "openvino-int8")
# What is meant at batch 1 on two threads, by the kernel's instructions where they differ: of the optimised network over
# the peer's eager code (without AMX B1 would lie below its floor), …
MEANT_EAGER = {"AMX": {"van_b0": 4.0, "van_b1": 3.0}}
# … of our best in float32 over the faster of the peer's runtimes (AMX: what it reached), and in floors, …
VARIANTS = ("van_b0", "van_b1", "van_b2", "van_b3")
MEANT_BEST = {"AMX": dict.fromkeys(VARIANTS, 1.2), "AVX512": {**dict.fromkeys(VARIANTS, 1.0), "van_b0": 1.2}}
MEANT_FLOORS = {**dict.fromkeys(VARIANTS, 1.15), "van_b0": 1.4}
# … of bf16 over optimised float32, by the instructions that multiply bfloat16, and of int8 over the peer in OpenVINO.
MEANT_BF16 = {"AMX": {"van_b1": 1.5}, "AVX512-BF16": {"van_b1": 1.4}}
MEANT_INT8 = {"van_b0": 1.7, "van_b1": 2.2, "van_b2": 2.2, "van_b3": 2.2}

Row = dict[str, Any]
_OWN = re.compile(r"measured/cpu(-\w+)?/")


def processor() -> dict[str, str]:
    """The instructions of the kernel here, "plain" without one, and those that multiply bfloat16, "" for none."""
    from van.ops.c_library import library

    instructions, flags = library().instructions if library().handle else "plain", Path("/proc/cpuinfo")
    rounded = "avx512_bf16" in (flags.read_text().split() if flags.exists() else ())
    bf16 = "AMX" if instructions == "AMX" else "AVX512-BF16" if instructions == "AVX512" and rounded else ""
    return {"processor": instructions, "bf16": bf16}


def missed(rows: list[Row]) -> Iterator[str]:
    """What is slower than it has to be."""
    for row in rows:
        first = (row["batch"], row["threads"], row["kind"]) == (1, 2, "optimised")
        required = (REQUIRED_AT_BATCH_1.get(row["model"]) if first else None) or REQUIRED_EVERYWHERE
        if row["kind"] in TORCH and row["ratio"] < required:
            yield f"MISSED: {_where(row)}: {row['ratio']:.2f} times the peer's speed; required {required}"


def precision(kind: str) -> str:
    """The precision whose floor a kind is compared with: int8's is float32's."""
    return "bf16" if kind == "bf16" else "fp32"


def below_the_aim(rows: list[Row]) -> Iterator[str]:
    """What is not yet as fast as it is meant to be, at batch 1 on two threads."""
    for model in dict.fromkeys(row["model"] for row in rows):
        case = {row["kind"]: row for row in rows if (row["model"], row["batch"], row["threads"]) == (model, 1, 2)}
        if case:
            yield from _below_the_aim(model, case)


def _below_the_aim(model: str, case: dict[str, Row]) -> Iterator[str]:
    first, ms = next(iter(case.values())), {kind: row["ms"] for kind, row in case.items()}
    floor = next((row["floor_ms"] for kind, row in case.items() if precision(kind) == "fp32"), None)
    processor = first["processor"]
    best = min((ms[kind] for kind in FLOAT32 if kind in ms), default=None)
    runtime = min((ms[kind] for kind in ("peer-onnx", "peer-openvino") if kind in ms), default=None)
    faster = {
        "optimised over the peer's eager code": (ms.get("peer"), ms.get("optimised"), MEANT_EAGER.get(processor, {})),
        "best float32 over the peer's faster runtime": (runtime, best, MEANT_BEST.get(processor, {})),
        "bf16 over optimised float32": (ms.get("optimised"), ms.get("bf16"), MEANT_BF16.get(first["bf16"], {})),
        "int8 over the peer in OpenVINO": (ms.get("peer-openvino"), ms.get("openvino-int8"), MEANT_INT8),
    }
    where = f"below the aim: {model}, batch 1, 2 threads, {processor}"
    for what, (base, own, meant) in faster.items():
        if base and own and model in meant and base / own < meant[model]:
            yield f"{where}: {what}: {base / own:.2f}; meant: at least {meant[model]:.2f}"
    if best and floor and best / floor > MEANT_FLOORS.get(model, best / floor):
        yield f"{where}: best float32 in floors: {best / floor:.2f}; meant: at most {MEANT_FLOORS[model]:.2f}"


def _where(row: Row) -> str:
    return f"{row['model']}, batch {row['batch']}, {row['threads']} threads, {row['kind']}"


def show(rows: list[Row]) -> None:
    """Print the rows of one case."""
    for each in dict.fromkeys(precision(row["kind"]) for row in rows):
        row = next(row for row in rows if precision(row["kind"]) == each)
        print(
            f"{each}: {row['macs'] / 1e6:.0f} million multiply-adds at {row['gemm_gflops']:.0f} GFLOP/s:"
            f" floor {row['floor_ms']:.2f} ms ({row['processor']})"
        )
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
            entries += _entries(row, where, what, common | {"table": _table(row)})
        if row["kind"] in ("peer", "bf16"):
            entries.append(_floor(row, where, what, common))
    ledger.record(entries, command=command)
    kept = [entry for entry in ledger.read() if entry["id"] not in {_replaced(row) for row in rows}]
    ledger.write(in_order(kept))
    for processor in dict.fromkeys(row["processor"] for row in rows):
        draw(ledger.read(), processor)


def _floor(row: Row, where: str, what: str, common: Row) -> Row:
    kind, column = FLOORS[precision(row["kind"])]
    about = f"{row['macs'] / 1e6:.0f} million multiply-adds at {row['gemm_gflops']:.0f} GFLOP/s of a product in"
    return common | {
        "id": f"{_of(where, kind)}/ms",
        "value": round(row["floor_ms"], 2),
        "unit": "ms",
        "table": f"{_prefix(row['processor'])}-runtimes",
        "column": f"{column} (ms)",
        "what": f"{what}: floor, {about} {precision(row['kind'])}",
    }


def _replaced(row: Row) -> str:
    """The older floor of the case."""
    where, _, _ = _case(row, {})
    return f"{_of(where, REPLACED_FLOOR)}/ms"


def name_on(name: str, processor: str) -> str:
    """Of ids and tables: AMX, the reference machine's, has the bare name."""
    return name if processor == "AMX" else f"{name}-{processor.lower()}"


def _prefix(processor: str) -> str:
    return name_on("cpu", processor)


def in_order(entries: list[Row]) -> list[Row]:
    """The ledger with this script's entries at its end, by processor, model, batch, threads and kind."""

    def place(entry: Row) -> tuple[str, bool, str, int, bool, int]:
        _, processor, model, batch, kind, *rest = entry["id"].split("/")
        return (
            processor,
            not model.startswith("van_"),
            model,
            int(batch.removeprefix("batch")),
            "1thread" in rest,
            kinds.index(kind),
        )

    kinds = [*COLUMNS, REPLACED_FLOOR, *(kind for kind, _ in FLOORS.values())]
    own = [entry for entry in entries if _OWN.match(entry["id"])]
    return [entry for entry in entries if entry not in own] + sorted(own, key=place)


def _case(row: Row, versions: dict[str, str]) -> tuple[str, str, Row]:
    label = _label(row["model"], row["size"])
    alone = row["threads"] == 1
    prefix = _prefix(row["processor"])
    where = f"measured/{prefix}/{row['model']}/batch{row['batch']}{'/1thread' if alone else ''}"
    what = f"{label}, batch {row['batch']}, {row['size']}², {row['threads']} threads, {row['processor']}"
    name = f"{label}, batch {row['batch']}{', 1 thread' if alone else ''}"
    return where, what, {"row": name, "versions": versions}


def _label(model: str, size: int) -> str:
    if model.startswith("van_"):
        return model.upper().replace("_", "-")
    return f"{model.replace('_van_', ' ').replace('_', '-').title()} at {size}²"


def _of(where: str, kind: str) -> str:
    case, alone, _ = where.partition("/1thread")
    return f"{case}/{kind}{alone}"


def _table(row: Row) -> str:
    kind, prefix = row["kind"], _prefix(row["processor"])
    if kind in ("peer", "bf16", *TORCH):
        return prefix
    return f"{prefix}-int8" if kind.endswith("int8") else f"{prefix}-runtimes"


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


def draw(entries: list[Row], processor: str) -> None:
    """Bars of every form at batch 1 on two threads, a group per model, the floor as a line across each group.

    Writes docs/cpu_inference.png for AMX, cpu_inference_avx512.png and so on for others.
    """
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    prefix = _prefix(processor)
    found = {entry["id"]: entry["value"] for entry in entries if entry["id"].startswith(f"measured/{prefix}/")}
    at = lambda model, kind: found.get(f"measured/{prefix}/{model}/batch1/{kind}/ms")  # noqa: E731
    models = [model for model in VARIANTS if at(model, "peer-openvino") is not None]
    if not models:
        return
    kinds = [kind for kind in COLUMNS if any(at(model, kind) is not None for model in models)]
    figure, axes = plt.subplots(
        1, len(models), figsize=(2.4 + 3.2 * len(models), 3.2), layout="constrained", squeeze=False
    )
    colours = plt.colormaps["Greys"](0.45), plt.colormaps["Blues"](0.75), plt.colormaps["Oranges"](0.6)
    for axis, model in zip(axes[0], models, strict=True):
        values = [at(model, kind) for kind in kinds]
        paint = [colours[0 if kind.startswith("peer") else 2 if kind in LOSSY else 1] for kind in kinds]
        bars = axis.barh([COLUMNS[kind] for kind in kinds], [value or 0 for value in values], color=paint)
        axis.bar_label(bars, ["" if value is None else f"{value:.1f}" for value in values], padding=2, fontsize=7)
        if (floor := at(model, FLOORS["fp32"][0])) is not None:
            axis.axvline(floor, color="black", linewidth=0.8, linestyle="--")
        axis.set(title=model.upper().replace("_", "-"), xlabel="ms", xlim=(0, 1.15 * max(filter(None, values))))
        axis.invert_yaxis()
        axis.tick_params(labelsize=7, labelleft=axis is axes[0][0])
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"One 224² image, two threads, {processor}: the VAN of transformers (grey), ours in float32 (blue),\n"
        "in bfloat16 and int8 (orange); dashed: all multiply-adds at the rate of a float32 product",
        fontsize=9,
    )
    figure.savefig(DOCS / f"{prefix.replace('cpu', 'cpu_inference').replace('-', '_')}.png", dpi=110)
    plt.close(figure)
