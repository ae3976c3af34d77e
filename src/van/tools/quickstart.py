"""The whole chain on the embedded digits, no download: `python -m van.tools.quickstart` (or `make quickstart`).

Trains VAN-B0 by the recipe digits_van_b0, evaluates it, predicts a few images from files, and leaves in ./quickstart:
quickstart.png (digits with predicted labels, curves), model.safetensors (`van predict` loads it), digits/ (held-out
digits as files) and run/ (everything about the training).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import ConfigError, VanError, VanNotice
from ..files import printable

if TYPE_CHECKING:
    from ..tasks.classification.output import Prediction

FOLDER, MODEL = Path("quickstart"), "model.safetensors"
SHOWN = 40  # digits in the picture, mistakes first
FILES = 8  # digits that are written to files and predicted from them


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart and print its figures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m van.tools.quickstart", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default=str(FOLDER), help="folder for the results (default: quickstart)")
    parser.add_argument("--epochs", type=int, help="fewer, to be done sooner (default: the recipe's)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin on a busy machine slow it tenfold
    try:
        quickstart(Path(options.out), epochs=options.epochs)
    except (VanError, OSError) as error:
        print(f"van: error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    return 0


def quickstart(out: Path, *, epochs: int | None = None) -> Path:
    """Train, evaluate, predict, draw; returns the model file. An earlier quickstart's run in `out` is replaced.

    Raises ConfigError when `out` cannot be written.
    """
    from ..inference.evaluate import evaluate
    from ..recipes import get_recipe
    from ..train import run

    started = time.perf_counter()
    recipe = get_recipe("digits_van_b0").with_options(**{"trainer.out": str(_fresh(out / "run"))})
    if epochs is not None:
        recipe = recipe.with_options(**{"trainer.epochs": epochs})
    print(f"training {recipe.model.name} on scikit-learn's handwritten digits, {recipe.trainer.epochs} epochs")
    folder = run(recipe)
    model = Path(shutil.copyfile(folder / MODEL, out / MODEL))
    result = evaluate(model, "digits")
    scores = f"top-1 {result['top1']:.2f}%, top-5 {result['top5']:.2f}%, loss {result['loss']:.4f}"
    print(f"evaluated: {scores}, {result.count} digits")
    _predict_files(model, out / "digits")
    title = f"VAN-B0, {result.count} held-out digits: top-1 {result['top1']:.2f}%"
    _draw(model, folder, out / "quickstart.png", title=title)
    print(f"done in {time.perf_counter() - started:.0f} s: {out / 'quickstart.png'}, {model}")
    print(f"next: van predict {model} {out / 'digits'}")
    return model


def _fresh(folder: Path) -> Path:
    """`folder`, without the run of an earlier quickstart; raises ConfigError when one is running there."""
    from ..train.lock import RunLock

    if (folder / "recipe.yaml").exists():
        with RunLock() as lock:
            lock.take(folder)  # another quickstart may still be running
            shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    return folder


def _predict_files(model: Path, folder: Path) -> None:
    """Write some held-out digits to files, and predict what is in these files."""
    from ..data import open_classification
    from ..inference.predictor import Predictor

    data = open_classification("digits", "val")
    folder.mkdir(exist_ok=True)
    predict = Predictor(model)
    for index in range(FILES):
        image, label = data.load(index)
        path = folder / f"{index}-is-{data.classes[label]}.png"
        image.save(path)
        prediction = cast("Prediction", predict(path))
        print(f"predicted {path}: {prediction.label} ({prediction.probability:.1%})")


def _draw(model: Path, folder: Path, path: Path, *, title: str) -> None:
    from ..data import open_classification
    from ..inference.predictor import Predictor
    from .report.run_picture import run_picture

    data = open_classification("digits", "val")
    images = [data.load(index) for index in range(len(data))]
    predictions = cast("list[Prediction]", Predictor(model)([image for image, _ in images]))
    samples = [
        (image, prediction.label, data.classes[label])
        for (image, label), prediction in zip(images, predictions, strict=True)
    ]
    samples.sort(key=lambda sample: sample[1] == sample[2])  # stable: mistakes first, then the others in order
    path.write_bytes(run_picture(folder, samples[:SHOWN], title=title))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("default", VanNotice)
        sys.exit(main())
