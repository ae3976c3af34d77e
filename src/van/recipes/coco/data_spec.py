"""The images of a recipe and their objects, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import ConfigError
from ..checks import MAX_SIDE, at_least, one_of
from ..data_spec import BaseDataSpec

SAMPLING = ("shuffled", "balanced")


@dataclass(frozen=True, kw_only=True)
class ObjectDataSpec(BaseDataSpec):
    """The images and their objects, and how they are read.

    path: "scenes", or a data set's folder or file; must be given.
    val_images: how many validation images the validations during training use, spread over all; None: every one.
    val_fraction, split_seed: of the split of a data set without a validation part.
    scene_size: side of the digit scenes in pixels; None: 64.
    """

    READERS: ClassVar[tuple[str, ...]] = ()
    FILES: ClassVar[str] = "annotated images in files"
    EMBEDDED: ClassVar[str | None] = "scenes"

    scene_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.scene_size", self.scene_size, 1, MAX_SIDE)
        if self.scene_size is not None and not self.embedded:
            raise ConfigError(f"data.scene_size belongs to the digit scenes, not to {self.path}; leave it out")
        if self.embedded:
            for name in ("check", "val_fraction", "split_seed"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"data.{name} belongs to files; the digit scenes have none: leave it out")

    def _useless(self) -> dict[str, bool]:
        return super()._useless() | {"classes": True}


@dataclass(frozen=True, kw_only=True)
class SampledDataSpec(ObjectDataSpec):
    """The images and their objects, and how they are read.

    sampling: "shuffled" uses every image once in an epoch; "balanced" draws each class equally often, an image counting
    for the rarest class in it.
    group_shapes: the images of a batch are all wide or all tall, so that less of it is padding.
    """

    sampling: str = "shuffled"
    group_shapes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.sampling", self.sampling, SAMPLING)
        if self.group_shapes and self.embedded:
            raise ConfigError("data.group_shapes has no effect on the digit scenes, which are squares; leave it out")
