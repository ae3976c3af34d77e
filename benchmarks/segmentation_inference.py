"""Time and memory of segmenting a 512 x 512 picture on this CPU: ours optimised against the plain eager graph.

    python benchmarks/segmentation_inference.py [--quick] [--record]

plain: the same network, unfolded, contiguous, every depthwise convolution one F.conv2d with its padding inside and
every LayerNorm on transposed copies, as in the published code; its label map is the argmax of logits enlarged to the
picture's size. ours: `van.optimize` (folded, channels_last) and `predict_mask`, which enlarges in bands.

Both run in turn in one process, so that a busy moment of the machine hits both; before anything is timed they must
agree. Medians over the rounds with quartiles; the ratio is the median of plain over ours, round by round. Memory is
the highest resident size above that of the loaded network, each in a process of its own. Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from official_graph import official
from PIL import Image
from torch import Tensor

from van.configs.segmenter import SEGMENTERS
from van.images.preprocess import IMAGENET
from van.nn.optimize import optimize
from van.nn.segmenter import Segmenter
from van.tasks.segmentation.views import Inference, predict_mask

NETWORKS = ("light_ham_van_b0", "light_ham_van_b2", "upernet_van_b0")
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


def tasks(name: str, kind: str, size: int) -> dict[str, Callable[[], Any]]:
    """What is timed for one network: {"logits": …, "label map": …}."""
    model = network(name)
    pixels = np.random.default_rng(0).integers(0, 256, (size // 16, size // 16, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    if kind == "ours":
        ours = optimize(model)
        inference = Inference(resize=None)
        return {
            "logits": lambda: ours(normalised(picture)),
            "label map": lambda: predict_mask(ours, picture, inference),
        }
    plain = official(model)
    return {
        "logits": lambda: plain(normalised(picture).contiguous()),
        "label map": lambda: plain(normalised(picture).contiguous()).argmax(1)[0].numpy(),
    }


def normalised(picture: Image.Image) -> Tensor:
    images = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    return (images - mean) / std


def check(both: dict[str, dict[str, Callable[[], Any]]]) -> None:
    gap = (both["ours"]["logits"]() - both["plain"]["logits"]()).abs().max().item()
    alike = float((both["ours"]["label map"]() == both["plain"]["label map"]()).mean())
    if gap > TOLERANCE or alike < 0.999:
        raise SystemExit(f"the two differ: logits by {gap:.1e}, {1 - alike:.2%} of the labels")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, size: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of one network, both kinds timed in turn."""
    both = {kind: tasks(name, kind, size) for kind in ("plain", "ours")}
    rows = []
    with torch.inference_mode():
        check(both)  # also the warm-up
        for task in ("logits", "label map"):
            times: dict[str, list[float]] = {"plain": [], "ours": []}
            for i in range(rounds):
                for kind in ("plain", "ours") if i % 2 else ("ours", "plain"):
                    times[kind].append(1e3 * seconds(both[kind][task]))
            ratio = median(p / o for p, o in zip(times["plain"], times["ours"], strict=True))
            row: dict[str, Any] = {"network": name, "task": task, "ratio": ratio}
            for kind, values in times.items():
                low, _, high = quantiles(values, n=4)
                row[kind] = {"ms": median(values), "quartiles": [low, high], "mb": memory_mb(name, kind, task, size)}
            rows.append(row)
    return rows


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
    cells = (f"{row[k]['ms']:8.0f} ms {row[k]['mb']:6.0f} MB" for k in ("plain", "ours"))
    print(f"{row['network']:18} {row['task']:10} {'  '.join(cells)}  {row['ratio']:5.2f}x", flush=True)


def record(rows: list[dict[str, Any]], size: int, rounds: int) -> None:
    import ledger

    entries = []
    for row in rows:
        where = f"measured/segmentation/{row['network']}/{row['task'].replace(' ', '_')}"
        what = f"{row['network']}, {size}², float32, {torch.get_num_threads()} threads, {row['task']}"
        for kind in ("plain", "ours"):
            figures = row[kind]
            shown = f"{figures['ms']:.0f} ms, {figures['mb']:.0f} MB" + (
                f" ({row['ratio']:.2f}×)" if kind == "ours" else ""
            )
            common = {"table": "segmentation-cpu", "row": f"{row['network']}, {row['task']}"}
            time_ms = {"id": f"{where}/{kind}/ms", "value": round(figures["ms"], 1), "unit": "ms", "shown": shown}
            spread = {"quartiles": [round(value, 1) for value in figures["quartiles"]]}
            entries.append(common | time_ms | spread | {"column": kind, "what": f"{what}: {kind}, time per picture"})
            memory = {"id": f"{where}/{kind}/mb", "value": round(figures["mb"]), "unit": "MB"}
            entries.append(memory | {"what": f"{what}: {kind}, memory above the loaded network"})
        ratio = {"id": f"{where}/ratio", "value": round(row["ratio"], 3), "unit": "×"}
        entries.append(ratio | {"what": f"{what}: speed over the plain eager graph"})
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
        rows += measure(name, options.size, options.rounds)
        for row in rows[-2:]:
            print_row(row)
    if options.record and not options.quick:
        record(rows, options.size, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
