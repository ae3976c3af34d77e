"""Measure how fast a network is on this machine's CPU, in every form: torch, ONNX Runtime, OpenVINO, bfloat16, int8.

All forms are checked to give the same logits, then measured in turn; medians over the rounds with quartiles. The
floor is what all multiply-adds of the network take at the speed of a large matrix product, measured in the same run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .output import cell, check_writable, print_table, say, to_json, write_file

if TYPE_CHECKING:
    from ..tools.bench import Bench


def add_arguments(parser: Any) -> None:
    """Options of `van bench`."""
    parser.add_argument("source", help="a model name (random weights), a checkpoint file or folder, or a hub id")
    parser.add_argument(
        "--forms", nargs="+", help="eager optimised compiled bf16 onnx openvino onnx-int8 openvino-int8"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile as well (a minute or more)")
    parser.add_argument("--bf16", action="store_true", help="the optimised network in bfloat16 as well")
    parser.add_argument("--int8", action="store_true", help="int8 of the installed runtimes as well")
    parser.add_argument(
        "--calibration", help="for int8: folder of images, or digits (default: scikit-learn's photographs)"
    )
    parser.add_argument("--batch", type=int, default=1, help="images at a time")
    parser.add_argument("--size", type=int, help="side of the images, pixels (default: the checkpoint's own)")
    parser.add_argument("--threads", type=int, help="of the CPU (default: as many as torch uses)")
    parser.add_argument("--rounds", type=int, default=7, help="at least 7 for a result")
    parser.add_argument("--quick", action="store_true", help="64 pixels, 3 rounds: to see that it works")
    parser.add_argument("--json", help="write everything here")


def run(options: Any) -> None:
    """Measure, write, print."""
    check_writable(options.json, ".json")
    from ..tools.bench import bench, installed

    forms = list(options.forms or installed())
    forms += [
        form for form, asked in (("compiled", options.compile), ("bf16", options.bf16)) if asked and form not in forms
    ]
    if options.int8:
        forms += [f"{form}-int8" for form in ("onnx", "openvino") if form in forms and f"{form}-int8" not in forms]
    if options.calibration is not None and not any(form.endswith("-int8") for form in forms):
        raise ConfigError("--calibration has no effect without int8 forms; give --int8 too, or leave it out")
    done = bench(
        options.source,
        forms=forms,
        batch=options.batch,
        size=options.size or (64 if options.quick else None),
        threads=options.threads,
        rounds=3 if options.quick else options.rounds,
        calibration=options.calibration,
    )
    if options.json:
        write_file(options.json, to_json(done.to_dict()) + "\n")
    _print(done)


def _print(done: Bench) -> None:
    from rich.table import Table

    height, width = done.size
    say(f"{done.name}, batch {done.batch}, {height} x {width}, {done.threads} threads, {done.rounds} rounds")
    print(
        f"floor {done.floor_ms:.2f} ms: {done.macs / 1e6:.0f} million multiply-adds at {done.gemm_gflops:.0f} GFLOP/s"
    )
    if done.bf16_floor_ms is not None:
        print(f"in bfloat16 {done.bf16_floor_ms:.2f} ms: at {done.bf16_gemm_gflops:.0f} GFLOP/s")
    print()
    table = Table(box=None, pad_edge=False)
    table.add_column("form")
    for word in ("ms", "quartiles", f"speed over {done.rows[0].form}", "of the floor", "SQNR dB"):
        table.add_column(word, justify="right")
    for row in done.rows:
        noise = "" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        times = (f"{row.ms:.2f}", f"{row.low:.2f} … {row.high:.2f}", f"{row.speedup:.2f}x", f"{row.of_floor:.2f}x")
        table.add_row(cell(row.form), *times, noise)
    print_table(table)
