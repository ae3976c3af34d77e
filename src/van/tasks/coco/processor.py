"""From an image to the inputs of a network that finds objects, and from its outputs to objects.

An image goes through the network by itself, so that no result depends on the images beside it.

Shapes: C channels, H, W sides of the image, h, w sides of what the network gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...configs.object_config import ObjectConfig
from ...errors import DataError
from ...images.label_maps import Palette, bright_palette
from ...images.preprocess import to_color
from ...images.rle import Rle
from ...images.sources import ImageSource
from ...nn.object_model import Detections, detections
from ..base import Engine, Json, Processor, Subject, WholeView
from .found import Found
from .masks import enlarge, paste
from .options import ObjectOptions, PictureOptions
from .output import ObjectPrediction
from .resizing import Resizing
from .scales import Views
from .views import in_image, kept

SHOWN_FROM = 0.3  # score of the objects that a picture shows, unless a threshold was asked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An image, RGB, and the first of its views, (C, h, w) without padding."""

    picture: Image.Image
    first: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.picture.height, self.picture.width


class ImageProcessor:
    """What processors of objects and of panoptic segments share.

    config: decides the decoding of the network's outputs; resizing: how images become inputs.
    """

    def __init__(
        self, config: ObjectConfig, resizing: Resizing, classes: Sequence[str], palette: Palette, opacity: float
    ) -> None:
        self.config, self.resizing, self.classes = config, resizing, tuple(classes)
        self.palette, self.opacity, self.views = palette, opacity, Views()

    def prepare(self, image: Image.Image) -> Prepared:
        """See Processor.prepare."""
        scale, mirrored = next(iter(self.views))
        return Prepared(picture=to_color(image, "RGB"), first=self.view(self.resizing.pixels(image), scale, mirrored))

    def inputs(self, image: Image.Image) -> Iterator[np.ndarray]:
        """See Processor.inputs."""
        pixels = self.resizing.pixels(image)
        for scale, mirrored in self.views:
            yield np.ascontiguousarray(self.resizing.padded(self.view(pixels, scale, mirrored)).numpy())

    def whole(self, image: Image.Image) -> WholeView:
        """See Processor.whole: the first view."""
        prepared = self.prepare(image)
        height, width = prepared.first.shape[-2:]
        array = np.ascontiguousarray(self.resizing.padded(prepared.first).numpy())
        box = (0.0, 0.0, float(image.width), float(image.height))
        return WholeView(array=array, picture=prepared.picture, extent=(height, width), box=box)

    def view(self, pixels: Tensor, scale: float, mirrored: bool) -> Tensor:
        """Normalised pixels (C, H, W) as one of the views, (C, h, w)."""
        seen = self.resizing.resized(pixels, scale)
        return seen.flip(-1) if mirrored else seen

    def seen(self, prepared: Prepared) -> Iterator[tuple[Tensor, bool]]:
        """Every view of an image, and whether it is mirrored."""
        pixels: Tensor | None = None
        for number, (scale, mirrored) in enumerate(self.views):
            if number == 0:
                yield prepared.first, mirrored
                continue
            pixels = self.resizing.pixels(prepared.picture) if pixels is None else pixels
            yield self.view(pixels, scale, mirrored), mirrored

    def raw(self, engine: Engine, view: Tensor) -> dict[str, Tensor]:
        """The network's outputs for one view."""
        return engine.run_tensors(self.resizing.padded(view)[None])

    def facts(self) -> dict[str, Json]:
        """See Processor.facts."""
        resizing = self.resizing
        sizes = {"min_size": resizing.min_size, "max_size": resizing.max_size, "stretched": resizing.stretched}
        views = {"scales": list(self.views.scales), "flip": self.views.flip}
        chosen = {"score_threshold": self.config.score_threshold, "max_detections": self.config.detections_per_image}
        return {"preprocess": sizes | {"mean": list(resizing.mean), "std": list(resizing.std)} | views, **chosen}


class ObjectProcessor(ImageProcessor, Processor[Prepared, Found]):
    """Finds objects in the views of an image.

    shown_from: score of the objects that pictures of results show.
    """

    batched: ClassVar[bool] = False

    def __init__(
        self,
        config: ObjectConfig,
        resizing: Resizing,
        classes: Sequence[str],
        palette: Palette,
        *,
        views: Views | None = None,
        opacity: float = 0.5,
        shown_from: float = SHOWN_FROM,
    ) -> None:
        super().__init__(config, resizing, classes, palette, opacity)
        self.views, self.shown_from = views or Views(), shown_from

    def run(self, engine: Engine, prepared: Sequence[Prepared]) -> list[Found]:
        return [self._found(engine, each) for each in prepared]

    def _found(self, engine: Engine, prepared: Prepared) -> Found:
        views = []
        for seen, mirrored in self.seen(prepared):
            raw = self.raw(engine, seen)
            if not no_nan(raw):
                return nothing(prepared.size)
            size = (seen.shape[-2], seen.shape[-1])
            found = detections(self.config, raw, [size])[0]
            views.append(in_image(found, size, prepared.size, mirrored=mirrored))
        chosen = kept(views, threshold=self.config.score_threshold, most=self.config.detections_per_image)
        return joined(views, chosen, prepared.size)

    def output(self, raw: Found, prepared: Prepared, source: ImageSource) -> ObjectPrediction:
        check_finite(raw.finite)
        return ObjectPrediction(
            image=source.name,
            picture=prepared.picture,
            found=raw,
            classes=self.classes,
            palette=self.palette,
            opacity=self.opacity,
            shown_from=self.shown_from,
        )


def no_nan(raw: Mapping[str, Tensor]) -> bool:
    """Whether every output is a number."""
    return not any(bool(each.isnan().any()) for each in raw.values())


def check_finite(finite: bool) -> None:
    """Raises DataError for outputs that mean nothing."""
    if not finite:
        raise DataError("the network's outputs are no numbers (NaN); try precision fp32")


def nothing(size: tuple[int, int]) -> Found:
    """What a network finds whose outputs are no numbers."""
    none = np.zeros(0, np.float32)
    return Found(size=size, boxes=none.reshape(0, 4), labels=none.astype(np.int64), scores=none, masks=(), finite=False)


def joined(views: Sequence[Detections], chosen: Sequence[tuple[int, int]], size: tuple[int, int]) -> Found:
    """The chosen objects, (view, index) each, with their masks at the size (H, W) of the image."""
    masks: list[Rle | None] = [None] * len(chosen)
    has_masks = bool(views) and all(each.masks is not None for each in views)
    for number, view in enumerate(views):
        places = [place for place, (of, _) in enumerate(chosen) if of == number]
        if not has_masks or not places or view.masks is None:
            continue
        indices = torch.tensor([chosen[place][1] for place in places], device=view.masks.device)
        own = view.masks[indices]
        encoded = (
            paste(own, view.boxes[indices.to(view.boxes.device)], size, view.mask_threshold)
            if view.boxed
            else enlarge(own, size, view.mask_threshold)
        )
        for place, mask in zip(places, encoded, strict=True):
            masks[place] = mask
    columns = {name: _chosen(views, chosen, name) for name in ("boxes", "labels", "scores")}
    return Found(
        size=size,
        boxes=columns["boxes"].astype(np.float32).reshape(-1, 4),
        labels=columns["labels"].astype(np.int64),
        scores=columns["scores"].astype(np.float32),
        masks=tuple(mask for mask in masks if mask is not None) if has_masks else None,
    )


def _chosen(views: Sequence[Detections], chosen: Sequence[tuple[int, int]], name: str) -> np.ndarray:
    columns = [getattr(view, name).detach().cpu().numpy() for view in views]
    return np.array([columns[view][i] for view, i in chosen]) if chosen else columns[0][:0]


def processor_of(subject: Subject, options: ObjectOptions) -> ObjectProcessor:
    """The processor of a detector or an instance segmenter; raises ConfigError for options that do not fit it."""
    config = subject.config
    assert isinstance(config, ObjectConfig)
    return ObjectProcessor(
        options.applied(config),
        Resizing.of(config, options.size),
        subject.classes,
        palette_of(subject),
        views=options.views,
        opacity=opacity_of(options),
        shown_from=SHOWN_FROM if options.score_threshold is None else options.score_threshold,
    )


def opacity_of(options: object) -> float:
    """Of masks in pictures: as asked for where there are any."""
    return options.opacity if isinstance(options, PictureOptions) else PictureOptions().opacity


def palette_of(subject: Subject) -> Palette:
    """The model's colours, else some that stay apart."""
    return subject.metadata.palette or bright_palette(subject.num_classes)
