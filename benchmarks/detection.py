"""Time of finding objects in a 512 x 512 picture on this CPU: ours against the plain eager graph, and torchvision's.

    python benchmarks/detection.py [--quick] [--record]

ours: `van.optimize`, so the folded backbone. plain: the same network, unfolded, contiguous, every depthwise convolution
one F.conv2d with its padding inside and every LayerNorm on transposed copies, as in the published code.
torchvision: its retinanet_resnet50_fpn, random weights, beside RetinaNet on B0.

"network" is what runs before boxes are chosen: `raw` of RetinaNet, the backbone and the pyramid of Mask R-CNN.
"objects" is the whole call on one picture, resizing and suppression included. The weights are random but for the bias
of one class, which is such that objects are found: many anchors or every proposal are candidates, and Mask R-CNN gives
each object that is kept its mask.

All sides run in turn in one process, so that a busy moment of the machine hits each; before anything is timed ours and
plain must agree. Medians over the rounds with quartiles; a ratio is the median of a side's time over ours, round by
round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any

import torch
from official_graph import official

import van
from van.nn.object_model import ObjectModel

NETWORKS = ("retinanet_van_b0", "mask_rcnn_van_b0")
TASKS = ("network", "objects")
CLASSES = 80
TOLERANCE = 1e-3  # of maps of order 1, between float32 graphs that round differently

Runs = dict[str, Callable[[], Any]]


def network(name: str, size: int) -> ObjectModel:
    """A model with weights that keep its activations near 1, so that agreement means something."""
    model = van.create_model(name, seed=0, min_size=size, max_size=size).eval().requires_grad_(False)
    for key, value in model.named_parameters():
        if key.endswith(("scale1", "scale2")):
            value.fill_(0.05)
        elif key.endswith("cls_score.bias"):
            value[1] = 4.0  # probability 0.4 beside 80 others
        elif key.endswith("classification_head.cls_logits.bias"):
            prefer_one_class(value)
    return model


def prefer_one_class(bias: torch.Tensor) -> None:
    """Probabilities about the threshold of 0.05 for the first class of every anchor."""
    bias.unflatten(0, (-1, CLASSES))[:, 0] = -2.94


def sides(name: str, size: int) -> dict[str, Runs]:
    """What is timed for one model: side -> task -> what to run."""
    model, picture = network(name, size), torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    batch = (picture[None] - 0.45) / 0.225
    found = {"ours": runs(van.optimize(model), batch, picture), "plain": runs(official(model), batch, picture)}
    if name.startswith("retinanet"):
        found["torchvision"] = torchvisions(batch, picture, size)
    return found


def runs(model: Any, batch: torch.Tensor, picture: torch.Tensor) -> Runs:
    maps = model.maps if hasattr(model, "maps") else model.features
    return {"network": lambda: maps(batch), "objects": lambda: model([picture])}


def torchvisions(batch: torch.Tensor, picture: torch.Tensor, size: int) -> Runs:
    from torchvision.models.detection import retinanet_resnet50_fpn

    torch.manual_seed(0)
    options = {"min_size": size, "max_size": size, "num_classes": CLASSES}
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, **options).eval().requires_grad_(False)
    prefer_one_class(model.head.classification_head.cls_logits.bias)
    return {
        "network": lambda: model.head(list(model.backbone(batch).values())),
        "objects": lambda: model([picture]),
    }


def tensors(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output
    return [tensor for part in parts for tensor in tensors(part)]


def check(both: dict[str, Runs]) -> None:
    """Ours and plain give the same maps and as many objects; also the warm-up of all."""
    ours, plain = (tensors(both[side]["network"]()) for side in ("ours", "plain"))
    gap = max((one - two).abs().max().item() for one, two in zip(ours, plain, strict=True))
    counts = {side: len(run["objects"]()[0]["boxes"]) for side, run in both.items()}
    if gap > TOLERANCE or counts["ours"] != counts["plain"] or not counts["ours"]:
        raise SystemExit(f"the two differ: maps by {gap:.1e}, numbers of objects {counts}")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, size: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of one model, a task each."""
    both, rows = sides(name, size), []
    with torch.inference_mode():
        check(both)
        for task in TASKS:
            times: dict[str, list[float]] = {side: [] for side in both}
            for i in range(rounds):
                for side in both if i % 2 else reversed(both):
                    times[side].append(1e3 * seconds(both[side][task]))
            found = {side: summary(values, times["ours"]) for side, values in times.items()}
            rows.append({"network": name, "task": task, "sides": found})
    return rows


def summary(values: list[float], ours: list[float]) -> dict[str, Any]:
    low, _, high = quantiles(values, n=4)
    ratio = median(value / own for value, own in zip(values, ours, strict=True))
    return {"ms": median(values), "quartiles": [low, high], "ratio": ratio}


def print_row(row: dict[str, Any]) -> None:
    cells = [f"{side} {found['ms']:.0f} ms ({found['ratio']:.2f}x)" for side, found in row["sides"].items()]
    print(f"{row['network']:18} {row['task']:8} {', '.join(cells)}", flush=True)


def record(rows: list[dict[str, Any]], size: int, rounds: int) -> None:
    import ledger

    entries = []
    for row in rows:
        where, title = f"measured/detection/{row['network']}/{row['task']}", f"{row['network']}, {row['task']}"
        what = f"{row['network']}, {size}², float32, {torch.get_num_threads()} threads, {row['task']}"
        for side, found in row["sides"].items():
            shown = f"{found['ms']:.0f} ms" + ("" if side == "ours" else f" ({found['ratio']:.2f}×)")
            spread = [round(value, 1) for value in found["quartiles"]]
            entries.append(
                {"table": "detection-cpu", "row": title, "id": f"{where}/{side}/ms", "value": round(found["ms"], 1)}
                | {"unit": "ms", "shown": shown, "quartiles": spread, "column": side}
                | {"what": f"{what}: {side}, time per picture"}
            )
            if side != "ours":
                ratio = {"id": f"{where}/{side}/ratio", "value": round(found["ratio"], 3), "unit": "×"}
                entries.append(ratio | {"what": f"{what}: time of {side} over ours"})
    ledger.record(entries, command=f"python benchmarks/detection.py --rounds {rounds} --record")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--size", type=int, default=512, help="side of the picture, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="toy size, to see that it works")
    parser.add_argument("--record", action="store_true", help="write docs/results.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.size, options.rounds = 128, 3
    rows = []
    for name in options.networks:
        rows += measure(name, options.size, options.rounds)
        for row in rows[-len(TASKS) :]:
            print_row(row)
    if options.record and not options.quick:
        record(rows, options.size, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
