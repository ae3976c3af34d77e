"""What the configurations of all models that find objects share: pure data, stdlib only.

A task has a base class here; every method has a class of its own on it, with its own fields (`configs.retinanet`, …).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError, with_article
from .backbone import VanConfig, check_number
from .backbone import name_of as backbone_name_of
from .head_config import HeadConfig

_SIZES = ("num_classes", "min_size", "max_size", "detections_per_image")
_MOST, _MOST_LAYERS = 2**16, 64  # a file that asks for more is no model's


@dataclass(frozen=True, kw_only=True)
class ObjectConfig(HeadConfig):
    """A backbone, a method, and what images and their objects look like.

    Fields are checked on construction; impossible ones raise ConfigError.

    prefix: what the names of the method's models begin with.
    size_divisor: the sides of what the network gets are multiples of it; images are padded at the right and bottom.
    stretched: images become squares of `min_size`, whatever their shape; `max_size` plays no part then.
    selects: the network itself leaves out objects below `score_threshold` and beyond `detections_per_image`, so that
        whoever runs it can only be stricter.
    backbone: its `num_classes` is 0; `num_classes` of the model is below.
    num_classes: kinds of objects, background not counted (of panoptic models: things and stuff).
    min_size, max_size: images are resized to a short side of `min_size` unless the long one would pass `max_size`.
    mean, std: of the images on the 0 … 1 scale.
    score_threshold, detections_per_image: of what inference gives: objects at or above it, and at most so many.
    """

    prefix: ClassVar[str]
    size_divisor: ClassVar[int] = 32
    stretched: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    statistics: ClassVar[str] = "imagenet"
    output_axes: ClassVar[str] = ""
    draws_globally: ClassVar[bool] = True

    backbone: VanConfig
    num_classes: int = 80
    min_size: int = 800
    max_size: int = 1333
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    score_threshold: float = 0.05
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        self._check_sizes()
        if self.backbone.num_stages != 4:
            raise ConfigError(f"the backbone has {self.backbone.num_stages} stages; {with_article(self.noun)} needs 4")
        if not self.stretched and self.max_size < self.min_size:
            raise ConfigError(f"max_size is {self.max_size}, below min_size {self.min_size}; give both")
        if not len(self.mean) == len(self.std) == self.backbone.in_chans:
            raise ConfigError(
                f"mean is {self.mean}, std is {self.std}; expected {self.backbone.in_chans} entries each, "
                "one per channel of the images"
            )
        for value in (*self.mean, *self.std):
            check_number("mean and std", value, whole=False)
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std}; expected positive numbers")
        check_number("score_threshold", self.score_threshold, whole=False)
        if not 0 <= self.score_threshold < 1:
            raise ConfigError(f"score_threshold is {self.score_threshold}; expected a probability in [0, 1)")

    @property
    def graph_size(self) -> tuple[int, int] | None:
        """See ModelConfig: the square that images are stretched to, up to a multiple of `size_divisor`."""
        side = -(-self.min_size // self.size_divisor) * self.size_divisor
        return (side, side) if self.stretched else None

    @property
    def size_fields(self) -> tuple[str, ...]:
        """Fields that are whole numbers from 1; methods add theirs."""
        return _SIZES

    def _check_sizes(self) -> None:
        for name in self.size_fields:
            check_number(name, getattr(self, name), whole=True)
            most = _MOST_LAYERS if name.endswith("layers") else _MOST
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}; expected 1 to {most:,}")

    @property
    def trial_size(self) -> tuple[int, int]:
        """See ModelConfig.trial_size; images that are stretched have one size."""
        return (self.min_size, self.min_size) if self.stretched else super().trial_size

    @property
    def input_rows(self) -> dict[str, str]:
        """See ModelConfig.input_rows."""
        size = f"short side {self.min_size}, long side at most {self.max_size}"
        size = f"stretched to {self.min_size} x {self.min_size}" if self.stretched else size
        statistics = {"mean": self.mean, "std": self.std}
        return {"size": size} | {name: ", ".join(f"{v:g}" for v in values) for name, values in statistics.items()}

    @property
    def method(self) -> str:
        """The kind of head."""
        return self.prefix

    @property
    def name(self) -> str:
        """'<method>_<size of backbone>': "retinanet_van_b0"; "…_van_custom" for other backbones."""
        return f"{self.prefix}_{backbone_name_of(self.backbone)}"


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(ObjectConfig):
    """A model that finds boxes. Source: arXiv 2202.09741, COCO tables."""

    task: ClassVar[str] = "detection"
    noun: ClassVar[str] = "detector"
    pipeline_tag: ClassVar[str] = "object-detection"
    output_layers: ClassVar[str] = "box classifiers"


@dataclass(frozen=True, kw_only=True)
class InstanceSegmenterConfig(ObjectConfig):
    """A model that finds objects with a mask each. Source: arXiv 2202.09741, COCO tables."""

    task: ClassVar[str] = "instance"
    noun: ClassVar[str] = "instance segmenter"
    pipeline_tag: ClassVar[str] = "image-segmentation"
    output_layers: ClassVar[str] = "object classifiers"


@dataclass(frozen=True, kw_only=True)
class PanopticSegmenterConfig(ObjectConfig):
    """A model that gives every pixel a segment: a thing or stuff. Source: arXiv 2202.09741, panoptic table.

    num_things: the first so many classes are things, each of which is a segment of its own; the others are stuff.
    """

    task: ClassVar[str] = "panoptic"
    noun: ClassVar[str] = "panoptic segmenter"
    pipeline_tag: ClassVar[str] = "image-segmentation"
    output_layers: ClassVar[str] = "segment classifiers"

    num_classes: int = 133
    num_things: int = 80

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("num_things", self.num_things, whole=True)
        if not 0 <= self.num_things <= self.num_classes:
            raise ConfigError(f"num_things is {self.num_things}; expected 0 to num_classes, {self.num_classes}")
