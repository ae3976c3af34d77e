"""Instructions that the kernel executes on ARM, counted in an emulator: not a speed, but what a speed follows from.

    python benchmarks/neon_instructions.py [--models MODEL …] [--sources FOLDER]

Every part of a folded network that the kernel computes (its blocks, the patch embeddings of stages 2 to 4), one image,
one thread, in QEMU with a plugin of ours (neon/count.c). Shown per vector multiply-add, that is per four multiply-adds
of the tables' count: all instructions, loads, stores, and the share that are multiply-adds. A processor with two
128-bit units and four instructions per cycle is limited by its units where there are at most two instructions to each.

Needs aarch64-linux-gnu-gcc and qemu-aarch64 before 9.1 (the interface's version); nothing is recorded.
--sources: the kernel's, default: this checkout's.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from van.configs.backbone import VARIANTS
from van.ops.c_library import COMMON_FLAGS, SOURCES

HERE = Path(__file__).parent / "neon"
LANES = 4
SIZE = 224
Part = tuple[
    str, int, int, int, int, int
]  # block or patch, side of its map, channels, hidden or outputs, how many, MACs


def parts(model: str) -> Iterator[Part]:
    """What the kernel computes of a network, with the multiply-adds of one of each, taps outside the map included."""
    config, before = VARIANTS[model], 3
    for stage, (width, ratio, depth) in enumerate(
        zip(config.embed_dims, config.mlp_ratios, config.depths, strict=True)
    ):
        side, hidden = SIZE >> (2 + stage), width * ratio
        if stage:
            yield "patch", 2 * side, before, width, 1, side * side * 9 * before * width
        products = 3 * width * width + 2 * width * hidden
        yield "block", side, width, hidden, depth, side * side * (products + (25 + 49) * width + 9 * hidden)
        before = width


def counted(emulator: list[str], program: Path, part: Part) -> list[int]:
    """Instructions, multiply-adds, loads and stores of one run: the second's, so that making ready is left out."""
    found = []
    for times in ("1", "2"):
        command = [*emulator, str(program), times, *map(str, part[:4])]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append([int(word) for word in ran.stderr.split()])
    return [two - one for one, two in zip(*found, strict=True)]


def show(what: str, counts: list[int], macs: int) -> None:
    """A line of the table."""
    instructions, fused, loads, stores = counts
    vectors = macs / LANES
    print(
        f"{what:<28} {instructions / 1e6:8.1f} million, {instructions / vectors:5.2f} per multiply-add,"
        f" {loads / vectors:.2f} loads, {stores / vectors:.2f} stores; {fused / instructions:.0%} multiply-adds",
        flush=True,
    )


def main() -> int:
    """Compile, run, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["van_b0", "van_b1"])
    parser.add_argument("--sources", type=Path, default=SOURCES)
    options = parser.parse_args()
    if missing := [name for name in ("cc", "aarch64-linux-gnu-gcc", "qemu-aarch64") if shutil.which(name) is None]:
        parser.error(f"not on this machine: {', '.join(missing)}; install gcc, gcc-aarch64-linux-gnu, qemu-user")
    with tempfile.TemporaryDirectory() as folder:
        plugin, program = Path(folder) / "count.so", Path(folder) / "run"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(HERE / "count.c"), "-o", str(plugin)], check=True)
        flags = [flag for flag in COMMON_FLAGS if flag not in ("-shared", "-fPIC")]
        source = [f"-I{options.sources}", str(HERE / "run.c"), "-o", str(program), "-lm", "-lpthread"]
        subprocess.run(["aarch64-linux-gnu-gcc", "-static", *flags, *source], check=True)
        for model in options.models:
            total, all_macs = [0, 0, 0, 0], 0
            for part in parts(model):
                kind, side, width, outputs, number, macs = part
                counts = counted(["qemu-aarch64", "-plugin", str(plugin)], program, part)
                show(f"{model} {kind} {side}²×{width}, {outputs}", counts, macs)
                total = [sum_ + number * one for sum_, one in zip(total, counts, strict=True)]
                all_macs += number * macs
            show(f"{model} together", total, all_macs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
