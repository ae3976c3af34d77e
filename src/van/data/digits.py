"""The embedded data set: scikit-learn's 1,797 real scans of handwritten digits, 8 x 8 pixels, no download.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI), as shipped inside scikit-learn.
"""

from __future__ import annotations

from PIL import Image

from ..errors import MissingExtraError
from .labelled_images import ClassificationData
from .split import VAL_FRACTION, stratified_split


class Digits(ClassificationData):
    """One split of the digits as 8 x 8 greyscale images; classes "0" … "9".

    The split is stratified and fixed by `seed` (0 is the one all figures of this package use).
    Raises MissingExtraError without scikit-learn.
    """

    def __init__(self, split: str = "val", *, seed: int = 0, val_fraction: float = VAL_FRACTION) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingExtraError.of("scikit-learn", "train", "for the embedded digits") from error
        scans = load_digits()
        train, val = stratified_split(scans.target.tolist(), seed=seed, val_fraction=val_fraction)
        indices = {"train": train, "val": val, "all": sorted(train + val)}[split]
        self.classes = tuple(str(name) for name in scans.target_names)
        self.labels = tuple(int(label) for label in scans.target[indices])
        # The scans count ink in 0 … 16; an image has 0 … 255.
        self.pixels = (scans.images[indices] * (255 / 16)).round().astype("uint8")  # (N, 8, 8)
        self.split = split

    def load(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]

    def name(self, index: int) -> str:
        return f"digits/{self.split}/{index}"
