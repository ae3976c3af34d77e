"""Where the images are and how they are read, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .checks import MAX_SIDE, at_least, one_of

STREAMS = ("wds", "hfids")
READERS = ("tar", "hfds", *STREAMS)
SAMPLINGS = ("balanced",)
CHECKS = ("all", "none")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The images, how they are read, and how evaluation sees them.

    path: "digits", a folder with train/ and val/, or one folder of class folders; must be given. With a reader: the
    folder of train/ and val/ tar files, of the WebDataset shards, or the name of a Hugging Face data set.
    reader: None for image folders; timm's "tar" (tar files of class folders), "wds" (WebDataset shards, streamed),
    "hfds" (a Hugging Face data set, downloaded) or "hfids" (the same, streamed).
    train_split, val_split: names of the parts; of shards also patterns, "train-{0000..0146}.tar". None: train and
    validation; of tar files train and val.
    train_images, val_images: how many a stream has, where its description does not say.
    image_key, label_key: names of the image and its label in a sample; None: the reader's own.
    shuffle_buffer: images a stream holds in memory to shuffle; None: timm's 8192 of shards, 4096 of Hugging Face's.
    classes: text file, a class per line in label order: the names of a stream's labels, or the class folders to use
    and their order.
    index: folder for the lists of image files, so that a data set of millions is not listed at every start.
    check: whether every image of a folder is decoded before training, so that all that cannot be read are named at
    once; files that were whole are remembered, see data.index. None: for up to five minutes; "all": however long it
    takes; "none": unreadable images show when they are met.
    sampling: which images an epoch draws; None: every one once; "balanced": equally many of every class, those of small
    classes several times, each time augmented differently; an epoch keeps its length.
    val_fraction, split_seed: of the split of a data set that has no val/ of its own (0.2 of every class, seed 0).
    prefetch: batches that every worker prepares ahead; None: 2.
    size, crop_pct, interpolation, mean, std, resize: fields of the Preprocess record (size in pixels, one number for
    a square); None keeps the checkpoint's, or the official 224, 0.9, bicubic, 0.5, 0.5, shortest.
    """

    path: str | None = None
    reader: str | None = None
    train_split: str | None = None
    val_split: str | None = None
    train_images: int | None = None
    val_images: int | None = None
    image_key: str | None = None
    label_key: str | None = None
    shuffle_buffer: int | None = None
    classes: str | None = None
    index: str | None = None
    check: str | None = None
    sampling: str | None = None
    val_fraction: float | None = None
    split_seed: int | None = None
    prefetch: int | None = None
    size: int | tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction is {self.val_fraction}; expected a fraction between 0 and 1, e.g. 0.2"
            )
        for name in ("train_images", "val_images", "shuffle_buffer", "prefetch"):
            at_least(f"data.{name}", getattr(self, name), 1)
        for side in self.size if isinstance(self.size, tuple) else (self.size,):
            at_least("data.size", side, 1, MAX_SIDE)
        if self.check is not None:
            one_of("data.check", self.check, CHECKS)
        if self.sampling is not None:
            one_of("data.sampling", self.sampling, SAMPLINGS)
        if self.reader is not None:
            one_of("data.reader", self.reader, READERS)
        self._check_reader()

    def _check_reader(self) -> None:
        """Options that the reader, or image folders, have no use for."""
        reader = self.reader
        useless = {
            "val_fraction": reader is not None,
            "split_seed": reader is not None,
            "index": reader is not None,
            "train_split": reader is None,
            "val_split": reader is None,
            "train_images": not self.streams,
            "val_images": not self.streams,
            "shuffle_buffer": not self.streams,
            "sampling": self.streams,
            "check": reader is not None,
            "image_key": reader in (None, "tar"),
            "label_key": reader in (None, "tar"),
        }
        what = "image folders" if reader is None else f"data.reader {reader}"
        for name, is_useless in useless.items():
            if is_useless and getattr(self, name) is not None:
                raise ConfigError(f"data.{name} has no effect on {what}; leave it out, or choose another data.reader")
        if reader is not None and self.path == "digits":
            raise ConfigError(f"data.reader {reader} cannot read the embedded digits; leave it out")
        if self.path == "digits" and (self.index or self.classes or self.check):
            raise ConfigError("data.index, classes and check belong to files; the embedded digits have none")

    @property
    def streams(self) -> bool:
        """Whether images come in the order of a stream, without random access."""
        return self.reader in STREAMS

    def preprocess_overrides(self) -> dict[str, Any]:
        """The fields of Preprocess; None where nothing is set."""
        names = ("size", "crop_pct", "interpolation", "mean", "std", "resize")
        return {name: getattr(self, name) for name in names}
