"""What a mask file says: the stored values, and the class of every pixel.

H, W height and width; stored values are indices, or colours packed as 0xRRGGBB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ConfigError, DataError
from ..images.palettes import Color
from ..images.preprocess import read_image

# Lossy formats are left out on purpose: they invent label values along every border.
MASK_SUFFIXES = frozenset((".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"))
UNKNOWN = -1
_TABLE_SIZE = 2**16
_ONE_CHANNEL = ("1", "L", "P", "PA", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """How the values stored in a mask become classes 0 … num_classes - 1.

    ignore_index: stored for pixels without a label, and what they are in a label map; above every class.
    reduce_zero_label: 0 is no label and classes are stored as 1 … num_classes (ADE20K).
    values: stored value -> class (or ignore_index), instead of the identity.
    colors: colour of each class, for masks saved as RGB; None: such masks are an error.
    by_color: palette images are read by their colours too, not by their indices (for programs that number at will).
    ignore_colors: colours without a label.
    Raises ConfigError for fields that contradict each other.
    """

    num_classes: int
    ignore_index: int = 255
    reduce_zero_label: bool = False
    values: Mapping[int, int] | None = None
    colors: Sequence[Color] | None = None
    ignore_colors: Sequence[Color] = ()
    by_color: bool = False

    def __post_init__(self) -> None:
        highest = self.num_classes - (not self.reduce_zero_label)
        if not highest < self.ignore_index < _TABLE_SIZE:
            raise ConfigError(
                f"ignore_index is {self.ignore_index}, but masks store the {self.num_classes} classes up to {highest}; "
                f"choose one above (255 or 65535), or reduce_zero_label when 0 means no label"
            )
        if self.values is not None and self.reduce_zero_label:
            raise ConfigError("values and reduce_zero_label are both given; use values alone, which can map 0 as well")
        if self.by_color and not self.colors:
            raise ConfigError("by_color is set without a palette; give each class its colour")
        for stored, label in (self.values or {}).items():
            if not (0 <= stored < _TABLE_SIZE and (0 <= label < self.num_classes or label == self.ignore_index)):
                known = f"a class 0 … {self.num_classes - 1} or {self.ignore_index}"
                raise ConfigError(f"values maps {stored} to {label}; expected a stored value and {known}")

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Of label maps: uint8 where it suffices, else uint16."""
        return np.uint8 if self.ignore_index < 256 else np.uint16

    @property
    def stored(self) -> str:
        """The values a mask may hold, in words."""
        if self.values is not None:
            text = f"{len(self.values)} listed values"
        else:
            first = int(self.reduce_zero_label)
            text = f"{self.num_classes} classes {first} … {self.num_classes - 1 + first}"
        return f"{text} ({'0 and ' if self.reduce_zero_label else ''}{self.ignore_index} ignored)"

    @cached_property
    def table(self) -> np.ndarray:
        """Class of every stored index, UNKNOWN for the others: (65536,) int32."""
        table = np.full(_TABLE_SIZE, UNKNOWN, np.int32)
        table[self.ignore_index] = self.ignore_index
        if self.values is not None:
            for stored, label in self.values.items():
                table[stored] = label
            return table
        first = int(self.reduce_zero_label)
        table[:first] = self.ignore_index
        table[first : first + self.num_classes] = np.arange(self.num_classes)
        return table

    @cached_property
    def color_table(self) -> dict[int, int]:
        """Class of every packed colour; raises DataError when two classes share one."""
        table: dict[int, int] = {}
        for label, color in enumerate(self.colors or ()):
            if pack(color) in table:
                raise DataError(
                    f"classes {table[pack(color)]} and {label} share the colour {color}, so RGB masks cannot be read; "
                    f"give each class its own colour, or store class indices"
                )
            table[pack(color)] = label
        for color in self.ignore_colors:
            table.setdefault(pack(color), self.ignore_index)
        if self.reduce_zero_label:
            table.setdefault(0, self.ignore_index)
        return table


@dataclass(frozen=True)
class StoredMask:
    """A mask file: `values` as stored and `labels` (UNKNOWN where no class fits), both (H, W) int32.

    kind: "index", "palette" or "color".
    disputed: the colours of a palette image name classes too, but other ones than its indices.
    """

    values: np.ndarray
    labels: np.ndarray
    kind: str
    disputed: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as PIL says it."""
        return self.values.shape[1], self.values.shape[0]

    def unknown(self) -> dict[int, int]:
        """Stored values that are no class, and their pixels; the most frequent first."""
        values, counts = np.unique(self.values[self.labels == UNKNOWN], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {int(values[i]): int(counts[i]) for i in order}


def read_mask(path: str | Path, rule: MaskRule) -> StoredMask:
    """The mask as stored, and its classes; values that are no class are marked, not raised.

    Raises DataError for a file that cannot be decoded, and for an RGB mask when the rule knows no colours.
    """
    image = read_image(path)
    if image.mode == "P" and rule.by_color:
        image = image.convert("RGB")
    if image.mode in _ONE_CHANNEL:
        values = _indices(image, Path(path))
        labels = rule.table[np.where(values < _TABLE_SIZE, values, _TABLE_SIZE - 1)]
        labels[(values < 0) | (values >= _TABLE_SIZE)] = UNKNOWN
        if image.mode != "P":
            return StoredMask(values, labels, "index")
        return StoredMask(values, labels, "palette", _disputed(image, values, rule))
    if rule.colors is None:
        raise DataError(
            f"mask {path} is a colour image (PIL mode {image.mode}); expected one class index per pixel. Was a "
            f"palette image read as RGB and saved? Save indices, or list the colours as palette in a dataset.yaml"
        )
    pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    values = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    used, inverse = np.unique(values, return_inverse=True)
    classes = np.array([rule.color_table.get(int(value), UNKNOWN) for value in used], np.int32)
    return StoredMask(values, classes[inverse].reshape(values.shape), "color")


def check_mask(path: str | Path, mask: StoredMask, image_size: tuple[int, int], rule: MaskRule) -> None:
    """Raises DataError when the mask has another size than its image, or holds values outside the classes."""
    if mask.size != image_size:
        (width, height), (w, h) = image_size, mask.size
        turned = (
            "; width and height are swapped: apply the image's EXIF orientation" if (w, h) == (height, width) else ""
        )
        raise DataError(
            f"mask {path} has {w} x {h} pixels, its image {width} x {height}{turned or '; expected the same'}"
        )
    unknown = mask.unknown()
    if unknown:
        shown = ", ".join(f"{show(v, mask.kind)} on {count} pixel(s)" for v, count in list(unknown.items())[:5])
        more = f", … ({len(unknown)} values in all)" if len(unknown) > 5 else ""
        expected = f"{len(rule.colors or ())} palette colours" if mask.kind == "color" else rule.stored
        raise DataError(
            f"mask {path} holds {shown}{more}; expected the {expected}; fix the mask or the list of classes "
            f"(van doctor checks the whole data set)"
        )


def pack(color: Sequence[int]) -> int:
    """(R, G, B) as one number."""
    return int(color[0]) << 16 | int(color[1]) << 8 | int(color[2])


def show(value: int, kind: str) -> str:
    """A stored value in words: `value 7`, `colour (0, 0, 255)`."""
    if kind != "color":
        return f"value {value}"
    return f"colour ({value >> 16}, {value >> 8 & 255}, {value & 255})"


def _indices(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    values = np.asarray(image).astype(np.int32)
    if image.mode == "L":
        # PIL stretches 2- and 4-bit grey to 0 … 255; indices need the stored numbers
        values //= {2: 85, 4: 17}.get(_png_bits(path), 1)
    return values


def _png_bits(path: Path) -> int:
    """Bits per sample of a PNG file, 8 for every other file."""
    with path.open("rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") and len(head) == 25 else 8


def _disputed(image: Image.Image, values: np.ndarray, rule: MaskRule) -> bool:
    if rule.colors is None or len(set(rule.colors)) < len(rule.colors):
        return False
    embedded = (image.getpalette() or []) + [0] * 768
    used = np.bincount(values.ravel(), minlength=256).nonzero()[0].tolist()
    by_color = [rule.color_table.get(pack(embedded[3 * i : 3 * i + 3]), UNKNOWN) for i in used]
    return UNKNOWN not in by_color and by_color != rule.table[used].tolist()
