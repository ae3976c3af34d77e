"""What gpu_all.sh found, and what to read first.

python benchmarks/gpu_summary.py FOLDER
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_model
from gpu_ops import Case
from gpu_rows import Rows

MODEL_KEYS = ("model", "mode", "batch", "size", "kind")


def main() -> int:
    """Print the summary."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: gpu_summary.py FOLDER, which gpu_all.sh wrote", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    print("\n".join(["", "What to read first", "", *summary(folder)]))
    return 0


def summary(folder: Path) -> Iterator[str]:
    """Lines: the state of the pieces, what failed, requirements, the slowest operators, the profile's heads."""
    yield from _pieces(folder)
    models = Rows(folder / "models.jsonl", MODEL_KEYS)
    if any(row["size"] == gpu_model.TOY_SIZE for row in models):
        yield from ("", "A rehearsal at toy size: the figures below mean nothing.")
    yield from ("", "Networks, required: " + _required())
    yield from (_network(models, row) for row in models if row["kind"] in gpu_model.OURS + gpu_model.GRAPHS)
    yield from gpu_model._missed(models) if models else ["nothing measured"]
    yield from ("", "Depthwise convolutions, ours over the library's fastest, worst first")
    ops = Rows(folder / "ops.jsonl", [*Case.__dataclass_fields__, "way"])
    ours = sorted((row for row in ops if row["way"] == "ours"), key=lambda row: row["over_library"])
    yield from (_operator(row) for row in ours[:12]) if ours else ["nothing measured"]
    if (profile := folder / "profile.txt").exists():
        yield from ("", "Profile: the longest kernels (all in profile.txt)")
        yield from (line for block in profile.read_text().split("\n\n") for line in block.strip().splitlines()[:6])


def _pieces(folder: Path) -> Iterator[str]:
    for log in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime):
        done = log.with_suffix(".done")
        state = done.read_text().strip() if done.exists() else "CUT OFF: call gpu_all.sh again"
        yield f"{log.stem:<12} {state}"
        text = log.read_text(errors="replace")
        yield from (
            f"    {line[:150]}" for line in re.findall(r"^(?:FAILED |ERROR |MISSED|van: error).*$", text, re.M)[:8]
        )
        if state not in ("exit code 0", "exit code 1"):
            yield from (f"    {line[:150]}" for line in text.splitlines()[-3:])


def _required() -> str:
    words = [f"{mode} {eager}x eager, {compiled}x compiled" for mode, (eager, compiled) in gpu_model.REQUIRED.items()]
    return "; ".join([*words, f"training memory {gpu_model.REQUIRED_MEMORY:.0%}"])


def _network(rows: Rows, row: dict[str, Any]) -> str:
    ratios = ", ".join(f"{name} {value:.2f}" for name, value in gpu_model._ratios(rows, row).items())
    case = f"{row['model']:<18} {row['mode']:<9} batch {row['batch']:<4} {row['kind']:<20}"
    return f"  {case} {row['images_per_s']:9.1f}/s  {ratios}"


def _operator(row: dict[str, Any]) -> str:
    case = f"{row['dtype']} {row['name']:<5} {row['direction']:<15} {row['side']:>2}² x {row['channels']:<4}"
    return f"  {case} {row['ms']:8.4f} ms, {row['floor_ms'] / row['ms']:6.1%} of the floor, {row['over_library']:.2f}x"


if __name__ == "__main__":
    sys.exit(main())
