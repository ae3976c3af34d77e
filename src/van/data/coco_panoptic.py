"""Panoptic segments of COCO files: images from a folder, segments from one JSON file and a folder of PNG maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.preprocess import read_image
from .coco_panoptic_file import PanopticFile
from .fingerprint import ANNOTATIONS, Fingerprint, fingerprint
from .image_files import ImageFiles
from .objects import Panoptic, PanopticData, Segment
from .problems import Problems


class CocoPanoptic(PanopticData):
    """The images of one split.

    file: what its JSON file holds; images: files of all its images; maps: the folder of their maps; chosen: places of
    the split's images among them; problems: what was passed over.
    """

    def __init__(
        self,
        file: PanopticFile,
        images: ImageFiles,
        maps: Path,
        split: str,
        chosen: np.ndarray,
        root: Path,
        problems: Problems,
    ) -> None:
        self.file, self.images, self.maps, self.chosen, self.problems = file, images, maps, chosen, problems
        self.split, self._root = split, root
        self.categories, self.classes, self.palette = file.categories, file.categories.names, file.palette

    def __len__(self) -> int:
        return len(self.chosen)

    def load(self, index: int) -> tuple[Image.Image, Panoptic]:
        image, map_ = self.image(index), self.segment_ids(index)
        path = self.map_path(index)
        if map_.shape != (image.height, image.width):
            raise DataError(
                f"map {path} has {map_.shape[1]} x {map_.shape[0]} pixels (width x height), its image {image.width} x "
                f"{image.height}; expected the same"
            )
        ids, counts = np.unique(map_, return_counts=True)
        pixels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        pixels.pop(0, None)
        segments = self.records(index)
        known = {each.id for each in segments}
        if unknown := [id_ for id_ in pixels if id_ not in known]:
            raise DataError(_disagreement(path, self.file.path, f"segment {unknown[0]}", "the map", "the JSON file"))
        if absent := [each.id for each in segments if each.id not in pixels]:
            raise DataError(_disagreement(path, self.file.path, f"segment {absent[0]}", "the JSON file", "the map"))
        found = tuple(
            Segment(id=each.id, label=each.label, area=pixels[each.id], crowd=each.crowd) for each in segments
        )
        return image, Panoptic(image_id=self.image_id(index), segment_ids=map_, segments=found)

    def image(self, index: int) -> Image.Image:
        """The RGB image; raises DataError as `ImageFiles.load`."""
        return self.images.load(int(self.chosen[index]))

    def segment_ids(self, index: int) -> np.ndarray:
        """The map as its file has it, (H, W) int32: R + 256 G + 65536 B; raises DataError for what is no RGB image."""
        path = self.map_path(index)
        map_ = read_image(path, exif=False)
        if map_.mode not in ("RGB", "RGBA"):
            raise DataError(
                f"map {path} is no RGB image (PIL mode {map_.mode}); expected segment ids as colours, "
                f"R + 256 G + 65536 B"
            )
        colors = np.asarray(map_)[..., :3].astype(np.int32)
        return colors[..., 0] | colors[..., 1] << 8 | colors[..., 2] << 16

    def records(self, index: int) -> tuple[Segment, ...]:
        """The segments as the JSON file has them; areas are -1 where it has none."""
        segments = self.file.segments
        rows = segments.rows(int(self.chosen[index]))
        columns = (segments.ids, segments.labels, segments.areas, segments.crowd)
        values = zip(*(column[rows].tolist() for column in columns), strict=True)
        return tuple(Segment(id=id_, label=label, area=area, crowd=crowd) for id_, label, area, crowd in values)

    def map_path(self, index: int) -> Path:
        """The file of an image's map."""
        return self.maps / self.file.maps[self.chosen[index]]

    def name(self, index: int) -> str:
        return str(self.images.path(int(self.chosen[index])))

    def key(self, index: int) -> str:
        return self.file.images.names[self.chosen[index]]

    def files(self, index: int) -> tuple[Path, ...]:
        return self.images.path(int(self.chosen[index])), self.map_path(index), self.file.path

    @property
    def root(self) -> Path | None:
        return self._root

    def image_id(self, index: int) -> int | str:
        return self.file.images.ids[self.chosen[index]]

    def fingerprint(self) -> Fingerprint:
        """Number and names of the images, and the segments of the JSON file."""
        names = (("images", self.key(index)) for index in range(len(self)))
        contents = ((ANNOTATIONS, self.file.segments.content(place).hex()) for place in self.chosen.tolist())
        return fingerprint(names) | fingerprint(contents)


def _disagreement(map_: Path, file: Path, what: str, here: str, not_there: str) -> str:
    return f"map {map_}: {what} is in {here} but not in {not_there} ({file.name}); the two must be of one export"
