"""Where a classifier's images are and how they are read, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ..checks import MAX_SIDE, at_least, one_of
from ..data_spec import STREAMS, BaseDataSpec

SAMPLINGS = ("balanced",)


@dataclass(frozen=True, kw_only=True)
class DataSpec(BaseDataSpec):
    """The images, how they are read, and how evaluation sees them.

    path: "digits", a folder with train/ and val/, or one folder of class folders; must be given. With a reader: the
    folder of train/ and val/ tar files, of the WebDataset shards, or the name of a Hugging Face data set.
    reader: None for image folders; timm's "tar" (tar files of class folders), "wds" (WebDataset shards, streamed),
    "hfds" (a Hugging Face data set, downloaded) or "hfids" (the same, streamed).
    train_split, val_split: names of the parts; of shards also patterns, "train-{0000..0146}.tar". None: train and
    validation; of tar files train and val.
    classes: text file, a class per line in label order: the names of a stream's labels, or the class folders to use
    and their order.
    index: folder for the lists of image files, so that a data set of millions is not listed at every start.
    check: whether every image of a folder is decoded before training, so that all that cannot be read are named at
    once; files that were whole are remembered, see data.index. None: for up to five minutes; "all": however long it
    takes; "none": unreadable images show when they are met.
    sampling: which images an epoch draws; None: every one once; "balanced": equally many of every class, those of small
    classes several times, each time augmented differently; an epoch keeps its length.
    val_fraction, split_seed: of the split of a data set that has no val/ of its own (0.2 of every class, seed 0).
    size, crop_pct, interpolation, mean, std, resize: fields of the Preprocess record (size in pixels, one number for
    a square); None keeps the checkpoint's, or the official 224, 0.9, bicubic, 0.5, 0.5, shortest.
    """

    READERS = ("tar", "hfds", *STREAMS)
    EMBEDDED = "digits"

    index: str | None = None
    sampling: str | None = None
    size: int | tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in self.size if isinstance(self.size, tuple) else (self.size,):
            at_least("data.size", side, 1, MAX_SIDE)
        if self.sampling is not None:
            one_of("data.sampling", self.sampling, SAMPLINGS)
        if self.embedded and (self.index or self.classes or self.check):
            raise ConfigError("data.index, classes and check belong to files; the embedded digits have none")

    def _useless(self) -> dict[str, bool]:
        own = {"index": self.reader is not None, "val_images": not self.streams, "sampling": self.streams}
        return super()._useless() | own

    def preprocess_overrides(self) -> dict[str, Any]:
        """The fields of Preprocess; None where nothing is set."""
        names = ("size", "crop_pct", "interpolation", "mean", "std", "resize")
        return {name: getattr(self, name) for name in names}
