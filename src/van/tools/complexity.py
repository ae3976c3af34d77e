"""What a network costs: parameters exactly, multiply-adds at any image size, and where they are.

The network runs once on the meta device, so nothing is computed and no memory is needed.
B6's published figures exist twice: the paper's for a third stage 384 wide, OpenMMLab's for 480 (`van_b6_480`).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..configs.backbone import ATTENTION_OPTIONS, PUBLISHED, VARIANTS, VanConfig, name_of, resolve
from ..configs.segmenter import SegmenterConfig
from ..errors import ConfigError
from ..nn import Classifier
from ..nn.hamburger import factorisations
from ..nn.heads.layers import ConvNormReLU
from ..nn.segmenter import Segmenter
from .complexity_counter import Convention, Operations, count_operations

# What published tables count, as weights of the counter's quantities.
MACS: Convention = {"macs": 1}
# OpenMMLab's counter on classifiers: the paper's table and OpenMMLab's own, and as newer versions count.
MMCV_WITHOUT_LAYER_NORM: Convention = {"macs": 1, "bias": 1, "batch_norm": 2}
MMCV: Convention = {**MMCV_WITHOUT_LAYER_NORM, "layer_norm": 2}
# The same counter on segmenters, 2048 x 512 (VAN segmentation code of 2022-07): their BatchNorm was the synchronised
# one, which it does not know; `_rectified` is added.
MMCV_SEGMENTATION: Convention = {"macs": 1, "bias": 1, "layer_norm": 2, "group_norm": 2, "pool_input": 1}
# torchprofile on segmenters, 512 x 512 (VAN segmentation code of 2022-03), the last resize to the image included;
# `_idle` is added.
TORCHPROFILE: Convention = {
    **{"macs": 1, "matmul": 1, "multiply": 1, "pooled": 1, "bilinear": 4},
    **{"batch_norm": 1, "layer_norm": 1, "group_norm": 1},
}

CONVENTIONS = (
    "multiply-adds: one per use of a weight in convolutions and linear layers; no biases, no norms.",
    "published convention: OpenMMLab's counter, which adds 1 per use of a bias and 2 per BatchNorm element.",
)

# Kernel side and dilation -> ImageNet-1K top-1 on B0, in percent (paper, section 4.1).
KERNELS: dict[tuple[int, int], float] = {(7, 2): 74.8, (14, 3): 75.3, (21, 3): 75.4, (28, 4): 75.4}


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


def describe(model: str | VanConfig, *, size: int | Sequence[int] = 224) -> Complexity:
    """What a network costs for one image.

    model: a name or alias of `van.list_models()`, or a configuration. size: side in pixels, or (height, width).
    Raises UnknownNameError for a name, ConfigError for an impossible size.
    """
    return _describe(VARIANTS[resolve(model)] if isinstance(model, str) else model, sides(size))


@functools.cache
def _describe(config: VanConfig, pixels: tuple[int, int]) -> Complexity:
    name = name_of(config)
    with torch.device("meta"):
        network = Classifier(config).eval()
    layers, operations = _layers(network, torch.empty(1, config.in_chans, *pixels, device="meta"))
    known = name in PUBLISHED and config == VARIANTS[name] and pixels == (224, 224)
    return Complexity(
        name=name,
        size=pixels,
        layers=layers,
        macs=operations.in_convention(MACS),
        mmcv=operations.in_convention(MMCV),
        mmcv_without_layer_norm=operations.in_convention(MMCV_WITHOUT_LAYER_NORM),
        published=PUBLISHED[name][:2] if known else None,
    )


def variants(*, size: int | Sequence[int] = 224) -> tuple[Complexity, ...]:
    """What every published size of the network costs."""
    return tuple(describe(name, size=size) for name in VARIANTS)


def ablations(model: str = "van_b0", *, size: int | Sequence[int] = 224) -> tuple[Alternative, ...]:
    """What every option of `VanConfig.attention` costs; the accuracies are B0's (paper, table 4)."""
    config = VARIANTS[resolve(model)]
    return tuple(
        Alternative(
            option=option,
            meaning=meaning,
            top1=top1,
            complexity=describe(config.with_options(attention=option), size=size),
        )
        for option, (meaning, top1) in ATTENTION_OPTIONS.items()
    )


def kernels(model: str = "van_b0", *, size: int | Sequence[int] = 224) -> tuple[Alternative, ...]:
    """What the paper's kernel sizes and dilations cost; the accuracies are B0's."""
    rows = []
    for (kernel, dilation), top1 in KERNELS.items():
        config = VARIANTS[resolve(model)].with_options(kernel_size=kernel, dilation=dilation)
        near, far = f"{config.near_kernel}x{config.near_kernel}", f"{config.far_kernel}x{config.far_kernel}"
        rows.append(
            Alternative(
                option=f"kernel_size={kernel}, dilation={dilation}",
                meaning=f"{near} depthwise, {far} depthwise with dilation {dilation}, 1x1",
                top1=top1,
                complexity=describe(config, size=size),
            )
        )
    return tuple(rows)


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of an image of one or two sides in pixels; raises ConfigError for anything else."""
    given = (size,) if isinstance(size, int) else tuple(size)
    if len(given) not in (1, 2) or any(side < 1 for side in given):
        raise ConfigError(f"size is {size}; expected the side of the image in pixels, or height and width")
    return given[0], given[-1]


# The summary's rows by the names of the modules in them.
_ROW = re.compile(r"backbone\.stages\.\d+\.(?:patch_embed|blocks\.\d+|norm)|head")


def _layers(network: nn.Module, images: Tensor) -> tuple[tuple[Layer, ...], Operations]:
    """Rows in the order of computation, and the operations of the whole."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])

    for name, module in network.named_modules():
        if _ROW.fullmatch(name):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
    operations = count_operations(network, images)
    parameters, statistics = _sizes(network.named_parameters()), _sizes(network.named_buffers())
    layers = tuple(
        Layer(
            name=row,
            shape=shape,
            parameters=parameters[row],
            statistics=statistics[row],
            macs=operations.by_module[row]["macs"],
        )
        for row, shape in shapes.items()
        if parameters[row]
    )
    return layers, operations


def _sizes(tensors: Iterable[tuple[str, Tensor]]) -> Counter[str]:
    """Elements per row of the summary, BatchNorm's step counters left out."""
    sizes: Counter[str] = Counter()
    for name, tensor in tensors:
        row = _ROW.match(name)
        if row is not None and not name.endswith("num_batches_tracked"):
            sizes[row[0]] += tensor.numel()
    return sizes


def describe_segmenter(config: SegmenterConfig, *, size: int | Sequence[int] = 512) -> SegmenterComplexity:
    """What a segmenter costs for one image; size: side in pixels, or (height, width).

    Raises ConfigError for an impossible size.
    """
    pixels = sides(size)
    with torch.device("meta"):
        model = Segmenter(config).eval()
    operations = count_operations(model, torch.empty(1, config.backbone.in_chans, *pixels, device="meta"))
    by_part = {name: sum(tensor.numel() for tensor in part.parameters()) for name, part in model.named_children()}
    return SegmenterComplexity(
        parameters=sum(by_part.values()),
        by_part={name: count for name, count in by_part.items() if count},
        macs=operations.total["macs"],
        matmul_macs=operations.total["matmul"],
        torchprofile=operations.in_convention(TORCHPROFILE) + _idle(model, pixels),
        mmcv=operations.in_convention(MMCV_SEGMENTATION) + _rectified(model, operations),
    )


def _rectified(model: nn.Module, operations: Operations) -> int:
    """Elements of the ReLUs that mmcv's counter meets: those of convolution modules, which are modules there."""
    convolutions = [name for name, module in model.named_modules() if isinstance(module, ConvNormReLU)]
    return sum(operations.by_module[name]["relu"] for name in convolutions if name in operations.by_module)


def _idle(model: Segmenter, pixels: tuple[int, int]) -> int:
    """What the published Ham heads do in vain and ours do not, so that no counter can find it here.

    They multiply by a constant 1 and, the light ones, resize stage 2 to its own size.
    """
    light = model.config.method == "light_ham"
    stage = 1 if light else -1
    stride, width = model.config.backbone.reductions[stage], model.config.backbone.embed_dims[stage]
    positions = -(-pixels[0] // stride) * -(-pixels[1] // stride)
    extras = sum(positions * nmf.rank + 2 for nmf in factorisations(model))  # and two products of plain numbers
    return extras + (4 * positions * width if light else 0)
