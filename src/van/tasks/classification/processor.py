"""From an image to a classifier's input, and from its logits to a Prediction.

Shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...errors import ConfigError, DataError
from ...images.preprocess import Preprocess, to_color
from ...images.sources import ImageSource
from ..base import Engine, Json, Processor, Subject, WholeView
from .meter import softmax
from .output import Prediction

if TYPE_CHECKING:
    from .options import ViewOptions


class ClassificationProcessor(Processor[np.ndarray, np.ndarray]):
    """An image is one array (C, H, W); a raw result its logits (K,).

    preprocess: what makes the array. classes: one name per logit. top: how many a Prediction lists.
    """

    def __init__(self, preprocess: Preprocess, classes: Sequence[str], top: int = 5) -> None:
        self.preprocess, self.classes, self.top = preprocess, tuple(classes), top

    def prepare(self, image: Image.Image) -> np.ndarray:
        return self.preprocess(image)

    def inputs(self, image: Image.Image) -> Iterator[np.ndarray]:
        yield self.preprocess(image)

    def whole(self, image: Image.Image) -> WholeView:
        """The centre crop; pixels outside its box are not seen by the network."""
        return WholeView(
            array=self.preprocess(image),
            picture=to_color(image, "RGB"),
            extent=self.preprocess.size,
            box=self.preprocess.crop_box(*image.size),
        )

    def run(self, engine: Engine, prepared: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits (K,) of every image; raises ConfigError for a network that gives none."""
        logits = engine.run(np.stack(prepared))["logits"]
        if logits.ndim != 2:
            raise ConfigError(f"the model returned {logits.shape}; expected (N, K) logits, as a classifier's")
        return list(logits)

    def output(self, raw: np.ndarray, prepared: np.ndarray, source: ImageSource) -> Prediction:
        if not np.isfinite(raw).all():
            raise DataError("the network's output is not finite; try precision fp32")
        probabilities = softmax(raw)
        best = np.argsort(-raw, kind="stable")[: self.top].tolist()
        top = tuple((self.classes[i], i, float(probabilities[i])) for i in best)
        return Prediction(image=source.name, top=top, source=source)

    def facts(self) -> dict[str, Json]:
        return {"preprocess": self.preprocess.to_dict()}


def processor_of(subject: Subject, options: ViewOptions, top: int = 5) -> ClassificationProcessor:
    """The processor of a classifier, its preprocessing overridden by the options.

    Raises ConfigError for a model without a head, and for one whose channels differ from the preprocessing's.
    """
    number, name = subject.num_classes, subject.name
    if number < 1:
        raise ConfigError(f"{name} has no classification head (num_classes is {number}); expected a classifier")
    in_chans = subject.config.backbone.in_chans
    if in_chans not in (1, 3):
        raise ConfigError(
            f"{name} takes arrays of {in_chans} channels, which no image has; run its engine on arrays of your own"
        )
    preprocess = (subject.metadata.preprocess or Preprocess()).with_overrides(**options.overrides)
    if in_chans != preprocess.channels:
        raise ConfigError(
            f"{name} takes images of {in_chans} channel(s), its preprocessing makes {preprocess.channels} "
            f"({preprocess.color}); give mean and std one entry each (gray) or three (RGB)"
        )
    return ClassificationProcessor(preprocess, subject.classes, min(top, number))
