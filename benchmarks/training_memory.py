"""Peak memory of training steps: variant, image size, batch, with and without recomputing blocks.

    python benchmarks/training_memory.py [--quick] [--device cuda] [--precision fp32 bf16] [--write docs/memory.md]

Each case is a process of its own that takes two AdamW steps on random images. On the CPU it is the highest resident
size of that process less what it had before the network was made; on a GPU what torch allocated at most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

MODELS = ("van_b0", "van_b1", "van_b2", "van_b3")
CASES = ((224, 8), (224, 32))
MARK = "<!-- measured -->"


def peak_bytes() -> int:
    """Highest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_case(model_name: str, size: int, batch: int, checkpointing: bool, device: str, precision: str) -> dict:
    """Two steps in this process; seconds are of the second one."""
    import torch

    import van

    before = peak_bytes()
    model = van.create_model(model_name, seed=0, num_classes=1000).to(device).train()
    model.set_grad_checkpointing(checkpointing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, labels = (
        torch.randn(batch, 3, size, size, device=device),
        torch.zeros(batch, dtype=torch.long, device=device),
    )
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if device.startswith("cuda"):
        return {"bytes": torch.cuda.max_memory_allocated(), "seconds": time.perf_counter() - start}
    return {"bytes": peak_bytes() - before, "seconds": time.perf_counter() - start}


def in_subprocess(model: str, size: int, batch: int, checkpointing: bool, *, device: str, precision: str) -> dict:
    case = [model, str(size), str(batch), str(int(checkpointing))]
    command = [sys.executable, __file__, "--device", device, "--precision", precision, "--child", *case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model} {size} {batch}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    """Markdown, a line per case."""
    lines = ["| model | size | batch | precision | plain | recomputed | saved |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        plain, saving = row["plain"]["bytes"], row["recomputed"]["bytes"]
        figures = f"{plain / 1e9:.2f} GB | {saving / 1e9:.2f} GB | {1 - saving / plain:.0%}"
        lines.append(f"| {row['model']} | {row['size']}² | {row['batch']} | {row['precision']} | {figures} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="B0 alone, 96²")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, help="other batches than 8 and 32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=("fp32", "bf16"))
    parser.add_argument("--write", type=Path, help=f"a document whose part after {MARK} becomes the table")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        model, size, batch, checkpointing = options.child
        found = run_case(model, int(size), int(batch), checkpointing == "1", options.device, options.precision[0])
        print(json.dumps(found))
        return 0
    rows = []
    for model, (size, batch), precision in _cases(options):
        how = {"device": options.device, "precision": precision}
        kinds = {"plain": False, "recomputed": True}
        found = {kind: in_subprocess(model, size, batch, on, **how) for kind, on in kinds.items()}
        rows.append({"model": model, "size": size, "batch": batch, "precision": precision, **found})
        times = " ".join(f"{kind} {figures['seconds']:.1f} s" for kind, figures in found.items())
        print(f"{table(rows[-1:]).splitlines()[-1]} {times}", flush=True)
    text = table(rows)
    if options.write:
        before = options.write.read_text().partition(MARK)[0]
        options.write.write_text(f"{before}{MARK}\n\n{text}\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _cases(options: argparse.Namespace) -> list[tuple[str, tuple[int, int], str]]:
    if options.quick:
        return [(MODELS[0], (96, 4), precision) for precision in options.precision]
    sizes = [(224, batch) for batch in options.batches] if options.batches else [*CASES]
    return list(itertools.product(options.models, sizes, options.precision))


if __name__ == "__main__":
    sys.exit(main())
