"""At what sizes an image is seen, and whether mirrored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import ConfigError

MOST = 2**10  # of a factor


@dataclass(frozen=True, kw_only=True)
class Views:
    """scales: factors on the size that images are resized to. flip: every scale also mirrored.

    Raises ConfigError for factors that cannot be.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        right = all(isinstance(each, int | float) and 0 < each < MOST and math.isfinite(each) for each in self.scales)
        if not self.scales or not right:
            raise ConfigError(f"scales is {self.scales!r:.80}; expected positive factors, e.g. (0.5, 1.0, 1.5)")

    def __iter__(self) -> Iterator[tuple[float, bool]]:
        """(scale, mirrored) of every view."""
        return iter([(scale, mirrored) for scale in self.scales for mirrored in (False, True)[: 1 + self.flip]])

    def __len__(self) -> int:
        return len(self.scales) * (1 + self.flip)
