"""What one split of a folder of labelled images holds, in figures.

K classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .split_statistics import SplitStatistics


@dataclass(frozen=True, slots=True)
class ImageRead:
    """One image file: class, digest of its bytes, (width, height), PIL mode; what is wrong when it is unreadable."""

    path: str
    label: int
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    transparent: bool = False
    trouble: str = ""


@dataclass(kw_only=True)
class ClassFolderStatistics(SplitStatistics[ImageRead]):
    """What one split of a folder of labelled images holds.

    classes: its class folders; per_class: image files of each class, (K,) in that order; images: those that were read.
    others: files that are no images, and the first of them; only_folders: classes without an image of their own.
    """

    classes: tuple[str, ...]
    per_class: tuple[int, ...]
    images: list[ImageRead] = field(default_factory=list)
    others: int = 0
    first_other: str = ""
    only_folders: tuple[str, ...] = ()

    def add(self, observation: ImageRead) -> None:
        self.images.append(observation)
        if not observation.trouble:
            self.sizes[observation.size] += 1
            self.copies.setdefault(observation.digest, []).append(observation.path)

    @property
    def readable(self) -> list[ImageRead]:
        """Images that could be decoded."""
        return [each for each in self.images if not each.trouble]

    @property
    def unreadable(self) -> list[ImageRead]:
        """Files that could not."""
        return [each for each in self.images if each.trouble]

    @property
    def modes(self) -> Counter[str]:
        """Images by PIL mode."""
        return Counter(each.mode for each in self.readable)

    @property
    def kinds(self) -> str:
        return ", ".join(f"{count} {mode}" for mode, count in self.modes.most_common()) or "none was read"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; every unreadable file is named."""
        return {
            "total": self.total,
            "seen": self.seen,
            "images": dict(zip(self.classes, self.per_class, strict=True)),
            "unreadable": [{"path": each.path, "reason": each.trouble} for each in self.unreadable],
            "not_images": self.others,
            "modes": dict(self.modes),
            "sizes": self.sizes_as_dict(),
        }
