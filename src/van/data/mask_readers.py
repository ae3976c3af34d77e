"""Images with label maps through timm's readers: WebDataset shards and Hugging Face data sets.

A label map is an image that stores the number of the class, 255 where nothing is known.

H, W height and width of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError
from ..images.palettes import Color
from ..images.preprocess import read_image, to_color, upright
from ..recipes.data_spec import BaseDataSpec
from .fingerprint import Fingerprint
from .labelled_pixels import SegmentationData
from .masks import MaskRule
from .readers import DEFAULT_SPLITS, create_reader, read_classes
from .streams import StreamData

# Entries of a sample: of the image, of its label map.
_KEYS = {
    "wds": ("jpg;png;webp", "mask.png;seg.png;png"),
    "hfds": ("image", "annotation"),
    "hfids": ("image", "annotation"),
}


class MaskDecoder:
    """An image and its label map, as a reader gives them, to an RGB image and a label map (H, W)."""

    def __init__(self, rule: MaskRule, source: str) -> None:
        self.rule, self.source = rule, source

    def __call__(self, image: Any, mask: Any) -> tuple[Image.Image, np.ndarray]:
        """Raises DataError for a label map of another size, and for values that are no class."""
        if not isinstance(mask, Image.Image):
            raise DataError(
                f"{self.source}: a label map is {type(mask).__name__}; expected an image, see data.label_key"
            )
        turned = upright(image)
        image = image if turned.size != mask.size == image.size else turned
        values = np.asarray(mask)
        if values.ndim != 2 or mask.size != image.size:
            raise DataError(
                f"{self.source}: an image of {image.size[0]} x {image.size[1]} has a label map of {mask.size[0]} x "
                f"{mask.size[1]}, mode {mask.mode}; expected one value per pixel"
            )
        wrong = np.setdiff1d(values, [*range(self.rule.num_classes), self.rule.ignore_index])
        if len(wrong):
            raise DataError(
                f"{self.source}: a label map holds {wrong[0]}; expected classes 0 to {self.rule.num_classes - 1}, or "
                f"{self.rule.ignore_index} where nothing is known"
            )
        return to_color(image, "RGB"), values.astype(self.rule.dtype)


class ReaderMasks(SegmentationData):
    """Images and label maps of a Hugging Face data set with random access."""

    def __init__(self, reader: Any, classes: tuple[str, ...], source: str, split: str) -> None:
        self.reader, self.classes, self.source, self.split = reader, classes, source, split
        self.palette, self.rule = _palette(classes), MaskRule(num_classes=len(classes))
        self.decoded = MaskDecoder(self.rule, source)

    def __len__(self) -> int:
        return len(self.reader)

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        try:
            file, mask = self.reader[index]
            return self.decoded(read_image(file, exif=False), mask)
        except Exception as error:  # every library has its own
            raise DataError(f"cannot read {self.name(index)}: {error}") from error

    def name(self, index: int) -> str:
        return f"{self.source}/{index}"

    def fingerprint(self) -> Fingerprint:
        """How many images there are; reading their names would read the images."""
        return {"images": [len(self), ""]}


class MaskStream(StreamData):
    """One part of a data set of images with label maps that is read in order."""

    def __init__(self, reader: Any, classes: tuple[str, ...], source: str) -> None:
        self.palette, self.rule = _palette(classes), MaskRule(num_classes=len(classes))
        super().__init__(reader, classes, source, decoded=MaskDecoder(self.rule, source))

    @property
    def ignore_index(self) -> int:
        """What pixels without a label hold."""
        return self.rule.ignore_index


def open_mask_reader(spec: BaseDataSpec, split: str, *, seed: int, batch_size: int) -> ReaderMasks | MaskStream:
    """One part, "train" or "val", of a data set with a reader.

    Raises MissingExtraError, DataError for what cannot be read, ConfigError for a stream of unknown length.
    """
    assert spec.reader is not None
    assert spec.classes is not None
    part = getattr(spec, f"{split}_split") or DEFAULT_SPLITS[split]
    own = _KEYS[spec.reader]
    image_key, label_key = spec.image_key or own[0], spec.label_key or own[1]
    options: dict[str, Any] = {"input_key": image_key}
    if spec.reader != "wds":
        options["target_key"] = label_key
    if spec.streams:
        options |= {"is_training": split == "train", "batch_size": batch_size, "seed": seed}
        options |= {"num_samples": getattr(spec, f"{split}_images")}
        options |= {"sample_shuffle_size" if spec.reader == "wds" else "shuffle_size": spec.shuffle_buffer}
    reader = create_reader(spec, part, {name: value for name, value in options.items() if value is not None})
    source, classes = f"{spec.path} ({part})", read_classes(spec.classes)
    if not spec.streams:
        return ReaderMasks(reader, classes, source, split)
    if split == "val" and not reader.num_samples:
        raise ConfigError(f"{source} does not say how many images it has; give data.val_images")
    if spec.reader == "wds":
        from .mask_shards import give_masks

        give_masks(reader, image_key, label_key)
    return MaskStream(reader, classes, source)


def _palette(classes: tuple[str, ...]) -> tuple[Color, ...]:
    from ..images.label_maps import default_palette

    return default_palette(len(classes))
