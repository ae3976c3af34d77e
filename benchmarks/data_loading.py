"""How many images a second one core reads for training, and where the time goes.

    python benchmarks/data_loading.py [--recipe imagenet_van_b0] [--data FOLDER] [--images 256] [--no-record]

From a folder of class folders, and from tar files of the same images, a file per class (`data.reader tar`). Without
--data, photographs are imitated: JPEG files of smoothed noise at ImageNet's mean size, 500 x 375 pixels. The time of an
image is cut into reading and decoding, the geometry (crop, resize, mirror), the policy and jitter, normalising and
erasing, and collating into batches; `one worker` is the whole in one worker of the recipe's own loader. Writes
docs/results.json unless --data is given.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

STAGES = ("decode", "geometry", "policy", "normalise", "collate")


def imitate(root: Path, count: int) -> Path:
    """JPEG files with the detail of photographs, in two class folders."""
    import numpy as np
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    for i in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (375, 500, 3), np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
        path = root / f"class{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise.save(path, quality=90)
    return root


def pack(folder: Path, target: Path) -> Path:
    """The same images in tar files, one of each class."""
    (target / "train").mkdir(parents=True)
    for source in sorted(folder.iterdir()):
        with tarfile.open(target / "train" / f"{source.name}.tar", "w") as file:
            file.add(source, arcname=source.name)
    return target


def open_images(kind: str, path: Path):
    """ClassificationData of a folder or of tar files."""
    from van.data import open_classification
    from van.data.readers import open_reader
    from van.recipes import DataSpec

    if kind == "folder":
        return open_classification(path, "all")
    return open_reader(DataSpec(path=str(path), reader="tar"), "train", seed=0, batch_size=1)


def stages(data, transform, seed: int, batch_size: int) -> dict[str, float]:
    """Seconds per image of every stage, in this process."""
    from torch.utils.data import default_collate

    from van.data.seeding import seeded
    from van.images.preprocess import to_color

    spent = dict.fromkeys(STAGES, 0.0)
    batch = []
    for index in range(len(data)):
        start = time.perf_counter()
        image, label = data.load(index)
        image = to_color(image, transform.color)
        spent["decode"] += time.perf_counter() - start
        with seeded(seed, 0, index):
            steps = {"geometry": transform.geometry, "policy": transform.appearance}
            for name, part in {**steps, "normalise": [*transform.normalise, *transform.erase]}.items():
                start = time.perf_counter()
                for step in part:
                    image = step(image)
                spent[name] += time.perf_counter() - start
        batch.append((image, label))
        if len(batch) == batch_size:
            start = time.perf_counter()
            default_collate(batch)
            spent["collate"] += time.perf_counter() - start
            batch = []
    return {name: seconds / len(data) for name, seconds in spent.items()}


def loader_rate(images, sampler, batch_size: int) -> float:
    """Images a second of one worker, after its start."""
    from torch.utils.data import DataLoader

    loader = iter(DataLoader(images, batch_size=batch_size, sampler=sampler, num_workers=1, drop_last=True))
    next(loader)
    start, seen = time.perf_counter(), 0
    for batch, _ in loader:
        seen += len(batch)
    return seen / (time.perf_counter() - start)


def measure(data, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per image of every stage, and the rates of one core and one worker."""
    import torch

    from van.data.augment import SeededExample, TrainingTransform
    from van.data.dataset import EpochSampler, TrainingSet
    from van.images.preprocess import Preprocess
    from van.recipes import get_recipe

    torch.set_num_threads(1)
    recipe = get_recipe(options.recipe)
    transform = TrainingTransform(recipe.augment, Preprocess().with_overrides(**recipe.data.preprocess_overrides()))
    images = TrainingSet(data, SeededExample(transform, seed=0))
    images[0, 0]  # imports, and tables made at the first use
    found = {name: 1000 * seconds for name, seconds in stages(data, transform, 0, options.batch).items()}
    found["one core"] = 1000 / sum(found.values())
    found["one worker"] = loader_rate(images, EpochSampler(len(data), seed=0), options.batch)
    return found


def main() -> int:
    """Measure both, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="imagenet_van_b0")
    parser.add_argument("--data", type=Path, help="a folder of class folders")
    parser.add_argument("--images", type=int, default=256, help="how many to imitate without --data")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = options.data or imitate(Path(name, "images"), options.images)
        sources = {"folder": folder, "tar": pack(folder, Path(name, "tars"))}
        found = {kind: measure(open_images(kind, path), options) for kind, path in sources.items()}
    for kind, figures in found.items():
        _print(kind, figures)
    if options.record and options.data is None:
        _record(found, options)
    return 0


def _print(kind: str, found: dict[str, float]) -> None:
    print(kind)
    for name in STAGES:
        print(f"  {name:10} {found[name]:7.2f} ms {found[name] * found['one core'] / 1000:6.0%}")
    for name in ("one core", "one worker"):
        print(f"  {name:10} {found[name]:7.1f} images/s")


def _record(found: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    import ledger

    columns = {name: f"{name} (ms)" for name in STAGES} | {
        "one core": "images/s",
        "one worker": "one worker (images/s)",
    }
    entries = [
        {
            "id": f"measured/data_loading/{kind}/{name.replace(' ', '_')}", "table": "data_loading",
            "row": {"folder": "image folder", "tar": "tar files"}[kind], "column": columns[name],
            "what": f"{options.recipe}, JPEG of 500 x 375, one core, {kind}: {columns[name]}",
            "value": round(value, 2), "shown": f"{value:.0f}" if name.startswith("one") else f"{value:.2f}",
            "unit": "images/s" if name.startswith("one") else "ms",
        }
        for kind, figures in found.items()
        for name, value in figures.items()
    ]  # fmt: skip
    ledger.record(entries, command="python benchmarks/data_loading.py")


if __name__ == "__main__":
    sys.exit(main())
