"""The optimised network and a training step by family of processors against the plain path: cpu_inference.py's --ops.

A family is the kernel with these instructions at most (`VAN_OPS`); plain is `VAN_OPS=plain`, the same folded network
on PyTorch's own products and convolutions. PyTorch stays what it is, so the kernel with AVX2 stands beside a PyTorch
with AVX-512 where the processor has it; a second time PyTorch is kept to the family's instructions on both sides, as
an older processor has it.

Every side is a process of its own; all measure in turn. A family that takes no path of the kernel for a case is the
plain network, so there is nothing to measure: its ratio is 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from cpu_paths import KEPT_TO
from interleaved import Ask, worker

from van.ops.timing import burst_ms, in_turn, summary

REQUIRED = 1.0  # of the plain path's speed, to two decimals
# model, side of the images, batch, whether it is a training step
CASES = (
    ("van_b0", 224, 1, False),
    ("van_b1", 224, 1, False),
    ("light_ham_van_b0", 512, 1, False),
    ("van_b0", 224, 8, True),
)
QUICK = (("van_b0", 64, 1, False), ("van_b0", 64, 2, True))
# Largest difference of logits, as a part of the largest.
TOLERANCE = 1e-4
AS_IT_IS, KEPT = "PyTorch as it is", "PyTorch kept to it"
Row = dict[str, Any]


def measure(script: str, options: argparse.Namespace, threads: int) -> list[Row]:
    """A row per case, family and PyTorch."""
    rows: list[Row] = []
    with ExitStack() as processes:
        sides: dict[tuple[str, str], Ask] = {}
        for family in ("plain", *options.ops):
            variables = {"VAN_OPS": family}
            sides[family, AS_IT_IS] = processes.enter_context(
                worker(script, options, "family", threads, environment=variables)
            )
            if KEPT_TO.get(family):
                for kept in ("plain", family):
                    variables = {"VAN_OPS": kept, **KEPT_TO[family]}
                    ask = processes.enter_context(worker(script, options, "family", threads, environment=variables))
                    sides[f"{kept} {family}" if kept == "plain" else family, KEPT] = ask
        for family in options.ops:
            if (got := sides[family, AS_IT_IS](do="instructions")) != family:
                raise SystemExit(f"this processor's kernel is {got}; leave {family} out of --ops")
        for case in QUICK if options.quick else [case for case in CASES if case[0] in options.models]:
            rows += _case(sides, case, options, threads)
    return rows


def _case(
    sides: dict[tuple[str, str], Ask], case: tuple[str, int, int, bool], options: argparse.Namespace, threads: int
) -> Iterator[Row]:
    model, size, batch, trained = case
    for ask in sides.values():
        ask(do="load", model=model, size=size, batch=batch, trained=trained)
    _check(sides, model)
    times = in_turn({side: lambda ask=ask: ask(do="time") for side, ask in sides.items()}, options.rounds)
    for family in options.ops:
        for torch in (AS_IT_IS, KEPT):
            if (family, torch) not in sides:
                continue
            plain = times["plain", AS_IT_IS] if torch == AS_IT_IS else times[f"plain {family}", KEPT]
            row = {"family": family, "torch": torch, "model": model, "size": size, "batch": batch, "threads": threads}
            row |= {"trained": trained, "plain_ms": summary(plain, plain)["ms"], **summary(plain, times[family, torch])}
            row["paths"] = sides[family, torch](do="paths")
            if not row["paths"]:
                row |= {"ratio": 1.0, "worst": 1.0, "ms": row["plain_ms"]}
            show(row)
            yield row


def _check(sides: dict[tuple[str, str], Ask], model: str) -> None:
    """All compute the same logits."""
    want, *others = (ask(do="logits") for ask in sides.values())
    scale = max(map(abs, want))
    for side, got in zip(list(sides)[1:], others, strict=True):
        gap = max(abs(a - b) for a, b in zip(want, got, strict=True)) / scale
        if not gap < TOLERANCE:
            raise SystemExit(
                f"{model}, {' '.join(side)}: logits differ from the plain path's by {gap:.2g} of the largest"
            )


def _where(row: Row) -> str:
    step = "training step" if row["trained"] else "optimised"
    return f"{row['model']}, {row['size']}², batch {row['batch']}, {row['threads']} threads, {step}"


def show(row: Row) -> None:
    """Print a row."""
    paths = ", ".join(row["paths"]) or "no path of the kernel"
    print(
        f"{row['family']:<8}  {row['torch']:<18}  {_where(row):<62}  plain {row['plain_ms']:8.2f} ms"
        f"  {row['ms']:8.2f} ms  {row['ratio']:5.2f}x  (worst round {row['worst']:.2f}x)  {paths}",
        flush=True,
    )


def missed(rows: list[Row]) -> Iterator[str]:
    """What is slower than the plain path."""
    for row in rows:
        if round(row["ratio"], 2) < REQUIRED:
            what = f"{row['family']}, {row['torch']}, {_where(row)}"
            yield f"MISSED: {what}: {row['ratio']:.2f} times the plain path's speed; required {REQUIRED}"


def record(rows: list[Row], *, command: str) -> None:
    """Write the ledger: milliseconds and ratios."""
    import ledger

    entries = []
    for row in rows:
        kept, step = row["torch"] == KEPT, "training" if row["trained"] else "optimised"
        where = (
            f"measured/families/{row['family']}/{row['model']}/{step}/{row['threads']}threads{'/kept' if kept else ''}"
        )
        what = f"{_where(row)}, {row['family']} kernel, {row['torch']}"
        column = f"{row['family']}{', ' + KEPT if kept else ''}"
        shown = f"{row['plain_ms']:.1f} → {row['ms']:.1f} ms ({row['ratio']:.2f}×)"
        ratio = {"id": f"{where}/ratio", "value": round(row["ratio"], 3), "unit": "×", "shown": shown}
        place = {"table": "families", "row": _where(row), "column": column}
        entries.append({**ratio, **place, "what": f"{what}: speed over the plain path"})
        entries.append(
            {"id": f"{where}/ms", "value": round(row["ms"], 2), "unit": "ms", "what": f"{what}: time per batch"}
        )
    ledger.record(entries, command=command)


class Network:
    """The process of a side."""

    def instructions(self) -> str:
        from van.ops.c_library import library

        return library().instructions

    def load(self, model: str, size: int, batch: int, trained: bool) -> None:
        """Make ready the folded network, or a step of training."""
        import torch

        import van
        from van.nn import fold

        draw = torch.Generator().manual_seed(batch)
        self.trained = trained
        with torch.inference_mode(False):
            network = van.create_model(model, seed=0)
            self.images = torch.randn((batch, 3, size, size), generator=draw)
            if not trained:
                self.network = fold(network.eval())
                return
            self.network = network.train().to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
            self.labels = torch.randint(0, 1000, (batch,), generator=draw)
            self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def paths(self) -> list[str]:
        """The kernel's paths that the case takes."""
        from van import ops
        from van.ops.measured import REPLACED

        return [path for path in REPLACED if path.endswith("_training") == self.trained and ops.path_taken(path)]

    def logits(self) -> list[float]:
        """Some hundred of them."""
        import torch

        with torch.inference_mode():
            self.network.eval()
            y = self.network(self.images).flatten()
            self.network.train(self.trained)
        return y[:: max(1, len(y) // 500)].tolist()

    def time(self) -> float:
        """Milliseconds of a batch or a step, the best of a burst."""
        return burst_ms(self._step if self.trained else self._infer)

    def _infer(self) -> None:
        import torch

        with torch.inference_mode():
            self.network(self.images)

    def _step(self) -> None:
        import torch
        import torch.nn.functional as F

        with torch.inference_mode(False), torch.enable_grad():
            self.optimizer.zero_grad()
            F.cross_entropy(self.network(self.images), self.labels).backward()
            self.optimizer.step()
