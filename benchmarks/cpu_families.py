"""The optimised network and a training step by family of processors against the plain path: cpu_inference.py's --ops.

A family is the kernel with these instructions at most (`VAN_OPS`); plain is `VAN_OPS=plain`, the same folded network
on PyTorch's own products and convolutions. PyTorch stays what it is, so the kernel with AVX2 stands beside a PyTorch
with AVX-512 where the processor has it; a second time PyTorch is kept to the family's instructions on both sides, as
an older processor has it.

Every side is a process of its own; all measure in turn. A family that takes no path of the kernel for a case is the
plain network, so there is nothing to measure: its ratio is 1.

The kernel kept to AVX2 also stands beside the official graph in the runtimes. OpenVINO obeys ONEDNN_MAX_CPU_ISA=AVX2:
its convolutions are then those for AVX2 (docs/performance-notes.md); it does not start with SSE41. ONNX Runtime has no
setting that withholds instructions, so it is measured as it is and no aim refers to it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
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
# What is meant on one image, of the kernel with these instructions: its speed over the plain path, …
MEANT = {"AVX2": {"van_b0": 1.3, "van_b1": 1.3}}
# … and over a runtime on the official graph that is kept to them too. Family -> runtime -> (whether it is kept, aim).
OPENVINO, ONNX_RUNTIME = "OpenVINO kept to AVX2", "ONNX Runtime as it is"
RUNTIMES: dict[str, dict[str, float | None]] = {"AVX2": {OPENVINO: 1.0, ONNX_RUNTIME: None}}
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
            for runtime in RUNTIMES.get(family, ()):
                ask = processes.enter_context(worker(script, options, "family", threads, environment=KEPT_TO[family]))
                sides[family, runtime] = ask
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
    if trained or not model.startswith("van_"):  # as in cpu_inference.py's _Plain, and runtimes infer
        sides = {side: ask for side, ask in sides.items() if side[1] in (AS_IT_IS, KEPT)}
    for (_, torch), ask in sides.items():
        ask(do="load", model=model, size=size, batch=batch, trained=trained, runtime=torch)
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
            row["runtimes"] = _over_runtimes(times, family) if torch == KEPT and row["paths"] else {}
            if not row["paths"]:
                row |= {"ratio": 1.0, "worst": 1.0, "ms": row["plain_ms"]}
            show(row)
            yield row


def _over_runtimes(times: dict[tuple[str, str], list[float]], family: str) -> dict[str, tuple[float, float]]:
    """Runtime -> its milliseconds, and the speed over it of the family with PyTorch kept to it."""
    measured = [runtime for runtime in RUNTIMES.get(family, ()) if (family, runtime) in times]
    found = {runtime: summary(times[family, runtime], times[family, KEPT])["ratio"] for runtime in measured}
    return {runtime: (median(times[family, runtime]), ratio) for runtime, ratio in found.items()}


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
    for runtime, (ms, ratio) in row["runtimes"].items():
        print(f"{'':<8}  {runtime:<18}  {_where(row):<62}        {ms:8.2f} ms  {'':11}  {ratio:5.2f}x")


def below_the_aim(rows: list[Row]) -> Iterator[str]:
    """What is not yet as fast as it is meant to be, on one image."""
    for row in rows:
        if row["trained"] or row["batch"] != 1:
            continue
        what, meant = f"below the aim: {row['family']}, {row['torch']}, {_where(row)}", MEANT.get(row["family"], {})
        if row["ratio"] < meant.get(row["model"], row["ratio"]):
            yield f"{what}: over the plain path: {row['ratio']:.2f}; meant: {meant[row['model']]:.2f}"
        for runtime, (_, ratio) in row["runtimes"].items():
            aim = RUNTIMES[row["family"]][runtime]
            if aim is not None and ratio < aim:
                yield f"{what}: over {runtime}: {ratio:.2f}; meant: {aim:.2f}"


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
        entries += [
            {
                "id": f"{where}/{runtime}/ratio",
                "value": round(ratio, 3),
                "unit": "×",
                "shown": f"{ms:.1f} → {row['ms']:.1f} ms ({ratio:.2f}×)",
                "table": "families",
                "row": _where(row),
                "column": runtime,
                "what": f"{what}: speed over the official graph in {runtime}, which takes {ms:.2f} ms",
            }
            for runtime, (ms, ratio) in row["runtimes"].items()
        ]
    ledger.record(entries, command=command)


class Network:
    """The process of a side."""

    def instructions(self) -> str:
        from van.ops.c_library import library

        return library().instructions

    def load(self, model: str, size: int, batch: int, trained: bool, runtime: str) -> None:
        """Make ready the folded network, a step of training, or the official graph in one of RUNTIMES."""
        import torch

        import van
        from van.nn import fold

        draw = torch.Generator().manual_seed(batch)
        self.trained = trained
        with torch.inference_mode(False):
            network = van.create_model(model, seed=0)
            self.images = torch.randn((batch, 3, size, size), generator=draw)
            if runtime in (OPENVINO, ONNX_RUNTIME):
                self.network = _in_runtime(network.eval(), self.images, runtime)
                return
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
            if self.trained:
                self.network.eval()
            y = self.network(self.images).flatten()
            if self.trained:
                self.network.train()
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


def _in_runtime(network: Any, images: Any, runtime: str) -> Any:
    """The official graph of the network in a runtime, for the shape of these images."""
    import runtimes
    import torch
    from official_graph import official

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "official.pt2"
        runtimes.trace(official(network), images, program)
        opened = {OPENVINO: runtimes.openvino, ONNX_RUNTIME: runtimes.onnx_runtime}[runtime]
        run = opened(program, torch.get_num_threads())
    return lambda images: torch.from_numpy(run(images.numpy()))
