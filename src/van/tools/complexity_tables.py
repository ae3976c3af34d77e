"""What networks cost, as results and tables, without torch: what was published, and what was counted once for all.

The counts of every model of `van list`, at its usual size, lie in complexity.json, so that `van info NAME` need not
build the network. `write_counted()` makes the file; a test compares it with the counter.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..configs.backbone import PUBLISHED
from ..errors import ConfigError

COUNTED = Path(__file__).with_name("complexity.json")
# Side in pixels of the images that the counts are of.
CLASSIFIER_SIZE, SEGMENTER_SIZE = 224, 512
# Height and width of the images that the paper's table of detectors counts; those of stretched images are their own.
OBJECT_SIZE = (1280, 800)

CONVENTIONS = (
    "multiply-adds: one per use of a weight in convolutions and linear layers; no biases, no norms.",
    "published convention: OpenMMLab's counter, which adds 1 per use of a bias and 2 per BatchNorm element.",
)


@dataclass(frozen=True, kw_only=True)
class PublishedCost:
    """A row of a published table, as printed: parameters in millions, operations in billions ("" for none)."""

    parameters_m: str
    giga: str
    size: tuple[int, int]
    convention: str


def _cost_2022_03(parameters_m: str, giga: str) -> PublishedCost:
    return PublishedCost(parameters_m=parameters_m, giga=giga, size=(512, 512), convention="torchprofile")


def _cost_2022_07(parameters_m: str, giga: str) -> PublishedCost:
    return PublishedCost(parameters_m=parameters_m, giga=giga, size=(512, 2048), convention="mmcv")


# Segmenter name -> rows, the README of the VAN segmentation code of 2022-03 first, then that of 2022-07.
# The B5 row of 2022-07 is not what its configuration gives (121.9 M, 1205 G); every other row is.
PUBLISHED_SEGMENTERS: dict[str, tuple[PublishedCost, ...]] = {
    "light_ham_van_b0_d256": (_cost_2022_03("4.2", "6.5"),),
    "light_ham_van_b0": (_cost_2022_03("4.9", "11.3"),),
    "light_ham_van_b1": (_cost_2022_03("14.7", "21.4"),),
    "light_ham_van_b2": (_cost_2022_03("27.4", "34.4"),),
    "light_ham_van_b3": (_cost_2022_03("45.6", "55.0"),),
    "hamnet_van_b0": (_cost_2022_03("11.9", "50.8"),),
    "hamnet_van_b1": (_cost_2022_03("24.2", "100.6"),),
    "hamnet_van_b2": (_cost_2022_03("36.9", "153.6"),),
    "hamnet_van_b3": (_cost_2022_03("55.1", "227.7"),),
    "upernet_van_b0": (_cost_2022_03("32.1", "214.7"), _cost_2022_07("32", "")),
    "upernet_van_b1": (_cost_2022_03("43.8", "224.0"), _cost_2022_07("44", "")),
    "upernet_van_b2": (_cost_2022_03("56.6", "237.1"), _cost_2022_07("57", "948")),
    "upernet_van_b3": (_cost_2022_03("74.7", "257.7"), _cost_2022_07("75", "1030")),
    "upernet_van_b4": (_cost_2022_07("90", "1098"),),
    "upernet_van_b5": (_cost_2022_07("117", "1208"),),
    "upernet_van_b6": (_cost_2022_07("231", "1658"),),
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A row of the summary: a patch embedding, a block, a stage's norm or the head.

    shape: of its output, (C, H, W) or (K,). parameters: trainable ones. statistics: BatchNorm's running means and
    variances, which Keras counts as non-trainable parameters. macs: of convolutions and linear layers.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    statistics: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one network costs for one image of `size` (height, width) pixels.

    macs: of convolutions and linear layers, no bias; mmcv, mmcv_without_layer_norm: in OpenMMLab's conventions.
    published: parameters in millions and G at 224 x 224 as printed, None for other networks and sizes.
    """

    name: str
    size: tuple[int, int]
    layers: tuple[Layer, ...]
    macs: int
    mmcv: int
    mmcv_without_layer_norm: int
    published: tuple[float, float] | None

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def statistics(self) -> int:
        """Running means and variances of the BatchNorms."""
        return sum(layer.statistics for layer in self.layers)

    @property
    def deviation(self) -> float | None:
        """By how much our count in the published convention exceeds the published G, in percent."""
        return None if self.published is None else 100 * (self.mmcv_without_layer_norm / (self.published[1] * 1e9) - 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict of every field, the layers last."""
        return {
            "name": self.name,
            "size": list(self.size),
            "parameters": self.parameters,
            "statistics": self.statistics,
            "macs": self.macs,
            "mmcv": self.mmcv,
            "mmcv_without_layer_norm": self.mmcv_without_layer_norm,
            "published": None if self.published is None else list(self.published),
            "deviation_percent": None if self.deviation is None else round(self.deviation, 3),
            "layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in self.layers],
        }


@dataclass(frozen=True, kw_only=True)
class SegmenterComplexity:
    """What a segmenter costs; operations for one image of the size asked for.

    parameters: all, with the auxiliary head, which never runs; by_part: of backbone, neck, head and auxiliary.
    macs: of convolutions; matmul_macs: of matrix products; torchprofile, mmcv: in the published conventions.
    """

    parameters: int
    by_part: dict[str, int]
    macs: int
    matmul_macs: int
    torchprofile: int
    mmcv: int


# Model that finds objects -> row of the paper's table of detectors (arXiv 2202.09741).
PUBLISHED_OBJECTS: dict[str, PublishedCost] = {
    "mask_rcnn_van_b2": PublishedCost(parameters_m="46", giga="273", size=OBJECT_SIZE, convention="mmcv"),
}


@dataclass(frozen=True, kw_only=True)
class ObjectComplexity:
    """What a model that finds objects costs; operations for one image of the size asked for.

    parameters: all; by_part: of backbone, pyramid, heads. macs: of convolutions and linear layers; matmul_macs: of
    matrix products; mmcv: in the published convention.
    """

    parameters: int
    by_part: dict[str, int]
    macs: int
    matmul_macs: int
    mmcv: int


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A change of large kernel attention: what it costs, and the paper's ImageNet-1K top-1 with it, in percent."""

    option: str
    meaning: str
    top1: float
    complexity: Complexity

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict."""
        change = {"option": self.option, "meaning": self.meaning, "top1_of_van_b0": self.top1}
        return change | {"parameters": self.complexity.parameters, "macs": self.complexity.macs}


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of an image of one or two sides in pixels; raises ConfigError for anything else."""
    given = (size,) if isinstance(size, int) else tuple(size)
    if len(given) not in (1, 2) or any(side < 1 for side in given):
        raise ConfigError(f"size is {size}; expected the side of the image in pixels, or height and width")
    return given[0], given[-1]


@functools.cache
def _counted() -> dict[str, dict[str, Any]]:
    return json.loads(COUNTED.read_text(encoding="utf-8"))


def counted_classifier(name: str, size: int | Sequence[int] = CLASSIFIER_SIZE) -> Complexity | None:
    """The counts of a published classifier; None for what was not counted."""
    facts = _counted()["classifiers"].get(name)
    if facts is None or sides(size) != (CLASSIFIER_SIZE, CLASSIFIER_SIZE):
        return None
    layers = tuple(
        Layer(name=layer, shape=tuple(shape), parameters=parameters, statistics=statistics, macs=macs)
        for layer, shape, parameters, statistics, macs in facts["layers"]
    )
    totals = {key: facts[key] for key in ("macs", "mmcv", "mmcv_without_layer_norm")}
    return Complexity(name=name, size=sides(size), layers=layers, published=PUBLISHED[name][:2], **totals)


def counted_segmenter(name: str, size: int | Sequence[int] = SEGMENTER_SIZE) -> SegmenterComplexity | None:
    """The counts of a published segmenter; None for what was not counted."""
    facts = _counted()["segmenters"].get(name)
    return None if facts is None or sides(size) != (SEGMENTER_SIZE, SEGMENTER_SIZE) else SegmenterComplexity(**facts)
