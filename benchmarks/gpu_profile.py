"""Where a network's time goes on a GPU: the kernels of one inference and one training step, longest first.

    python benchmarks/gpu_profile.py [--model van_b2] [--out FOLDER]
    python benchmarks/gpu_profile.py --quick    # toy sizes, also without a GPU: operators instead of kernels

The official graph and ours, as gpu_model.py makes them, batch 256 and 128 at 224², bfloat16. Writes profile.txt, and
with --traces one Chrome trace per step.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import gpu_model
import torch

KINDS = ("official", "ours", "ours, compile")
BATCHES = {"inference": 256, "training": 128}
MOST = 15  # kernels of a table


def main() -> int:
    """Profile, print, write."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    tables = []
    for mode, batch in BATCHES.items():
        for kind in KINDS:
            tables.append(_profile(mode, 2 if options.quick else batch, kind, options))
            print(tables[-1], flush=True)
            (options.out / "profile.txt").write_text("\n".join(tables))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="van_b2")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for profile.txt and traces")
    parser.add_argument("--traces", action="store_true", help="also write trace_MODE_KIND.json")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it works")
    options = parser.parse_args()
    if not options.quick and not torch.cuda.is_available():
        parser.exit(2, "no GPU: only --quick works here\n")
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    return options


def _profile(mode: str, batch: int, kind: str, options: argparse.Namespace) -> str:
    import gpu_machine

    size, where = 64 if options.quick else 224, gpu_machine.device()
    network, _ = gpu_model._network(options.model, kind, mode, size, options)
    images = torch.randn((batch, 3, size, size), generator=torch.Generator().manual_seed(0)).to(where)
    make = {"inference": gpu_model._inference, "training": gpu_model._training}[mode]
    step = make(network, images)
    for _ in range(1 if options.quick else 3):
        step()
    spent, seen = _spent(step)
    if options.traces:
        name = f"trace_{mode}_{kind}".replace(", ", "_")
        seen.export_chrome_trace(str(options.out / f"{name}.json"))
    whole = sum(us for us, _ in spent.values())
    lines = [f"{options.model}, {mode}, batch {batch}, {kind}: {whole / 1e3:.2f} ms in {len(spent)} kinds of kernels"]
    for name, (us, calls) in sorted(spent.items(), key=lambda item: -item[1][0])[:MOST]:
        lines.append(f"  {us / 1e3:9.3f} ms {us / whole:6.1%} {calls:5d} calls  {name[:110]}")
    return "\n".join(lines) + "\n"


def _spent(step: Callable[[], object]) -> tuple[dict[str, tuple[float, int]], torch.profiler.profile]:
    """Name -> microseconds and calls, of kernels on a GPU, of operators without one."""
    import gpu_machine

    on_gpu, activities = torch.cuda.is_available(), [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as seen:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    spent: dict[str, tuple[float, int]] = {}
    for event in seen.events():
        if (event.device_type == torch.autograd.DeviceType.CUDA) == on_gpu:
            us, calls = spent.get(event.name, (0.0, 0))
            spent[event.name] = (us + gpu_machine.self_us(event, on_gpu), calls + 1)
    return spent, seen


if __name__ == "__main__":
    sys.exit(main())
