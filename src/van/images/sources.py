"""Images wherever they are: paths, encoded bytes, open files, PIL images, pixels of numpy and torch."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import DataError
from .preprocess import read_image, upright

if TYPE_CHECKING:
    from torch import Tensor

    # A path, encoded bytes, an open file, a PIL image, or uint8 pixels.
    Picture = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor

EXPECTED = (
    "a path, the bytes of an image file, an open file, a PIL image, or uint8 pixels: numpy (H, W), (H, W, 3), torch "
    "(H, W), (3, H, W)"
)
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:image/")


@dataclass(frozen=True)
class ImageSource:
    """Where an image comes from, to be read now and, for pictures of results, again.

    name: the path, or a description of an image in memory. exif: turned as its EXIF orientation says.
    """

    content: Picture = field(repr=False)
    name: str
    exif: bool = True

    def open(self) -> Image.Image:
        """The decoded image; raises DataError for one that cannot be used."""
        if hasattr(self.content, "seek") and not isinstance(self.content, Image.Image):
            return self._again(self.content)
        return open_picture(self.content, self.exif)

    def _again(self, file: Any) -> Image.Image:
        try:
            start = vars(self).setdefault("_start", file.tell())  # of the first read; later ones begin there again
            file.seek(start)
        except (OSError, ValueError):  # a pipe can be read once, a closed file never
            pass
        return open_picture(file, self.exif)


def source_of(picture: Picture, number: int, *, exif: bool = True) -> ImageSource:
    """The source of an image; number: what to call one without a name by."""
    return ImageSource(picture, name_of(picture, number), exif)


def name_of(picture: Picture, number: int) -> str:
    """The path of an image, or `image 3`."""
    if isinstance(picture, str | Path):
        return str(picture)
    name = getattr(picture, "filename", None) or getattr(picture, "name", None)  # of PIL images and open files
    return name if isinstance(name, str) else f"image {number}"


def open_picture(image: Picture, exif: bool = True) -> Image.Image:
    """The decoded image in its own mode; raises DataError for one that cannot be used."""
    if isinstance(image, Image.Image):
        return upright(image) if exif else image
    if isinstance(image, str) and (found := URL.match(image)):
        raise DataError(f"{image} is an address ({found[0]}…); download it first, and give the file or its bytes")
    if isinstance(image, str | Path):
        return read_image(image, exif=exif)
    if isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read"):
        encoded: Any = image if hasattr(image, "read") else io.BytesIO(image)
        return read_image(encoded, exif=exif)
    if isinstance(image, np.ndarray):
        return _from_pixels(image, f"an array of {image.dtype}", tensor=False)
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(image, torch.Tensor):
        return _from_pixels(image.detach().cpu().numpy(), f"a tensor of {_dtype(image)}", tensor=True)
    raise DataError(f"got an image of type {type(image).__name__}; expected {EXPECTED}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _from_pixels(array: np.ndarray, what: str, *, tensor: bool) -> Image.Image:
    """uint8 (H, W[, C]) of numpy, ([C,] H, W) of torch; raises DataError with the remedy for other types and shapes."""
    kind = f"{what} with shape {array.shape}"
    if array.ndim == 4:
        raise DataError(f"got {kind}; expected uint8 pixels of one image; give several as a list: list(images)")
    if array.dtype != np.uint8:
        scale = ", as (255 * image).round() where values are 0 … 1" if array.dtype.kind == "f" else ""
        raise DataError(
            f"got {kind}; expected uint8 pixels, 0 … 255{scale}: the checkpoint's own preprocessing follows"
        )
    if array.ndim == 3 and tensor:
        array = array.transpose(1, 2, 0)
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        expected = "(H, W), (1, H, W), (3, H, W)" if tensor else "(H, W), (H, W, 1), (H, W, 3), (H, W, 4)"
        raise DataError(f"got {kind}; expected uint8 pixels {expected}")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and channels == 1 else array))
