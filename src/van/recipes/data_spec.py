"""Where the images are and how they are read, as data: what every task's section has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from .checks import at_least, one_of

STREAMS = ("wds", "hfids")
CHECKS = ("all", "none")


@dataclass(frozen=True, kw_only=True)
class BaseDataSpec:
    """The images, and how they are read.

    train_split, val_split: names of the parts; of shards also patterns, "train-{0000..0146}.tar". None: train and
    validation.
    train_images, val_images: how many a stream has, where its description does not say.
    image_key, label_key: names of the image and its label in a sample; None: the reader's own.
    shuffle_buffer: images a stream holds in memory to shuffle; None: timm's 8192 of shards, 4096 of Hugging Face's.
    check: whether every image of a folder is decoded before training, so that all that cannot be read are named at
    once; files that were whole are remembered. None: for up to five minutes; "all": however long it takes; "none":
    unreadable images show when they are met.
    prefetch: batches that every worker prepares ahead; None: 2.
    """

    # readers that a task can use, and what the images are without one
    READERS: ClassVar[tuple[str, ...]] = ()
    FILES: ClassVar[str] = "image folders"
    EMBEDDED: ClassVar[str | None] = None

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
    check: str | None = None
    val_fraction: float | None = None
    split_seed: int | None = None
    prefetch: int | None = None

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction is {self.val_fraction}; expected a fraction between 0 and 1, e.g. 0.2"
            )
        for name in ("train_images", "val_images", "shuffle_buffer", "prefetch"):
            at_least(f"data.{name}", getattr(self, name), 1)
        if self.check is not None:
            one_of("data.check", self.check, CHECKS)
        if self.reader is not None:
            one_of("data.reader", self.reader, self.READERS)
        self._check_reader()

    def _useless(self) -> dict[str, bool]:
        """Option -> whether the reader, or what there is without one, has no use for it."""
        reader = self.reader
        return {
            "val_fraction": reader is not None,
            "split_seed": reader is not None,
            "train_split": reader is None,
            "val_split": reader is None,
            "train_images": not self.streams,
            "shuffle_buffer": not self.streams,
            "check": reader is not None,
            "image_key": reader in (None, "tar"),
            "label_key": reader in (None, "tar"),
        }

    def _check_reader(self) -> None:
        what = self.FILES if self.reader is None else f"data.reader {self.reader}"
        for name, is_useless in self._useless().items():
            if is_useless and getattr(self, name) is not None:
                raise ConfigError(f"data.{name} has no effect on {what}; leave it out, or choose another data.reader")
        if self.reader is not None and self.embedded:
            raise ConfigError(f"data.reader {self.reader} cannot read the embedded {self.path}; leave it out")

    @property
    def streams(self) -> bool:
        """Whether images come in the order of a stream, without random access."""
        return self.reader in STREAMS

    @property
    def embedded(self) -> bool:
        """Whether the images are made in memory."""
        return self.path is not None and self.path == self.EMBEDDED
