"""From an image to the inputs of a panoptic network, and from its outputs to segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...configs.object_config import PanopticSegmenterConfig
from ...images.sources import ImageSource
from ...nn.object_model import panoptic
from ..base import Engine, Processor, Subject
from ..coco.options import SizeOptions
from ..coco.processor import ImageProcessor, Prepared, check_finite, no_nan, opacity_of, palette_of
from ..coco.resizing import Resizing
from .metric import Segmented
from .output import PanopticPrediction


class PanopticProcessor(ImageProcessor, Processor[Prepared, Segmented]):
    """Segments an image as a whole."""

    batched: ClassVar[bool] = False

    def run(self, engine: Engine, prepared: Sequence[Prepared]) -> list[Segmented]:
        return [self._segmented(engine, each) for each in prepared]

    def _segmented(self, engine: Engine, prepared: Prepared) -> Segmented:
        assert isinstance(self.config, PanopticSegmenterConfig)
        raw = self.raw(engine, prepared.first)
        seen = (prepared.first.shape[-2], prepared.first.shape[-1])
        found = panoptic(self.config, raw, [seen], [prepared.size])[0]
        return Segmented(
            segment_ids=found.segment_ids.cpu().numpy().astype(np.int32),
            labels=tuple(found.labels),
            scores=tuple(found.scores),
            finite=no_nan(raw),
        )

    def output(self, raw: Segmented, prepared: Prepared, source: ImageSource) -> PanopticPrediction:
        check_finite(raw.finite)
        assert isinstance(self.config, PanopticSegmenterConfig)
        return PanopticPrediction(
            image=source.name,
            picture=prepared.picture,
            found=raw,
            classes=self.classes,
            palette=self.palette,
            num_things=self.config.num_things,
            opacity=self.opacity,
        )


def processor_of(subject: Subject, options: SizeOptions) -> PanopticProcessor:
    """The processor of a panoptic segmenter; raises ConfigError for a size that cannot be."""
    config = subject.config
    assert isinstance(config, PanopticSegmenterConfig)
    resizing = Resizing.of(config, options.size)
    return PanopticProcessor(config, resizing, subject.classes, palette_of(subject), opacity_of(options))
