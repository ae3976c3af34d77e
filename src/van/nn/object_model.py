"""What models that find objects offer: losses for training, raw outputs for running, and their decoding.

Shapes: N images, C channels, H, W sides of what the network gets, K objects of an image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from ..configs.object_config import ObjectConfig, PanopticSegmenterConfig
from ..errors import ConfigError, with_article
from .model import Model

Size = tuple[int, int]  # height, width


class Target(TypedDict):
    """What is true of a training image, in the pixels of what the network gets.

    size: (height, width) of the image in the padded batch. boxes: (K, 4) float32, corners x, y, x, y.
    labels: (K,) int64 from 0. masks: (K, H, W) uint8, padded as the batch is.
    """

    size: Size
    boxes: Tensor
    labels: Tensor
    masks: NotRequired[Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The objects found in an image, the surest first, in the pixels of what the network got, padding left out.

    boxes: (K, 4) float32, corners x, y, x, y. labels: (K,) int64 from 0. scores: (K,) float32.
    masks: (K, h, w) of the whole image at any resolution, float32 logits or probabilities whose meaning
    `mask_threshold` fixes; or (K, m, m), of each object's box, where `boxed`. None for models without masks.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None
    boxed: bool = False
    mask_threshold: float = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class PanopticSegments:
    """A segmentation without overlaps. segment_ids: (h, w) int32 at the size asked for, 0 where nothing is known.

    labels, scores: of segment i + 1: index of its class, and how sure it is.
    """

    segment_ids: Tensor
    labels: tuple[int, ...]
    scores: tuple[float, ...]


class ObjectModel(Model):
    """A network that finds objects.

    Training: `losses`. Running: `raw`, then `detections` (or `panoptic`) of its outputs, which need no network.
    """

    config: ObjectConfig

    def compared(self, images: Tensor) -> Any:
        """See Model.compared: the backbone's maps, since which boxes are kept may hang on the last bit of a score."""
        return self.backbone(images)

    def counted(self, images: Tensor) -> object:
        """Run what published tables count as the cost of an image; without values too, on the meta device."""
        return self.raw(images)

    @abstractmethod
    def losses(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses by name, scalars whose sum is minimised, normalised over the batches of all processes.

        images: (N, C, H, W), normalised, padded with zeros at the right and bottom to multiples of `size_divisor`.
        """

    @abstractmethod
    def raw(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """What is run, exported and compared: images as in `losses` -> outputs by name, float32."""


@singledispatch
def detections(config: ObjectConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size]) -> list[Detections]:
    """The objects in the raw outputs of N images; sizes: (height, width) of each without padding.

    Registered for each configuration: `detections.register`. Raises ConfigError for a configuration without.
    """
    raise ConfigError(f"{with_article(config.noun)} ({type(config).__name__}) gives no detections")


@singledispatch
def panoptic(
    config: PanopticSegmenterConfig, raw: Mapping[str, Tensor], sizes: Sequence[Size], output_sizes: Sequence[Size]
) -> list[PanopticSegments]:
    """The segments in the raw outputs of N images, at `output_sizes`; sizes: (height, width) without padding.

    Registered for each configuration: `panoptic.register`. Raises ConfigError for a configuration without.
    """
    raise ConfigError(f"{with_article(config.noun)} ({type(config).__name__}) gives no panoptic segments")


@singledispatch
def class_scores(config: ObjectConfig, raw: Mapping[str, Tensor]) -> Tensor:
    """The best score of each class in the raw outputs of one image, (K,), differentiable; -inf where none was found.

    Registered for each configuration: `class_scores.register`. Raises ConfigError for a configuration without.
    """
    raise ConfigError(f"{with_article(config.noun)} ({type(config).__name__}) has no scores of classes")
