"""timm's reader of WebDataset shards, which knows labels that are numbers, with label maps."""

from __future__ import annotations

import io
from typing import Any

import webdataset
from PIL import Image
from timm.data.readers.reader_wds import ReaderWds, log_and_continue

from ..errors import DataError


class MaskShards(ReaderWds):
    """Gives (image, label map) of every sample, both decoded and otherwise as stored."""

    pair: SamplePair

    def _lazy_init(self) -> None:
        super()._lazy_init()
        # the last two stages decode a sample and rename its entries
        self.ds.pipeline[-2:] = [webdataset.map(self.pair, handler=log_and_continue)]


class SamplePair:
    """The image and the label map in the bytes of a sample; of several keys the first that is there."""

    def __init__(self, image_keys: list[str], label_keys: list[str]) -> None:
        self.image_keys, self.label_keys = image_keys, label_keys

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {"image": self._of(sample, self.image_keys), "target": self._of(sample, self.label_keys)}

    @staticmethod
    def _of(sample: dict[str, Any], keys: list[str]) -> Image.Image:
        for key in keys:
            if key in sample:
                image = Image.open(io.BytesIO(sample[key]))
                image.load()
                return image
        raise DataError(
            f"sample {sample.get('__key__')} has none of the entries {', '.join(keys)}, but {', '.join(sample)}; set "
            "data.image_key and data.label_key"
        )


def give_masks(reader: ReaderWds, image_key: str, label_key: str) -> None:
    """Let a reader that was made for labels give label maps; keys: entries, several apart by ";"."""
    reader.__class__ = MaskShards
    reader.pair = SamplePair(image_key.split(";"), label_key.split(";"))
