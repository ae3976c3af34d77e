"""What int8 does to the logits: of every variant on two photographs, and of a network trained on digits.

    python benchmarks/int8_quality.py [--models MODEL …] [--digits CHECKPOINT] [--quick]

Variants: weights that look trained (interleaved.looks_trained: random, with real BatchNorm statistics and biases),
which no data set has shaped, calibrated on scikit-learn's two photographs and compared on them: signal to noise of the
1000 logits, the smallest of a layer's. Digits: a checkpoint such as `python -m van.quickstart` leaves, calibrated on
the embedded training digits and compared on the 359 that are held out; required: 99% of the classes unchanged.
Both in OpenVINO and in ONNX Runtime. Writes docs/results.json. --quick: B0 alone at 64 pixels, nothing written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ledger
from interleaved import looks_trained

MODELS = tuple(f"van_b{i}" for i in range(7))
RUNTIMES = {"OpenVINO": ".xml", "ONNX Runtime": ".onnx"}
REQUIRED_AGREEMENT = 0.99


def photographs() -> list[Any]:
    """scikit-learn's two."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def variants(models: list[str], size: int | None) -> Iterator[dict[str, Any]]:
    """Entries of the ledger: decibels per variant and runtime."""
    import van

    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            looks_trained(name, folder)
            for runtime, suffix in RUNTIMES.items():
                file = Path(folder) / f"int8{suffix}"
                report = van.quantize(folder, file, calibration=photographs(), max_drop=1.0, size=size).report
                worst = min(report.layers, key=lambda each: each.sqnr_db)
                print(f"{name} {runtime}: {report.sqnr_db:.1f} dB; {worst.layer} {worst.sqnr_db:.1f} dB", flush=True)
                label = name.upper().replace("_", "-")
                yield {
                    "id": f"measured/int8/{name}/{runtime}/sqnr",
                    "what": f"{label}, 224², int8 in {runtime}: logits on two photographs, weights that look trained",
                    "value": round(report.sqnr_db, 1),
                    "unit": "dB",
                    "table": "int8-sqnr",
                    "row": label,
                    "column": f"{runtime} (dB)",
                }


def digits(checkpoint: str) -> Iterator[dict[str, Any]]:
    """Entries of the ledger: agreement and top-1 of a trained network per runtime."""
    import van

    for runtime, suffix in RUNTIMES.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"int8{suffix}"
            report = van.quantize(checkpoint, file, calibration="digits", validation="digits", samples=360).report
        print(
            f"digits {runtime}: {report.agreement:.2%} of {report.compared} keep their class, {report.sqnr_db:.1f} dB,"
            f" top-1 {report.fp32_top1:.2f} -> {report.top1:.2f}, {len(report.float_layers)} layers in float32"
        )
        what = f"VAN-B0 trained on digits, int8 in {runtime}, 359 held-out digits"
        common = {"table": "int8-digits", "row": runtime}
        figures = {
            "agreement": (round(100 * report.agreement, 2), "%", "same class as float32 (%)"),
            "top1": (round(report.top1 or 0, 2), "%", "top-1 (%)"),
            "fp32_top1": (round(report.fp32_top1 or 0, 2), "%", "top-1 in float32 (%)"),
            "sqnr": (round(report.sqnr_db, 1), "dB", "logits (dB)"),
        }
        for name, (value, unit, column) in figures.items():
            where = f"measured/int8/digits/{runtime}/{name}"
            yield common | {"id": where, "what": f"{what}: {column}", "value": value, "unit": unit, "column": column}


def main() -> int:
    """Measure, print, record; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--digits", help="a checkpoint trained on the embedded digits")
    parser.add_argument("--quick", action="store_true", help="toy size, to see that it works")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    size = 64 if options.quick else None
    entries = list(variants(["van_b0"] if options.quick else options.models, size))
    flags = f"--models {' '.join(options.models)}"
    if options.digits:
        entries += digits(options.digits)
        flags += " --digits quickstart/model.safetensors"
    if not options.quick:
        ledger.record(entries, command=f"python benchmarks/int8_quality.py {flags}")
    below = [e for e in entries if e["id"].endswith("agreement") and e["value"] < 100 * REQUIRED_AGREEMENT]
    print(*(f"MISSED: {entry['what']}: {entry['value']}" for entry in below), sep="\n")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
