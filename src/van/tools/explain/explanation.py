"""What an explanation holds, draws and saves.

Shapes: H, W of the image; h, w of the map of a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import ConfigError
from ...files import atomic_outputs
from ...tasks.base import WholeView
from .colors import colored
from .placing import in_image, pixel_box

UNSEEN = 0.35  # brightness of what the network did not see
SMALLEST = 256  # long side, in pixels, of pictures in files


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Where an answer comes from.

    name: of the image. image: RGB, as people see it, turned by its EXIF orientation. box: left, top, right, bottom of
    what the network sees of it, in its pixels; a classifier's centre crop leaves the rest out.
    label, target: name and index of the class that is explained. predicted: index of the network's own answer.
    score: what the class got: a logit, or by the task the best score of an object.
    cam_map: Grad-CAM, (h, w) of the last stage, float32, not negative, in units of the score.
    cam: the same at the size of the image, (H, W) float32, 0 … 1, where 1 is the largest value of cam_map.
    stages: numbers of the stages, from 1, that `attention` and `attention_mean` have one entry for.
    attention: maps of large kernel attention, (h, w) float32 each, 0 … 1: `attention_mean` stretched.
    attention_mean: the attention of the stage's last block, mean over its channels, (h, w) float32.
    """

    name: str
    image: Image.Image
    box: tuple[float, float, float, float]
    label: str
    target: int
    predicted: int
    score: float
    cam_map: np.ndarray
    cam: np.ndarray
    stages: tuple[int, ...]
    attention: tuple[np.ndarray, ...]
    attention_mean: tuple[np.ndarray, ...]
    view: WholeView = field(repr=False)
    strides: tuple[int, ...] = field(repr=False)

    def __repr__(self) -> str:
        return f"Explanation({self.name!r}, {self.label!r}, stages={self.stages})"

    def draw_cam(self, opacity: float = 0.5) -> Image.Image:
        """The image under the colours of `cam`, RGB; raises ConfigError for an opacity outside 0 … 1."""
        return self._drawn(self.cam, opacity)

    def draw_attention(self, stage: int, opacity: float = 0.5) -> Image.Image:
        """The image under the colours of a stage's attention, RGB.

        Raises ConfigError for a stage, numbered from 1, that is not in `stages`, and for an opacity outside 0 … 1.
        """
        return self._drawn(self.attention_in_image(stage), opacity)

    def attention_in_image(self, stage: int) -> np.ndarray:
        """A stage's attention at the size of the image: (H, W) float32, 0 … 1, 0 where the network sees nothing."""
        if stage not in self.stages:
            known = ", ".join(map(str, self.stages))
            raise ConfigError(f"there is no attention of stage {stage!r:.40} in this explanation; it has {known}")
        index = self.stages.index(stage)
        return in_image(self.attention[index], self.strides[index], self.view)

    def save(self, folder: str | Path, *, opacity: float = 0.5) -> list[Path]:
        """Write cam.png, attention_stage1.png … and explanation.npz into a folder, made where it is missing.

        Pictures of less than 256 pixels are enlarged by a whole factor. Each file appears whole or not at all, and all
        are complete before the first one takes its place.
        explanation.npz: `cam`, `cam_map`, `attention_stage1` …, `attention_mean_stage1` …, shaped as the fields of this
        class, and `target`, `predicted`, `score`, `box`. Returns the paths.
        Raises ConfigError where they cannot be written.
        """
        folder = Path(folder)
        pictures: dict[str, Callable[[], Image.Image]] = {"cam.png": partial(self.draw_cam, opacity)}
        for stage in self.stages:
            pictures[f"attention_stage{stage}.png"] = partial(self.draw_attention, stage, opacity)
        make_folder(folder)
        paths = [folder / name for name in (*pictures, "explanation.npz")]
        with atomic_outputs(*paths) as temporary:
            for path, draw in zip(temporary, pictures.values(), strict=False):
                _enlarged(draw()).save(path, "PNG")
            arrays: dict[str, Any] = self.arrays()  # Any: numpy's own options would need other types
            np.savez_compressed(temporary[-1], **arrays)
        return paths

    def arrays(self) -> dict[str, np.ndarray]:
        """What explanation.npz holds, by name."""
        maps = {f"attention_stage{stage}": each for stage, each in zip(self.stages, self.attention, strict=True)}
        means = {
            f"attention_mean_stage{stage}": each for stage, each in zip(self.stages, self.attention_mean, strict=True)
        }
        facts = {name: np.array(getattr(self, name)) for name in ("target", "predicted", "score", "box")}
        return {"cam": self.cam, "cam_map": self.cam_map, **maps, **means, **facts}

    def _drawn(self, values: np.ndarray, opacity: float) -> Image.Image:
        check_opacity(opacity)
        box = pixel_box(self.box, self.image.size)
        picture = Image.blend(Image.new("RGB", self.image.size), self.image, UNSEEN)
        seen, colors = self.image.crop(box), colored(values[box[1] : box[3], box[0] : box[2]])
        picture.paste(Image.blend(seen.convert("L").convert("RGB"), colors, opacity), box)
        return picture


def check_opacity(opacity: float) -> None:
    """Raises ConfigError outside 0 … 1."""
    number = isinstance(opacity, int | float) and not isinstance(opacity, bool)
    if not number or not 0 <= opacity <= 1:
        raise ConfigError(f"opacity is {opacity!r:.40}; expected a number from 0, the image alone, to 1, the map alone")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises ConfigError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror or error}; choose another") from error


def _enlarged(picture: Image.Image) -> Image.Image:
    """A small picture in whole multiples, so that it can be seen; others as they are."""
    factor = max(1, -(-SMALLEST // max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
