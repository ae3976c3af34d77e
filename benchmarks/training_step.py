"""Milliseconds and memory of a training step on this CPU: ours against the VAN of transformers 4.57, interleaved.

    python benchmarks/training_step.py [--quick] [--peer-python PYTHON]

A step is forward, cross-entropy, backward and AdamW (torch's fused one on both sides), float32, batch 8 at 224². The
two sides are a process each (interleaved.py) and start from the same weights; before anything is timed, the gradients
of their heads must agree. The peer computes drop path 0, as ours: its own is a bug over stages.

Kinds of ours: eager, channels_last (`trainer.channels_last true`), checkpointing (`model.grad_checkpointing true`).
Medians over the rounds with their quartiles; the ratio is the median of the peer's time over ours, round by round.
Memory is the largest resident set of a process that takes three steps, less what it had before the first, as the
system counts it; every figure is of a fresh process. Writes docs/results.json, a table per kind of processor (VAN_OPS
restricts the kernel); exit code 1 when ours is less than twice as fast. --quick: toy sizes, nothing written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cpu_results
from interleaved import Ask, add_options, looks_trained, serve, worker

from van.ops.timing import summary

MODELS = ("van_b0", "van_b1", "van_b2")
KINDS = ("eager", "channels_last", "checkpointing")
REQUIRED = 2.0  # of channels_last, the kind that recipes for a CPU use
TOLERANCE = 1e-3  # of the largest gradient of the head


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            rows += _rows(model, folder, options)
            _print(rows[-len(KINDS) - 1 :])
    if options.quick:
        return 0
    missed = [row for row in rows if row["kind"] == "channels_last" and row["ratio"] < REQUIRED]
    for row in missed:
        print(f"MISSED: {row['model']}: {row['ratio']:.2f} times the peer's speed; required {REQUIRED}")
    if options.record:
        _record(rows, options)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of measurements, at least 7 for a result")
    add_options(parser)
    options = parser.parse_args()
    if options.worker:
        sys.exit(serve(_Peer() if options.worker == "peer" else _Ours(), options.threads))
    if options.quick:
        options.models, options.batch, options.size, options.rounds = ["van_b0"], 2, 64, 3
    return options


def _rows(model: str, folder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    images = {"batch": options.batch, "size": options.size}
    with worker(__file__, options, "peer") as peer, worker(__file__, options, "ours") as ours:
        ours(do="write", model=model, folder=folder)
        peer(do="load", folder=folder, kind="eager")
        _check_gradients(peer, ours, folder, images)
        times: dict[str, list[float]] = {kind: [] for kind in ("peer", *KINDS)}
        for _ in range(options.rounds):
            times["peer"].append(peer(do="time", **images))
            for kind in KINDS:
                ours(do="load", folder=folder, kind=kind)
                times[kind].append(ours(do="time", **images))
    rows = []
    for kind, own in times.items():
        memory = _memory(kind, folder, options, images)
        rows.append({"model": model, "kind": kind, "memory_mib": memory, **summary(times["peer"], own)})
    return rows


def _memory(kind: str, folder: str, options: argparse.Namespace, images: dict[str, int]) -> float:
    side = "peer" if kind == "peer" else "ours"
    with worker(__file__, options, side) as ask:
        ask(do="load", folder=folder, kind="eager" if kind == "peer" else kind)
        return ask(do="memory", **images)


def _check_gradients(peer: Ask, ours: Ask, folder: str, images: dict[str, int]) -> None:
    theirs = peer(do="gradient", **images)
    scale = max(map(abs, theirs))
    for kind in KINDS:
        ours(do="load", folder=folder, kind=kind)
        mine = ours(do="gradient", **images)
        gap = max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) / scale
        if not gap < TOLERANCE:
            raise SystemExit(f"{kind}: the head's gradients differ from the peer's by {gap:.2g} of the largest")


class _Worker:
    """What both sides answer; `network` maps images to logits."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[Any, Any, Any, Any]] = {}

    def load(self, folder: str, kind: str) -> None:
        """Go on with the network of that kind, made at the first time."""
        import torch

        if kind not in self.made:
            network, module, head, layout = self.make(folder, kind)
            optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
            self.made[kind] = network, head, layout, optimizer
        self.network, self.head, self.layout, self.optimizer = self.made[kind]

    def make(self, folder: str, kind: str) -> tuple[Any, Any, Any, Any]:
        """Function from images to logits, module, head, memory layout."""
        raise NotImplementedError

    def step(self, x: Any, labels: Any) -> None:
        import torch.nn.functional as F

        self.optimizer.zero_grad()
        F.cross_entropy(self.network(x), labels).backward()
        self.optimizer.step()

    def images(self, batch: int, size: int) -> tuple[Any, Any]:
        """The same random images and labels in both processes."""
        import torch

        draw = torch.Generator().manual_seed(batch)
        x = torch.randn((batch, 3, size, size), generator=draw).contiguous(memory_format=self.layout)
        return x, torch.randint(0, 1000, (batch,), generator=draw)

    def time(self, batch: int, size: int) -> float:
        """Milliseconds of a step: the better of two, after one to warm up."""
        x, labels = self.images(batch, size)
        self.step(x, labels)
        spent = []
        for _ in range(2):
            start = time.perf_counter()
            self.step(x, labels)
            spent.append(time.perf_counter() - start)
        return 1e3 * min(spent)

    def memory(self, batch: int, size: int) -> float:
        """MiB that three steps need above what the process had before."""
        import resource

        x, labels = self.images(batch, size)
        before = _resident_kib()
        for _ in range(3):
            self.step(x, labels)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    def gradient(self, batch: int, size: int) -> list[float]:
        """The head's weight gradient of the first step, thinned out."""
        import torch.nn.functional as F

        x, labels = self.images(batch, size)
        F.cross_entropy(self.network(x), labels).backward()
        found = self.head.weight.grad.flatten()[::97].tolist()
        self.optimizer.zero_grad()
        return found


class _Peer(_Worker):
    """transformers' network."""

    def make(self, folder: str, kind: str) -> tuple[Any, Any, Any, Any]:
        import torch
        from transformers import VanForImageClassification

        model = VanForImageClassification.from_pretrained(folder, local_files_only=True, drop_path_rate=0.0).train()
        return lambda x: model(x).logits, model, model.classifier, torch.contiguous_format


class _Ours(_Worker):
    """This package's network."""

    def write(self, model: str, folder: str) -> None:
        looks_trained(model, folder)

    def make(self, folder: str, kind: str) -> tuple[Any, Any, Any, Any]:
        import warnings

        import torch

        import van

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = van.load(folder, drop_path_rate=0.0).train()
        model.set_grad_checkpointing(kind == "checkpointing")
        layout = torch.contiguous_format if kind == "eager" else torch.channels_last
        return model, model.to(memory_format=layout), model.head, layout


def _resident_kib() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['model']}  {row['kind']:<13}  {row['ms']:8.1f} ms  ({row['low']:.1f} to {row['high']:.1f})"
            f"  {row['ratio']:5.2f}x  (worst round {row['worst']:.2f}x)  {row['memory_mib']:6.0f} MiB",
            flush=True,
        )


def _record(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    import ledger

    entries = []
    table = cpu_results.name_on("training_step", cpu_results.processor()["processor"])
    for row in rows:
        name = "transformers 4.57" if row["kind"] == "peer" else f"ours, {row['kind']}"
        label = row["model"].upper().replace("_", "-")
        where = f"measured/{table}/{row['model']}/{row['kind']}"
        what = f"{label}, batch {options.batch}, {options.size}², float32, {options.threads} threads: {name}"
        common = {"table": table, "row": label}
        spread = {"quartiles": [round(row["low"], 1), round(row["high"], 1)]}
        shown = f"{row['ms']:.0f}" + ("" if row["kind"] == "peer" else f" ({row['ratio']:.2f}×)")
        time_ms = {"id": f"{where}/ms", "value": round(row["ms"], 1), "unit": "ms", "column": f"{name} (ms)"}
        entries.append(common | time_ms | spread | {"shown": shown, "what": f"{what}, time per step"})
        memory = {"id": f"{where}/memory", "value": round(row["memory_mib"]), "unit": "MiB"}
        entries.append(memory | {"table": None, "what": f"{what}, memory of a step"})
    models = f"--models {' '.join(options.models)} --rounds {options.rounds}"
    ledger.record(entries, command=f"python benchmarks/training_step.py {models}")


if __name__ == "__main__":
    sys.exit(main())
