"""From a picture to a segmenter's inputs, and from its logits to a label map.

Memory stays bounded on large pictures: see `views`.

Shapes: C channels, H and W of the picture, h and w of the head's logits, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...configs.segmenter import SegmenterConfig
from ...errors import ConfigError
from ...images.label_maps import Palette, default_palette
from ...images.preprocess import IMAGENET, to_color
from ...images.sources import ImageSource
from ...nn.hamburger import factorisations, reseed_bases
from ..base import Engine, Json, Processor, Subject, WholeView
from .inference import RECORDED, Inference, inference_of
from .options import ViewOptions
from .output import MaskPrediction
from .views import inputs, normalized, predict, whole

Masks = list[np.ndarray]  # (H, W) class numbers: of the network as it is, then of every draw of its bases


class SegmentationProcessor(Processor[Image.Image, Masks]):
    """A picture goes through the network by itself: whole or in windows, at several scales, mirrored.

    seeds: draws of a Hamburger's bases to predict with, besides the network's own.
    """

    batched: ClassVar[bool] = False

    def __init__(
        self, inference: Inference, classes: Sequence[str], palette: Palette, *, seeds: int = 0, opacity: float = 0.5
    ) -> None:
        self.inference, self.classes, self.palette = inference, tuple(classes), palette
        self.seeds, self.opacity = seeds, opacity

    def prepare(self, image: Image.Image) -> Image.Image:
        return to_color(image, "RGB")

    def inputs(self, image: Image.Image) -> Iterator[np.ndarray]:
        for each in inputs(image, self.inference):
            yield np.ascontiguousarray(each.numpy())

    def whole(self, image: Image.Image) -> WholeView:
        """At the first scale, smaller where the picture would be cut into windows to bound memory."""
        array = whole(image, self.inference).numpy()
        box = (0.0, 0.0, float(image.width), float(image.height))
        extent = (array.shape[1], array.shape[2])
        return WholeView(array=array, picture=to_color(image, "RGB"), extent=extent, box=box)

    def run(self, engine: Engine, prepared: Sequence[Image.Image]) -> list[Masks]:
        """The masks of each picture; raises ConfigError for `seeds` of a network without bases."""
        return [[self._mask(engine, image), *self._drawn(engine, image)] for image in prepared]

    def _mask(self, engine: Engine, image: Image.Image) -> np.ndarray:
        def decode(pixels: Tensor) -> Tensor:
            return engine.run_tensors(normalized(pixels, self.inference)[None])["logits"][0].contiguous()

        return predict(decode, image, self.inference)

    def _drawn(self, engine: Engine, image: Image.Image) -> Iterator[np.ndarray]:
        if not self.seeds:
            return
        with _bases_kept(engine) as network:
            for seed in range(self.seeds):
                reseed_bases(network, seed)
                yield self._mask(engine, image)

    def output(self, raw: Masks, prepared: Image.Image, source: ImageSource) -> MaskPrediction:
        return MaskPrediction(
            image=source.name,
            picture=prepared,
            mask=raw[0],
            classes=self.classes,
            palette=self.palette,
            opacity=self.opacity,
        )


@contextmanager
def _bases_kept(engine: Engine) -> Iterator[torch.nn.Module]:
    """A network whose bases may be drawn; afterwards it has its own back."""
    network = engine.network
    found = [] if network is None else factorisations(network)
    if network is None or not found:
        raise ConfigError("seeds draws the bases of a Hamburger, which this segmenter does not have; leave it out")
    kept = [(module, module.bases) for module in found]
    try:
        yield network
    finally:
        for module, bases in kept:
            module.bases = bases


def inference_for(subject: Subject, options: ViewOptions | None = None) -> Inference:
    """How a segmenter is applied: its own way, with what the options override."""
    assert isinstance(subject.config, SegmenterConfig)
    preprocess, provenance = subject.metadata.preprocess or IMAGENET, subject.metadata.provenance
    return inference_of(preprocess, provenance, options.given if options else {}, method=subject.config.method)


def recorded_inference(subject: Subject) -> dict[str, Json]:
    """How a segmenter is applied as plain values: its training's record, else its own way."""
    if own := subject.metadata.provenance.get("inference"):
        return dict(own)
    inference = inference_for(subject)
    values = {name: getattr(inference, name) for name in RECORDED}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def processor_of(subject: Subject, options: ViewOptions, *, seeds: int = 0) -> SegmentationProcessor:
    """The processor of a segmenter.

    Raises ConfigError for overrides that cannot work, and for a model that takes images of other channels.
    """
    inference, in_chans = inference_for(subject, options), subject.config.backbone.in_chans
    if in_chans != len(inference.mean):
        raise ConfigError(
            f"{subject.name} takes images of {in_chans} channel(s), its preprocessing makes {len(inference.mean)}; "
            "give mean and std one entry per channel"
        )
    return SegmentationProcessor(
        inference,
        subject.classes,
        subject.metadata.palette or default_palette(subject.num_classes),
        seeds=seeds,
        opacity=options.opacity,
    )
