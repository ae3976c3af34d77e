"""The depthwise convolutions on a GPU: the library in every layout against our kernels, and against the floors.

    python benchmarks/gpu_ops.py [--dtypes bf16 fp32] [--batch 128] [--rows FILE] [--no-record] [--picture PATH]
    python benchmarks/gpu_ops.py --quick      # toy sizes; without a GPU under Triton's interpreter

dw3, dw5 and dw7 with dilation 3; forward, input gradient, weight gradient; the four maps of B2 at 224². Ways: the
library on NCHW and on channels_last, each without and with cudnn.benchmark, and ours. The floor is the longer of
reading and writing every map once at the speed of a copy, and of the multiply-adds whose taps lie inside the map at the
speed of a kernel of nothing else, both measured in the same run. Before anything is timed, ours must agree with the
library. Kernel names are the profiler's. Writes docs/results.json and docs/gpu_ops.png, on a GPU only.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gpu_rows import Rows

DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
# name -> kernel side, dilation, whether on the expanded map
CONVOLUTIONS = {"dw3": (3, 1, True), "dw5": (5, 1, False), "dw7d3": (7, 3, False)}
STAGES = [(56, 64, 8), (28, 128, 8), (14, 320, 4), (7, 512, 4)]  # side, channels, expansion
TOY_STAGES = [(5, 16, 1)]
DIRECTIONS = ("forward", "input gradient", "weight gradient")
WAYS = ("NCHW", "NCHW, benchmark", "channels_last", "channels_last, benchmark", "ours")
TOLERANCE = {"bf16": 2e-2, "fp32": 2e-3, "fp16": 4e-3}  # the library may use TF32


@dataclass(frozen=True, kw_only=True)
class Case:
    """One convolution of one map in one direction."""

    name: str
    direction: str
    dtype: str
    batch: int
    channels: int
    side: int

    @property
    def traffic(self) -> int:
        """Bytes when both maps pass once."""
        size = 4 if self.dtype == "fp32" else 2
        return 2 * size * self.batch * self.channels * self.side**2

    @property
    def multiply_adds(self) -> int:
        """Those whose tap lies inside the map."""
        kernel, dilation, _ = CONVOLUTIONS[self.name]
        reach = [(j - kernel // 2) * dilation for j in range(kernel)]
        inside = sum(max(0, self.side - abs(shift)) for shift in reach)
        return self.batch * self.channels * inside**2


def main() -> int:
    """Measure, print, record."""
    options = _options()
    import gpu_machine
    import torch

    if not options.quick and not torch.cuda.is_available():
        print("no GPU: only --quick works here", file=sys.stderr)
        return 2
    floors, about = gpu_machine.floors(quick=options.quick), gpu_machine.describe()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"copy {floors['copy'] / 1e12:.3g} TB/s, float32 {2 * floors['fma'] / 1e12:.3g} TFLOP/s")
    rows = Rows(options.rows, [field.name for field in fields(Case)] + ["way"])
    for case in _cases(options):
        if not all(rows.have(**asdict(case), way=way) for way in WAYS):
            for row in _measure(case, floors, options):
                rows.append(row)
    keep = torch.cuda.is_available() and options.record and not options.quick
    if keep:
        _record(rows, floors, about)
    if keep or options.picture:
        import gpu_picture

        title = f"Depthwise convolutions, batch {options.batch}: {about['machine']}"
        gpu_picture.draw_ops(rows, options.picture or gpu_picture.DIRECTORY / "gpu_ops.png", title=title)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["bf16", "fp32"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--runs", type=int, default=30, help="timed runs of each, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it works; nothing is written")
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    parser.add_argument("--picture", type=Path, help="draw it there, also of a trial")
    parser.add_argument("--rows", type=Path, help="JSON lines: each result as it comes; those that are there stay")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.runs = 1, 1
        import torch

        if not torch.cuda.is_available():
            os.environ["TRITON_INTERPRET"] = "1"
    return options


def _cases(options: argparse.Namespace) -> list[Case]:
    stages = TOY_STAGES if options.quick else STAGES
    return [
        Case(
            name=name,
            direction=direction,
            dtype=dtype,
            batch=options.batch,
            channels=channels * (ratio if expanded else 1),
            side=side,
        )
        for dtype in options.dtypes
        for name, (_, _, expanded) in CONVOLUTIONS.items()
        for side, channels, ratio in stages
        for direction in DIRECTIONS
    ]


def _measure(case: Case, floors: dict[str, float], options: argparse.Namespace) -> list[dict[str, Any]]:
    import gpu_machine
    import torch

    ways = {way: _way(case, way) for way in WAYS}
    wanted, found = ways["NCHW"](), ways["ours"]()
    gap = ((found - wanted).abs().max() / wanted.abs().max()).item()
    if not gap < TOLERANCE[case.dtype]:
        raise SystemExit(f"{case}: ours differs from the library by {gap:.2g} of the largest value")
    memory_ms, arithmetic_ms = 1e3 * case.traffic / floors["copy"], 1e3 * case.multiply_adds / floors["fma"]
    floor_ms, rows, library_ms = max(memory_ms, arithmetic_ms), [], math.inf
    title = f"{case.dtype} {case.name:<5} {case.direction:<15} {case.side:>2}² x {case.channels}"
    print(f"{title}: floor {floor_ms:.4f} ms (memory {memory_ms:.4f}, arithmetic {arithmetic_ms:.4f})")
    for way, run in ways.items():
        with torch.backends.cudnn.flags(enabled=True, benchmark="benchmark" in way, allow_tf32=True):
            names = gpu_machine.kernel_names(run)
            ms = gpu_machine.milliseconds(run, runs=options.runs)
        row = asdict(case) | {"way": way, "ms": ms, "floor_ms": floor_ms, "kernels": names}
        told = f"{floor_ms / ms:6.1%} of the floor"
        if way == "ours":
            row["over_library"] = round(library_ms / ms, 3)
            told += f", {library_ms / ms:.2f}x the library's fastest"
        else:
            library_ms = min(library_ms, ms)
        rows.append(row)
        print(f"  {way:<25} {ms:9.4f} ms  {told}  {', '.join(names)[:110]}", flush=True)
    return rows


def _way(case: Case, way: str) -> Callable[[], Any]:
    """A function that computes the case in that way; every way draws the same numbers."""
    import gpu_machine
    import torch

    from van.ops import cuda_depthwise as gpu

    where, dtype = gpu_machine.device(), getattr(torch, DTYPES[case.dtype])
    side, dilation, _ = CONVOLUTIONS[case.name]
    draw = torch.Generator(where).manual_seed(0)
    shape = (case.batch, case.channels, case.side, case.side)
    x, grad = (torch.randn(shape, generator=draw, device=where, dtype=dtype) for _ in range(2))
    weight = torch.randn((case.channels, 1, side, side), generator=draw, device=where, dtype=dtype) / side
    bias = torch.zeros(case.channels, device=where, dtype=dtype)
    if not way.startswith("NCHW"):
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    conv = (weight, bias, dilation)
    if way == "ours":
        return {
            "forward": lambda: gpu.convolve(x, conv),
            "input gradient": lambda: gpu.convolve(grad, conv, flip=True),
            "weight gradient": lambda: gpu.parameter_gradients(grad, x, conv)[0],
        }[case.direction]
    padding = dilation * (side - 1) // 2
    geometry = ([1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], case.channels)
    if case.direction == "forward":
        return lambda: torch.ops.aten.convolution(x, weight, bias, *geometry)
    mask = [True, False, False] if case.direction == "input gradient" else [False, True, True]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(grad, x, weight, [case.channels], *geometry, mask)[mask.index(True)]


def _record(rows: list[dict[str, Any]], floors: dict[str, float], about: dict[str, str]) -> None:
    import ledger

    machine, versions = about["machine"], {name: value for name, value in about.items() if name != "machine"}
    common = {"machine": machine, "versions": versions, "table": None}
    entries = [
        common
        | {
            "id": f"measured/gpu/floor/{name}",
            "what": f"{what} of {machine}",
            "value": floors[name] * scale,
            "unit": unit,
        }
        for name, what, scale, unit in (("copy", "copy", 1e-12, "TB/s"), ("fma", "float32", 2e-12, "TFLOP/s"))
    ]
    for row in rows:
        which = f"{row['dtype']}/{row['name']}/{row['direction']}/{row['side']}x{row['channels']}/{row['way']}"
        what = (
            f"{row['dtype']} {row['name']} {row['direction']}, {row['side']}² x {row['channels']}, batch {row['batch']}"
        )
        figures = {"value": round(row["ms"], 5), "unit": "ms"}
        figures |= {key: row[key] for key in ("floor_ms", "kernels", "over_library") if key in row}
        named = {"id": f"measured/gpu/ops/{which}".replace(" ", "_"), "what": f"{what}: {row['way']}"}
        entries.append(common | named | figures)
    ledger.record(entries, command=f"python {' '.join(sys.argv)}")


if __name__ == "__main__":
    sys.exit(main())
