"""How many images a second one core reads for training, and where the time goes.

    python benchmarks/data_loading.py [--recipe imagenet_van_b0] [--data FOLDER] [--images 256] [--json PATH]

Without --data, photographs are imitated: JPEG files of smoothed noise at ImageNet's mean size, 500 x 375 pixels. The
time of an image is cut into reading and decoding, the geometry (crop, resize, mirror), the policy and jitter,
normalising and erasing, and collating into batches; `loader` is the whole in one worker of the recipe's own loader.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path


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


def stages(data, transform, seed: int, batch_size: int) -> dict[str, float]:
    """Seconds per image of every stage, in this process."""
    from torch.utils.data import default_collate

    from van.data.seeding import seeded
    from van.preprocess import to_color

    spent = dict.fromkeys(("decode", "geometry", "policy", "normalise", "collate"), 0.0)
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


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    import torch

    from van.data import open_classification
    from van.data.augment import TrainingTransform
    from van.data.dataset import EpochSampler, TrainingSet
    from van.preprocess import Preprocess
    from van.recipes import get_recipe

    torch.set_num_threads(1)
    recipe = get_recipe(options.recipe)
    data = open_classification(folder, "all")
    transform = TrainingTransform(recipe.augment, Preprocess().with_overrides(**recipe.data.preprocess_overrides()))
    images = TrainingSet(data, transform, seed=0)
    images[0, 0]  # imports, and tables made at the first use
    found = {f"{name}_ms": 1000 * seconds for name, seconds in stages(data, transform, 0, options.batch).items()}
    found["images_per_s_and_core"] = 1000 / sum(found.values())
    found["loader_images_per_s"] = loader_rate(images, EpochSampler(len(data), seed=0), options.batch)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="imagenet_van_b0")
    parser.add_argument("--data", type=Path, help="a folder of class folders")
    parser.add_argument("--images", type=int, default=256, help="how many to imitate without --data")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, options.data or imitate(Path(folder), options.images))
    total = 1000 / found["images_per_s_and_core"]
    for name in ("decode", "geometry", "policy", "normalise", "collate"):
        spent = found[f"{name}_ms"]
        print(f"{name:10} {spent:7.2f} ms {spent / total:6.0%}")
    print(f"{'one core':10} {found['images_per_s_and_core']:7.1f} images/s")
    print(f"{'one worker':10} {found['loader_images_per_s']:7.1f} images/s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
