"""What one split of a data set holds, in figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Observation = TypeVar("Observation", contravariant=True)


@dataclass(kw_only=True)
class SplitStatistics(ABC, Generic[Observation]):
    """What one split holds.

    total, seen: images there are, and how many of them were read. sizes: images by (width, height) in pixels.
    copies: names of the images with the same content, by a digest of it.
    """

    total: int = 0
    seen: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    copies: dict[bytes, list[str]] = field(default_factory=dict)

    @abstractmethod
    def add(self, observation: Observation) -> None:
        """Take in what was read of one image."""

    @property
    @abstractmethod
    def kinds(self) -> str:
        """What kinds of files were read, in words."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; figures per class are in the report's table."""

    @property
    def summary(self) -> str:
        """The split on one line; no sizes where no image could be read."""
        return f"{self.total} images{self._extent()}; {self.kinds}"

    def _extent(self) -> str:
        if not self.sizes:
            return ""
        narrow, wide = min(self.sizes), max(self.sizes)
        return f" of {narrow[0]} x {narrow[1]}" + ("" if narrow == wide else f" … {wide[0]} x {wide[1]}") + " pixels"

    def sizes_as_dict(self) -> dict[str, Any]:
        """JSON-ready: how many different sizes there are, the narrowest and the widest."""
        narrow, wide = (min(self.sizes), max(self.sizes)) if self.sizes else ((0, 0), (0, 0))
        return {"count": len(self.sizes), "narrowest": list(narrow), "widest": list(wide)}
