"""Objects of COCO files: images from a folder, boxes and masks from one JSON file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..images.rle import Rle
from .coco_file import CocoFile
from .image_files import ImageFiles
from .object_table import mask_of, objects_of
from .objects import Objects
from .problems import Problems
from .table_objects import TableObjects


class CocoObjects(TableObjects):
    """The images of one split.

    file: what its JSON file holds; images: files of all its images; chosen: places of the split's images among them.
    """

    def __init__(
        self,
        file: CocoFile,
        images: ImageFiles,
        split: str,
        chosen: np.ndarray,
        root: Path,
        problems: Problems,
        *,
        need_masks: bool = False,
    ) -> None:
        self.file, self.images = file, images
        self.categories, self.classes, self.palette = file.categories, file.categories.names, file.palette
        super().__init__(
            file.table,
            chosen,
            split,
            root=root,
            source=file.path,
            problems=problems,
            need_masks=need_masks,
        )

    def image(self, index: int) -> Image.Image:
        return self.images.load(int(self.chosen[index]))

    def objects(self, index: int, size: tuple[int, int]) -> Objects:
        place = int(self.chosen[index])
        return objects_of(
            self.table,
            place,
            size=size,
            image_id=self.file.images.ids[place],
            masks=self.has_masks,
            source=str(self.source),
        )

    def mask(self, index: int, place: int, size: tuple[int, int]) -> Rle | None:
        row = self.table.rows(int(self.chosen[index])).start + place
        return mask_of(self.table, row, size, str(self.source)) if self.table.holds_mask(row) else None

    def annotation(self, row: int) -> str:
        return f"annotation {self.table.ids[row]}"

    def name(self, index: int) -> str:
        return str(self.images.path(int(self.chosen[index])))

    def key(self, index: int) -> str:
        return self.file.images.names[self.chosen[index]]

    def files(self, index: int) -> tuple[Path, ...]:
        return self.images.path(int(self.chosen[index])), self.file.path

    def sizes(self) -> np.ndarray | None:
        sizes = self.file.images.sizes[self.chosen]
        return sizes if sizes.all() else None

    def image_id(self, index: int) -> int | str:
        return self.file.images.ids[self.chosen[index]]
