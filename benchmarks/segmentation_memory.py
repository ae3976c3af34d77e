"""Peak resident memory of segmenting a large picture, each case in a process of its own.

    python benchmarks/segmentation_memory.py [--quick] [--networks NAME …] [--side 4096] [--limit-gb 2] [--no-record]

Cases: the published test (the picture shrunk to a short side of 512, logits enlarged to the picture's size), the
published six scales with flip, and the picture at its own size, which is cut into windows. `baseline` is the same
process with the network and the picture loaded and nothing run; `unbanded` is what logits at the picture's size alone
would take. Writes docs/results.json, unless --quick; exit code 1 when a case exceeds the limit. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

CASES = {
    "baseline": None,
    "published": {},
    "six scales, flip": {"multi_scale": True},
    "own size, windows": {"resize": None},
}
NETWORKS = ("light_ham_van_b0", "light_ham_van_b2", "upernet_van_b0")


def peak_bytes() -> int:
    """Highest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_case(network: str, case: str, side: int) -> dict[str, Any]:
    """Segment a random picture in this process; returns seconds and peak bytes."""
    import numpy as np
    import torch
    from PIL import Image

    from van.configs.segmenter import SEGMENTERS
    from van.nn import fold
    from van.nn.segmenter import Segmenter
    from van.tasks.segmentation.views import PUBLISHED_SCALES, Inference, predict_mask

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = Segmenter(SEGMENTERS[network]).eval()
    model = fold(model).to(memory_format=torch.channels_last)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    options = CASES[case]
    start = time.perf_counter()
    if options is not None:
        views = {"scales": PUBLISHED_SCALES, "flip": True} if options.get("multi_scale") else {}
        size = {"resize": options["resize"]} if "resize" in options else {}
        mask = predict_mask(model, image, Inference(**views, **size))
        if mask.shape != (side, side):
            raise SystemExit(f"the mask has shape {mask.shape}")
    return {"seconds": time.perf_counter() - start, "bytes": peak_bytes()}


def in_subprocess(network: str, case: str, side: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", network, case, "--side", str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{network}, {case}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def record(rows: list[dict[str, Any]], side: int) -> None:
    """Write the ledger: peak memory of every case."""
    import ledger

    entries = []
    for row in rows:
        case = row["case"].replace(", ", "-").replace(" ", "-")
        cell = {"table": "segmentation-memory", "row": row["network"], "column": f"{row['case']} (GB)"}
        what = f"{row['network']}, {side}² pixels, 150 classes, {row['case']}: highest resident memory of the process"
        value = {"value": round(row["bytes"] / 1e9, 3), "shown": f"{row['bytes'] / 1e9:.2f}", "unit": "GB"}
        entries.append({"id": f"measured/memory/{row['network']}/{case}", "what": what} | cell | value)
    ledger.record(entries, command="python benchmarks/segmentation_memory.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Light-Ham B0 alone, without the six scales")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--limit-gb", type=float, default=2.0)
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    parser.add_argument("--child", nargs=2, metavar=("NETWORK", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_case(*options.child, options.side)))
        return 0
    networks = NETWORKS[:1] if options.quick else options.networks
    cases = [case for case in CASES if not (options.quick and case.startswith("six"))]
    unbanded = 150 * options.side**2 * 4 / 1e9
    print(f"{options.side} x {options.side} pixels, 150 classes; logits at that size alone: {unbanded:.1f} GB")
    rows = []
    for network in networks:
        for case in cases:
            row = {"network": network, "case": case, **in_subprocess(network, case, options.side)}
            rows.append(row)
            print(f"{network:18} {case:18} {row['bytes'] / 1e9:6.2f} GB {row['seconds']:8.1f} s", flush=True)
    if options.record and not options.quick:
        record(rows, options.side)
    worst = max(row["bytes"] for row in rows) / 1e9
    print(f"highest: {worst:.2f} GB of {options.limit_gb:g} GB")
    return int(worst > options.limit_gb)


if __name__ == "__main__":
    sys.exit(main())
