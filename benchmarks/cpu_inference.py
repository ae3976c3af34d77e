"""Milliseconds per batch on this CPU: ours against the VAN of transformers 4.57, on the same weights, interleaved.

    python benchmarks/cpu_inference.py [--compile] [--quick] [--peer-python PYTHON]

The two sides measure in turn, each in a process of its own (interleaved.py). Before anything is timed, all must give
the same logits.

Kinds of ours: eager (`van.load`), optimised (`van.optimize`, with the C kernel where there is a compiler), compiled
(`van.optimize(compile=True)`, with --compile).
Medians over the rounds with their quartiles; the ratio is the median of the peer's time over ours, round by round.
Writes docs/results.json; exit code 1 when a requirement is missed. --quick: toy sizes, nothing written or required.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from interleaved import Ask, add_options, looks_trained, serve, summary, worker

MODELS = ("van_b0", "van_b1", "van_b2", "van_b3")
# Largest difference of logits, as a part of the largest: float32 rounding through up to 38 blocks.
TOLERANCE = 1e-4
# What the optimised network must reach at batch 1 on two threads, what it is meant to reach, and what every kind must.
REQUIRED_AT_BATCH_1 = {"van_b0": 1.6, "van_b1": 1.6}
MEANT_AT_BATCH_1 = {"van_b0": 4.0, "van_b1": 3.0}
REQUIRED_EVERYWHERE = 0.97
# A timing is the best of a burst of this length, after one run to wake the threads.
BURST_S = 0.25


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    kinds = ["eager", "optimised", *(["compiled"] if options.compile else [])]
    rows: list[dict[str, Any]] = []
    for threads in options.threads:
        versions = _measure_all(options, kinds, threads, rows)
    if options.quick:
        return 0
    missed = list(_missed(rows))
    print(*(missed or ["every requirement is met"]), *_below_the_aim(rows), sep="\n")
    if options.record:
        _record(rows, versions, options)
    return 1 if missed else 0


def _measure_all(
    options: argparse.Namespace, kinds: list[str], threads: int, rows: list[dict[str, Any]]
) -> dict[str, str]:
    """Every model and batch at a number of threads, added to `rows`; returns the versions."""
    with (
        tempfile.TemporaryDirectory() as folder,
        worker(__file__, options, "peer", threads) as peer,
        worker(__file__, options, "ours", threads) as ours,
    ):
        versions = peer(do="versions") | ours(do="versions")
        print(", ".join(f"{name} {version}" for name, version in versions.items()), f"{threads} threads", sep=", ")
        for model in options.models:
            weights = str(Path(folder) / model)
            ours(do="write", model=model, folder=weights)
            peer(do="load", folder=weights)
            ours(do="load", folder=weights)
            for batch in options.batches:
                images = {"batch": batch, "size": options.size}
                _check_logits(peer, ours, kinds, model, images)
                times = _measure(peer, ours, kinds, images, options.rounds)
                rows += _rows(model, batch, threads, times)
                _print(rows[-len(kinds) - 1 :])
    return versions


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--rounds", type=int, default=11, help="pairs of measurements, at least 7 for a result")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes)")
    add_options(parser, threads=[2, 1])
    options = parser.parse_args()
    if options.worker:
        sys.exit(_serve(options))
    if options.quick:
        options.models, options.batches, options.size, options.rounds = ["van_b0"], [1, 2], 64, 3
    return options


# --- the two processes


def _serve(options: argparse.Namespace) -> int:
    import torch

    with torch.inference_mode():
        return serve(_Peer() if options.worker == "peer" else _Ours(), *options.threads)


class _Worker:
    """What both sides answer; `networks` maps a kind to a function from images to logits."""

    networks: dict[str, Callable[[Any], Any]]

    def logits(self, kind: str, batch: int, size: int) -> list[float]:
        """All logits of the images that the batch and size stand for."""
        return self.networks[kind](self.images(batch, size)).flatten().tolist()

    def time(self, kind: str, batch: int, size: int) -> float:
        """Milliseconds per batch, the best of a burst."""
        network, x = self.networks[kind], self.images(batch, size)
        network(x)
        spent: list[float] = []
        while sum(spent) < BURST_S:
            start = time.perf_counter()
            network(x)
            spent.append(time.perf_counter() - start)
        return 1e3 * min(spent)

    def images(self, batch: int, size: int) -> Any:
        """The same random images in both processes."""
        import torch

        return torch.randn((batch, 3, size, size), generator=torch.Generator().manual_seed(batch))


class _Peer(_Worker):
    """transformers' network."""

    def versions(self) -> dict[str, str]:
        import transformers

        return {"transformers": transformers.__version__}

    def load(self, folder: str) -> None:
        from transformers import VanForImageClassification

        model = VanForImageClassification.from_pretrained(folder, local_files_only=True).eval()
        self.networks = {"eager": lambda x: model(x).logits}


class _Ours(_Worker):
    """This package's network."""

    def versions(self) -> dict[str, str]:
        import torch

        import van

        return {"van": van.__version__, "torch": torch.__version__}

    def write(self, model: str, folder: str) -> None:
        looks_trained(model, folder)

    def load(self, folder: str) -> None:
        import warnings

        import van

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = van.load(folder)
        self.networks = {"eager": self.model, "optimised": van.optimize(self.model)}

    def compiled(self, batch: int, size: int) -> None:
        """Compile for this batch and size."""
        import torch

        import van

        torch._dynamo.reset()
        self.networks["compiled"] = van.optimize(self.model, example=self.images(batch, size), compile=True)


# --- measuring


def _check_logits(peer: Ask, ours: Ask, kinds: list[str], model: str, images: dict[str, int]) -> None:
    if "compiled" in kinds:
        ours(do="compiled", **images)
    theirs = peer(do="logits", kind="eager", **images)
    scale = max(map(abs, theirs))
    for kind in kinds:
        mine = ours(do="logits", kind=kind, **images)
        gap = max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) / scale
        if not gap < TOLERANCE:
            raise SystemExit(f"{model} {kind}: logits differ from the peer's by {gap:.2g} of the largest")


def _measure(peer: Ask, ours: Ask, kinds: list[str], images: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """kind -> a time per round; the peer's is "peer"."""
    times: dict[str, list[float]] = {"peer": [], **{kind: [] for kind in kinds}}
    for _ in range(rounds):
        times["peer"].append(peer(do="time", kind="eager", **images))
        for kind in kinds:
            times[kind].append(ours(do="time", kind=kind, **images))
    return times


def _rows(model: str, batch: int, threads: int, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    peer = times["peer"]
    common = {"model": model, "batch": batch, "threads": threads}
    return [{**common, "kind": kind, **summary(peer, own)} for kind, own in times.items()]


def _missed(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is slower than it has to be."""
    for row in rows:
        required = REQUIRED_AT_BATCH_1.get(row["model"]) if _is_first_case(row) else None
        required = required or REQUIRED_EVERYWHERE
        if row["kind"] != "peer" and row["ratio"] < required:
            yield f"MISSED: {_where(row)}: {row['ratio']:.2f} times the peer's speed; required {required}"


def _below_the_aim(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is fast enough, and not yet as fast as it is meant to be."""
    for row in rows:
        aim = MEANT_AT_BATCH_1.get(row["model"], 0)
        if _is_first_case(row) and row["ratio"] < aim:
            yield f"below the aim: {_where(row)}: {row['ratio']:.2f} times the peer's speed; meant: {aim}"


def _is_first_case(row: dict[str, Any]) -> bool:
    return (row["batch"], row["threads"], row["kind"]) == (1, 2, "optimised")


def _where(row: dict[str, Any]) -> str:
    return f"{row['model']}, batch {row['batch']}, {row['threads']} threads, {row['kind']}"


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['model']}  batch {row['batch']}  threads {row['threads']}  {row['kind']:<9}  {row['ms']:8.1f} ms"
            f"  ({row['low']:.1f} to {row['high']:.1f})  {row['ratio']:5.2f}x  (worst round {row['worst']:.2f}x)",
            flush=True,
        )


def _record(rows: list[dict[str, Any]], versions: dict[str, str], options: argparse.Namespace) -> None:
    """Write the ledger: milliseconds of everything, and the ratios."""
    import ledger

    entries = []
    names = {"peer": "transformers 4.57"}
    for row in rows:
        name, label = names.get(row["kind"], f"ours, {row['kind']}"), row["model"].upper().replace("_", "-")
        alone = row["threads"] == 1
        table_row = f"{label}, batch {row['batch']}{', 1 thread' if alone else ''}"
        common = {"table": "cpu", "row": table_row, "versions": versions}
        where = f"measured/cpu/{row['model']}/batch{row['batch']}/{row['kind']}{'/1thread' if alone else ''}"
        what = f"{label}, batch {row['batch']}, {options.size}², float32, {row['threads']} threads"
        shown = f"{row['ms']:.1f}"
        if row["kind"] != "peer":
            shown += f" ({row['ratio']:.2f}×)"
            ratio = {"id": f"{where}/ratio", "value": round(row["ratio"], 3), "unit": "×", "versions": versions}
            entries.append(ratio | {"what": f"{what}: speed of {name} over transformers 4.57"})
        time_ms = {"id": f"{where}/ms", "value": round(row["ms"], 2), "unit": "ms", "column": f"{name} (ms)"}
        spread = {"quartiles": [round(row["low"], 2), round(row["high"], 2)], "shown": shown}
        entries.append(common | time_ms | spread | {"what": f"{what}: {name}, time per batch"})
    counts = " ".join(map(str, options.threads))
    flags = f"--rounds {options.rounds} --threads {counts}{' --compile' if options.compile else ''}"
    ledger.record(entries, command=f"python benchmarks/cpu_inference.py {flags}")


if __name__ == "__main__":
    sys.exit(main())
