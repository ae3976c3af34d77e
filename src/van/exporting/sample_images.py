"""Real images for the parity gate, as the network gets to see them: through the one preprocessing executor.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..data.folder import is_image
from ..errors import DataError, MissingExtraError
from ..images.preprocess import Preprocess, read_image
from ..tasks.segmentation.views import Inference, predict_mask

Images = str | Path | Sequence[Image.Image]
Named = tuple[str, Image.Image]

MOST = 64  # images of a folder that are looked at, spread over it
BATCH = 8
DIGITS = 6  # of the embedded ones


def pictures(images: Images | None) -> list[Named]:
    """(name, image): of a folder (searched to any depth), a list, or, for None, scikit-learn's photographs and digits.

    Raises DataError for a folder without images, MissingExtraError without scikit-learn for None.
    """
    if images is None:
        return _embedded()
    if not isinstance(images, str | Path):
        found = [(f"image {number}", image) for number, image in enumerate(images)]
    else:
        folder = Path(images)
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; expected one with images")
        files = sorted(path for path in folder.rglob("*") if is_image(path))
        found = [(path.name, read_image(path)) for path in files[:: max(1, -(-len(files) // MOST))]]
    if not found:
        raise DataError(f"{images} holds no images; expected at least one to compare on")
    return found


def _embedded() -> list[Named]:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        remedy = "for real images to compare on (or give a folder of your own: images=, --images)"
        raise MissingExtraError.of("scikit-learn", "export", remedy) from error
    photographs = load_sample_images()
    named = [
        (Path(name).name, Image.fromarray(a)) for name, a in zip(photographs.filenames, photographs.images, strict=True)
    ]
    scans = (load_digits().images[:DIGITS] * (255 / 16)).round().astype(np.uint8)
    return named + [(f"digit {number}", Image.fromarray(scan)) for number, scan in enumerate(scans)]


def for_classifier(images: Sequence[Named], preprocess: Preprocess) -> Iterator[tuple[str, np.ndarray]]:
    """Named batches (N, C, H, W) of preprocessed images."""
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        name = part[0][0] if len(part) == 1 else f"{part[0][0]} … {part[-1][0]}"
        yield name, np.stack([preprocess(image) for _, image in part])


def for_segmenter(images: Sequence[Named], inference: Inference) -> Iterator[tuple[str, np.ndarray]]:
    """Named batches (1, C, H, W): what a segmenter is shown of each image, the first window of those it cuts."""
    for name, image in images:
        seen = _Seen()
        predict_mask(seen, image, inference)
        yield name, seen.images[0]


class _Seen(nn.Module):
    """In a segmenter's place: keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[np.ndarray] = []

    def decode(self, images: Tensor) -> Tensor:
        self.images.append(images.numpy().copy())
        return torch.zeros(1, 1, 1, 1)
