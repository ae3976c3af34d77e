"""Milliseconds that the training engine adds to a step over a bare loop: slim network, batch 8, 32², one thread.

    python benchmarks/engine_overhead.py [--no-record]

Both train the same network on the same images by the same optimizer and schedule, in turn, `--rounds` times; the
engine's are the times between consecutive steps of a `van train` epoch (guards, logging, checkpoint policy and all),
the loop's those of a loop that anybody would write. Medians over all steps. Exit code 1 when the engine adds more
than 3 ms.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from van.recipes import Recipe
from van.train import run
from van.train.module import TrainingModule
from van.train.optimizer import build_optimizer
from van.train.prepare import prepare
from van.train.schedule import build_schedule

ALLOWED_MS = 3.0
WARM_UP = 5  # steps


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    torch.set_num_threads(1)
    loop: list[float] = []
    engine: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "data", count=4 * options.steps)
        for round_ in range(options.rounds):
            recipe = _recipe(folder / "data", folder / f"run{round_}")
            loop += _bare_loop(recipe)
            engine += _engine(recipe)
    added = median(engine) - median(loop)
    print(f"bare loop {median(loop):.2f} ms, engine {median(engine):.2f} ms per step: {added:.2f} ms added")
    if options.record:
        _record(median(loop), added)
    return 1 if added > ALLOWED_MS else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    return parser.parse_args()


def _write_images(root: Path, *, count: int) -> None:
    pixels = np.random.default_rng(0)
    for name in ("across", "along"):
        for part, images in (("train", count), ("val", 4)):
            (root / part / name).mkdir(parents=True)
            for i in range(images):
                image = pixels.integers(0, 255, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(image).save(root / part / name / f"{i}.png")


def _recipe(data: Path, out: Path) -> Recipe:
    return Recipe(name="slim").with_options(
        **{
            "model.embed_dims": (8, 16, 24, 32), "model.depths": (1, 1, 1, 1), "model.drop_path_rate": 0.0,
            "data.path": str(data), "data.size": 32, "trainer.epochs": 1, "trainer.batch_size": 8,
            "trainer.workers": 0, "trainer.threads": 1, "trainer.device": "cpu", "trainer.progress": "none",
            "trainer.out": str(out),
        }
    )  # fmt: skip


def _engine(recipe: Recipe) -> list[float]:
    """Milliseconds between the beginnings of consecutive steps."""
    marks: list[float] = []
    step = TrainingModule.training_step

    def marking(self: TrainingModule, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        marks.append(time.perf_counter())
        return step(self, batch, batch_idx)

    TrainingModule.training_step = marking  # type: ignore[method-assign]
    try:
        run(recipe)
    finally:
        TrainingModule.training_step = step  # type: ignore[method-assign]
    return _between(marks)


def _bare_loop(recipe: Recipe) -> list[float]:
    """The same of a plain loop over a plain loader."""
    ready = prepare(recipe)
    optimizer = build_optimizer(ready.network, ready.training)
    schedule = build_schedule(optimizer, ready.recipe, ready.data.updates_per_epoch)
    loader = DataLoader(ready.data.images, batch_size=8, sampler=ready.data.sampler, drop_last=True)
    schedule.before_epoch(0)
    marks: list[float] = []
    for number, (images, labels) in enumerate(loader):
        marks.append(time.perf_counter())
        loss = F.cross_entropy(ready.network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.after_step(number + 1)
    return _between(marks)


def _between(marks: list[float]) -> list[float]:
    return [1e3 * (later - earlier) for earlier, later in zip(marks[WARM_UP:], marks[WARM_UP + 1 :], strict=False)]


def _record(loop: float, added: float) -> None:
    import ledger

    what = "slim network, batch 8, 32², one thread"
    entries = [
        {"id": "measured/engine/loop", "table": None, "what": f"{what}: step of a bare loop", "value": round(loop, 2)},
        {"id": "measured/engine/added", "table": None, "what": f"{what}: added by van train", "value": round(added, 2)},
    ]
    ledger.record([entry | {"unit": "ms"} for entry in entries], command="python benchmarks/engine_overhead.py")


if __name__ == "__main__":
    sys.exit(main())
