"""Time and memory of segmenting a 512 x 512 picture on this CPU: ours optimised against the plain graph.

    python benchmarks/segmentation_inference.py [--networks NAME …] [--threads 2] [--rounds 9] [--quick] [--record]

plain: the same network, unfolded, contiguous, every depthwise convolution one F.conv2d with its padding inside and
every LayerNorm on transposed copies, as in the published code; its label map is the argmax of logits enlarged to the
picture's size. ours: `van.optimize` (folded, channels_last) and `predict_mask`, which enlarges in bands. The first
task, decode, is the head's logits at its own size, as exported files give them: there the plain graph also runs in
ONNX Runtime and in OpenVINO. REQUIRED is asked of decode; the exit code is 1 where it is missed at the usual size.

All run in turn in one process, so that a busy moment of the machine hits all; before anything is timed they must
agree. Medians over the rounds with quartiles; the ratio is the median of the other's time over ours, round by round.
Memory is the highest resident size above that of the loaded network, each in a process of its own. Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from cpu_inference import _onnx_runtime, _openvino
from official_graph import official
from PIL import Image
from torch import Tensor

from van.configs.segmenter import SEGMENTERS
from van.images.preprocess import IMAGENET
from van.nn.optimize import optimize
from van.nn.segmenter import Segmenter
from van.tasks.segmentation.views import Inference, predict_mask

NETWORKS = ("light_ham_van_b0", "light_ham_van_b2", "upernet_van_b0")
RUNTIMES = {"onnx": _onnx_runtime, "openvino": _openvino}
KINDS = ("plain", *RUNTIMES, "ours")
# Network -> how many times as fast as these ours has to be; of the two runtimes the faster counts.
REQUIRED = {"light_ham_van_b0": (1.3, tuple(RUNTIMES)), "upernet_van_b0": (1.5, ("plain",))}
TOLERANCE = 1e-3  # of logits of order 1 to 10, between float32 graphs that round differently


def network(name: str) -> Segmenter:
    """The network with weights that keep its activations near 1, so that agreement means something."""
    torch.manual_seed(0)
    model = Segmenter(SEGMENTERS[name]).eval().requires_grad_(False)
    for key, value in model.named_parameters():
        if key.endswith(("scale1", "scale2")):
            value.fill_(0.05)
        if "classify.conv.weight" in key:
            value.normal_(std=0.1)
    return model


def tasks(name: str, kind: str, size: int, folder: Path | None = None) -> dict[str, Callable[[], Any]]:
    """What is timed for one network: {"decode": …}, and but for the runtimes {"logits": …, "label map": …}.

    folder: where the program for the runtimes lies, or is put.
    """
    model = network(name)
    pixels = np.random.default_rng(0).integers(0, 256, (size // 16, size // 16, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    if kind == "ours":
        ours = optimize(model)
        inference = Inference(resize=None)
        return {
            "decode": lambda: ours.decode(normalised(picture)),
            "logits": lambda: ours(normalised(picture)),
            "label map": lambda: predict_mask(ours, picture, inference),
        }
    plain = official(model)
    if folder is not None and kind in RUNTIMES:
        run = exported(plain, kind, size, folder)
        return {"decode": lambda: torch.from_numpy(run(normalised(picture).contiguous().numpy()))}
    return {
        "decode": lambda: plain.decode(normalised(picture).contiguous()),
        "logits": lambda: plain(normalised(picture).contiguous()),
        "label map": lambda: plain(normalised(picture).contiguous()).argmax(1)[0].numpy(),
    }


def exported(plain: Segmenter, runtime: str, size: int, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The plain graph, without enlarging its logits, in a runtime; for any size, as OpenVINO needs a Hamburger."""
    plain.forward = plain.decode  # type: ignore[method-assign]
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    images = torch.zeros(1, 3, size, size)
    with torch.no_grad():
        if not (folder / "peer.pt2").exists():
            program = torch.export.export(plain, (images,), dynamic_shapes={"images": sides}, strict=False)
            torch.export.save(program, str(folder / "peer.pt2"))
        return RUNTIMES[runtime](folder, torch.get_num_threads())


def normalised(picture: Image.Image) -> Tensor:
    images = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    return (images - mean) / std


def check(sides: dict[str, dict[str, Callable[[], Any]]]) -> None:
    expected = {task: run() for task, run in sides["plain"].items()}
    for kind, own in sides.items():
        gap = max((run() - expected[task]).abs().max().item() for task, run in own.items() if task != "label map")
        alike = float((own["label map"]() == expected["label map"]).mean()) if "label map" in own else 1.0
        if gap > TOLERANCE or alike < 0.999:
            raise SystemExit(f"plain and {kind} differ: logits by {gap:.1e}, {1 - alike:.2%} of the labels")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, size: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of one network, all kinds timed in turn."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {kind: tasks(name, kind, size, Path(folder)) for kind in KINDS}
    rows = []
    with torch.inference_mode():
        check(sides)  # also the warm-up
        for task in sides["ours"]:
            times: dict[str, list[float]] = {kind: [] for kind in KINDS if task in sides[kind]}
            for i in range(rounds):
                for kind in list(times)[:: 1 if i % 2 else -1]:
                    times[kind].append(1e3 * seconds(sides[kind][task]))
            row: dict[str, Any] = {"network": name, "task": task, "ratios": {}}
            for kind, values in times.items():
                low, _, high = quantiles(values, n=4)
                row[kind] = {"ms": median(values), "quartiles": [low, high]}
                if kind != "ours":
                    row["ratios"][kind] = median(p / o for p, o in zip(values, times["ours"], strict=True))
                if task != "decode":
                    row[kind]["mb"] = memory_mb(name, kind, task, size)
            rows.append(row)
    return rows


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """What is slower than it has to be."""
    found = []
    for row in rows:
        if row["task"] == "decode" and row["network"] in REQUIRED:
            factor, others = REQUIRED[row["network"]]
            other = min(others, key=row["ratios"].__getitem__)
            if row["ratios"][other] < factor:
                what = f"{row['network']}: {row['ratios'][other]:.2f} times as fast as {other}"
                found.append(f"{what}, required: {factor}")
    return found


def memory_mb(name: str, kind: str, task: str, size: int) -> float:
    command = [sys.executable, __file__, "--memory", name, kind, task, "--size", str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def own_memory_mb(name: str, kind: str, task: str, size: int) -> float:
    """Highest resident size of this process while the task runs once, above what it holds before."""
    run = tasks(name, kind, size)[task]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what building the network left behind would hide what running it takes
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the network
    before = status_mb("VmRSS")
    with torch.inference_mode():
        run()
    return status_mb("VmHWM") - before


def status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def print_row(row: dict[str, Any]) -> None:
    print(f"{row['network']}, {row['task']}")
    for kind in (kind for kind in KINDS if kind in row):
        memory = f"{row[kind]['mb']:6.0f} MB" if "mb" in row[kind] else " " * 9
        low, high = row[kind]["quartiles"]
        speed = f"{row['ratios'][kind]:5.2f}x" if kind in row["ratios"] else ""
        print(f"  {kind:10} {row[kind]['ms']:8.1f} ms ({low:.1f} to {high:.1f}) {memory}  {speed}", flush=True)


def record(rows: list[dict[str, Any]], size: int, rounds: int) -> None:
    import ledger

    entries = []
    for row in rows:
        where = f"measured/segmentation/{row['network']}/{row['task'].replace(' ', '_')}"
        what = f"{row['network']}, {size}², float32, {torch.get_num_threads()} threads, {row['task']}"
        for kind in (kind for kind in KINDS if kind in row):
            figures = row[kind]
            time_ms = {"id": f"{where}/{kind}/ms", "value": round(figures["ms"], 1), "unit": "ms"}
            spread = {"quartiles": [round(value, 1) for value in figures["quartiles"]]}
            entry = time_ms | spread | {"what": f"{what}: {kind}, time per picture"}
            if row["task"] != "decode":  # docs/performance.md has no columns for runtimes
                shown = f"{figures['ms']:.0f} ms, {figures['mb']:.0f} MB"
                shown += f" ({row['ratios']['plain']:.2f}×)" if kind == "ours" else ""
                entry |= {"table": "segmentation-cpu", "row": f"{row['network']}, {row['task']}"}
                entry |= {"column": kind, "shown": shown}
            entries.append(entry)
            if "mb" in figures:
                memory = {"id": f"{where}/{kind}/mb", "value": round(figures["mb"]), "unit": "MB"}
                entries.append(memory | {"what": f"{what}: {kind}, memory above the loaded network"})
        for other, value in row["ratios"].items():
            name = "ratio" if other == "plain" else f"ratio_{other}"
            graph = "the plain eager graph" if other == "plain" else f"the plain graph in {other}"
            ratio = {"id": f"{where}/{name}", "value": round(value, 3), "unit": "×"}
            entries.append(ratio | {"what": f"{what}: speed over {graph}"})
    ledger.record(entries, command=f"python benchmarks/segmentation_inference.py --rounds {rounds} --record")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=sorted(SEGMENTERS))
    parser.add_argument("--size", type=int, default=512, help="side of the picture, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="toy size, to see that it works")
    parser.add_argument("--record", action="store_true", help="write docs/results.json")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(json.dumps(own_memory_mb(*options.memory, options.size)))
        return 0
    if options.quick:
        options.networks, options.size, options.rounds = ["light_ham_van_b0"], 128, 3
    rows = []
    for name in options.networks:
        found = measure(name, options.size, options.rounds)
        rows += found
        for row in found:
            print_row(row)
    if options.record and not options.quick:
        record(rows, options.size, options.rounds)
    short = missed(rows) if options.size == 512 else []
    print(*short, sep="\n", end="\n" if short else "")
    return int(bool(short))


if __name__ == "__main__":
    sys.exit(main())
