"""Images with a label for every pixel, under one interface.

H, W height and width of an image.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..images.palettes import Color
from ..images.preprocess import image_size, read_image, to_color, upright
from .labelled import LabelledData
from .layouts import Layout, Listing
from .masks import MaskRule, StoredMask, check_mask, read_mask


class SegmentationData(LabelledData[np.ndarray]):
    """RGB images with a label map (H, W) each, uint8 or uint16.

    palette: a colour per class. ignore_index: what pixels without a label hold in a label map; above every class.
    split: "train" or "val".
    """

    palette: tuple[Color, ...]
    ignore_index: int = 255
    split: str


class FolderSegmentation(SegmentationData):
    """Pairs of image and mask files of one split.

    layout: where they came from; listing: the pairs, and files without a partner. exif: see `image`.
    """

    def __init__(self, layout: Layout, listing: Listing, split: str, *, exif: bool = True) -> None:
        self.layout, self.listing, self.split, self.exif = layout, listing, split, exif
        self.classes, self.palette, self.ignore_index = layout.classes, layout.palette, layout.rule.ignore_index

    @property
    def rule(self) -> MaskRule:
        """What the stored values mean."""
        return self.layout.rule

    def __len__(self) -> int:
        return len(self.listing.pairs)

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        image, mask = self.image(index), self.stored(index)
        check_mask(self.listing.pairs[index][1], mask, image.size, self.rule)
        return image, mask.labels.astype(self.rule.dtype)

    def image(self, index: int) -> Image.Image:
        """The RGB image; raises DataError for an unreadable file.

        Turned as its EXIF orientation says, unless `exif` is False or its mask fits only the pixels as stored.
        """
        stored = read_image(self.listing.pairs[index][0], exif=False)
        turned = upright(stored) if self.exif else stored
        as_stored = turned.size != stored.size and image_size(self.listing.pairs[index][1]) == stored.size
        return to_color(stored if as_stored else turned, "RGB")

    def stored(self, index: int) -> StoredMask:
        """The mask as its file has it, unchecked; raises DataError for an unreadable file or unreadable colours."""
        return read_mask(self.listing.pairs[index][1], self.rule)

    def name(self, index: int) -> str:
        return str(self.listing.pairs[index][0])

    def files(self, index: int) -> tuple[Path, ...]:
        image, mask = self.listing.pairs[index]
        return image, mask

    @property
    def root(self) -> Path | None:
        return self.layout.root

    def key(self, index: int) -> str:
        return os.path.relpath(self.listing.pairs[index][0], self.layout.root)
