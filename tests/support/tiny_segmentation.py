"""A segmentation training small enough for tests: a slim Light-Ham on digit scenes of 32 pixels."""

import numpy as np
from PIL import Image

from van.recipes import get_recipe

SLIM_NETWORK = {
    "embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2), "channels": 32,
    "ham_channels": 32, "ham_rank": 4, "auxiliary_channels": 8, "kernel_size": 9, "dilation": 2,
}  # fmt: skip


def slim_segmentation(out, **options):
    defaults = {
        **{f"model.{name}": value for name, value in SLIM_NETWORK.items()},
        "data.scene_size": 32,
        "data.val_images": 4,
        "augment.crop": (32, 32),
        "schedule.warmup_steps": 1,
        "trainer.steps": 4,
        "trainer.val_every": 2,
        "trainer.batch_size": 2,
        "trainer.threads": 1,
        "trainer.progress": "none",
        "trainer.out": str(out),
    }
    return get_recipe("light_ham_digits").with_options(**{**defaults, **options})


def make_pictures(root, *, size=(50, 70), **counts):
    """A described data set of noise in eleven classes: `make_pictures(root, train=4, val=2)`."""
    draw = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            arrays = {
                "images": draw.integers(0, 256, (*size, 3), np.uint8),
                "masks": draw.integers(0, 11, size, np.uint8),
            }
            for folder, array in arrays.items():
                path = root / folder / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    names = ["background", *map(str, range(10))]
    parts = ["{" + ", ".join(f"{split}: {kind}/{split}" for split in counts) + "}" for kind in ("images", "masks")]
    (root / "dataset.yaml").write_text(f"images: {parts[0]}\nmasks: {parts[1]}\nnames: {names}\n")
    return root
