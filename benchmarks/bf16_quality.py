"""What bfloat16 does to the logits: of B0 to B3 on two photographs, and of a network trained on digits.

    python benchmarks/bf16_quality.py [--models MODEL …] [--digits CHECKPOINT] [--quick]

The network is what `van bench --bf16` times: `van.optimize` of the model in bfloat16, on inputs in bfloat16. Variants:
weights that look trained (interleaved.looks_trained), signal to noise of the 1000 logits of scikit-learn's two
photographs against float64, beside that of the optimised network in float32. Digits: a checkpoint such as
`python -m van.tools.quickstart` leaves, on the 359 digits that are held out. Required: 35 dB for B0 to B3, and every
digit keeps the class that float64 gives it; exit code 1 otherwise. VAN_OPS restricts the kernel.
Writes docs/results.json. --quick: B0 alone at 64 pixels, nothing written.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cpu_results
import ledger
import numpy as np
from int8_quality import photographs
from interleaved import looks_trained

REQUIRED_DB = dict.fromkeys(("van_b0", "van_b1", "van_b2", "van_b3"), 35.0)
REQUIRED_AGREEMENT = 1.0
FORMS = {"bf16": "bf16 (dB)", "optimised": "float32 (dB)"}


def logits(model: Any, images: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Form -> the logits of every image (1, C, H, W): in float64 ("exact"), and of each of FORMS."""
    import torch

    from van import ops
    from van.tasks.comparison import values
    from van.tools import bench

    double = copy.deepcopy(model).double()
    with torch.inference_mode(), ops.without_kernels():
        exact = [double.raw(torch.from_numpy(image).double()).numpy().ravel() for image in images]
    runs = bench.networks(model, list(FORMS), Path(), images[0])  # none of them writes a file
    return {"exact": exact} | {form: [values(run(image)) for image in images] for form, run in runs.items()}


def variants(models: Sequence[str], size: int | None) -> Iterator[dict[str, Any]]:
    """Entries of the ledger: decibels per variant and form."""
    import van
    from van.exporting.exporter import describe
    from van.exporting.int8_report import sqnr_db
    from van.exporting.sample_images import calibration_images

    for name in models:
        with tempfile.TemporaryDirectory() as folder:
            looks_trained(name, folder)
            model = van.load(folder).eval()
        found = logits(model, calibration_images(photographs(), describe(model, size=size, options={}), 2))
        label = name.upper().replace("_", "-")
        for form, column in FORMS.items():
            value = {"value": round(sqnr_db(found[form], found["exact"]), 1), "unit": "dB"}
            print(f"{label} {form}: {value['value']} dB", flush=True)
            what = f"{label}, 224², {form}: logits of two photographs against float64, weights that look trained"
            yield value | _place(f"{name}/{form}/sqnr", "bf16-sqnr", label, column, what)


def digits(checkpoint: str) -> Iterator[dict[str, Any]]:
    """Entries of the ledger: agreement, top-1 and decibels of a trained network."""
    import van
    from van.data import open_classification
    from van.exporting.exporter import describe
    from van.exporting.int8_report import sqnr_db
    from van.exporting.sample_images import validation_images

    model, held_out = van.load(checkpoint).eval(), open_classification("digits", "val")
    found = logits(model, validation_images("digits", describe(model, options={}), len(held_out)))
    labels = [held_out.load(i)[1] for i in range(len(held_out))]
    classes = {form: np.array([each.argmax() for each in every]) for form, every in found.items()}
    figures = {
        "agreement": (100 * float((classes["bf16"] == classes["exact"]).mean()), "%", "same class as float64 (%)"),
        "top1": (100 * float((classes["bf16"] == labels).mean()), "%", "top-1 (%)"),
        "exact_top1": (100 * float((classes["exact"] == labels).mean()), "%", "top-1 in float64 (%)"),
        "sqnr": (sqnr_db(found["bf16"], found["exact"]), "dB", "logits (dB)"),
    }
    what = f"{model.config.name} trained on digits, bf16, {len(labels)} held-out digits"
    for name, (value, unit, column) in figures.items():
        print(f"digits, {column}: {value:.2f}")
        about = _place(f"digits/{name}", "bf16-digits", "VAN-B0", column, f"{what}: {column}")
        yield about | {"value": round(value, 1 if unit == "dB" else 2), "unit": unit}


def _place(where: str, table: str, row: str, column: str, what: str) -> dict[str, Any]:
    """What an entry has besides its value; which instructions multiply bfloat16 belongs to it."""
    here = cpu_results.processor()
    how = f"{here['processor']} kernel, products in bfloat16 by {here['bf16'] or 'other instructions'}"
    place = {"table": table, "row": f"{row}, {here['processor']}", "column": column}
    return {"id": f"measured/bf16/{here['processor']}/{where}", "what": f"{what}; {how}"} | place


def below(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What loses more than it may."""
    for entry in entries:
        name, *kind = entry["id"].split("/")[3:]
        required = REQUIRED_DB.get(name, 0) if kind == ["bf16", "sqnr"] else None
        if kind == ["agreement"]:
            required = 100 * REQUIRED_AGREEMENT
        if required is not None and entry["value"] < required:
            yield f"MISSED: {entry['what']}: {entry['value']}; required {required:g}"


def main() -> int:
    """Measure, print, record; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(REQUIRED_DB))
    parser.add_argument("--digits", help="a checkpoint trained on the embedded digits")
    parser.add_argument("--quick", action="store_true", help="toy size, to see that it works")
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    entries = list(variants(["van_b0"] if options.quick else options.models, 64 if options.quick else None))
    flags = f"--models {' '.join(options.models)}"
    if options.digits:
        entries += digits(options.digits)
        flags += " --digits quickstart/model.safetensors"
    if options.record and not options.quick:
        ledger.record(entries, command=f"python benchmarks/bf16_quality.py {flags}")
    missed = list(below(entries))
    print(*(missed or ["every requirement is met"]), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
