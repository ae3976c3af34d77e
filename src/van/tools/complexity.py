"""What a classifier costs: parameters exactly, multiply-adds at any image size, and where they are.

The network runs once on the meta device, so nothing is computed and no memory is needed.

| convention | what is counted | which table |
|---|---|---|
| `macs` | convolutions and linear layers, no bias | none |
| `mmcv` | and 1 per convolution's bias, 2 per BatchNorm element, 2 per LayerNorm element | today's OpenMMLab counter |
| `mmcv_without_layer_norm` | the same without LayerNorm, as older versions of that counter | paper, OpenMMLab |

B6's published figures exist twice: the paper's for a third stage 384 wide, OpenMMLab's for 480 (`van_b6_480`).
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..configs.backbone import ATTENTION_OPTIONS, PUBLISHED, VARIANTS, VanConfig, name_of, resolve
from ..errors import ConfigError
from ..nn import Classifier

CONVENTIONS = (
    "multiply-adds: one per use of a weight in convolutions and linear layers; no biases, no norms.",
    "published convention: OpenMMLab's counter, which adds 1 per use of a bias and 2 per BatchNorm element.",
)

# Kernel side and dilation -> ImageNet-1K top-1 on B0, in percent (paper, section 4.1).
KERNELS: dict[tuple[int, int], float] = {(7, 2): 74.8, (14, 3): 75.3, (21, 3): 75.4, (28, 4): 75.4}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A row of the summary: a patch embedding, a block, a stage's norm or the head.

    shape: of its output, (C, H, W) or (K,). parameters: trainable ones. statistics: BatchNorm's running means and
    variances, which Keras counts as non-trainable parameters. macs: as in the module's table.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    statistics: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one network costs for one image of `size` (height, width) pixels.

    macs, mmcv, mmcv_without_layer_norm: see the module's table.
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
class Alternative:
    """A change of large kernel attention: what it costs, and the paper's ImageNet-1K top-1 with it, in percent."""

    option: str
    meaning: str
    top1: float
    complexity: Complexity

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict."""
        told = {"option": self.option, "meaning": self.meaning, "top1_of_van_b0": self.top1}
        return told | {"parameters": self.complexity.parameters, "macs": self.complexity.macs}


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
    layers, totals = _count(network, pixels)
    biased = totals["macs"] + totals["bias"] + 2 * totals["batch_norm"]
    known = name in PUBLISHED and config == VARIANTS[name] and pixels == (224, 224)
    return Complexity(
        name=name,
        size=pixels,
        layers=layers,
        macs=totals["macs"],
        mmcv=biased + 2 * totals["layer_norm"],
        mmcv_without_layer_norm=biased,
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


def _count(network: Classifier, pixels: tuple[int, int]) -> tuple[tuple[Layer, ...], Counter[str]]:
    """Rows in the order of computation, and operations in total."""
    shapes: dict[str, tuple[int, ...]] = {}
    operations: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def watch(name: str, module: nn.Module, output: Tensor) -> None:
        row = _ROW.match(name)
        if row is not None:
            operations[row[0]].update(_operations(module, output))
            shapes[row[0]] = tuple(output.shape[1:])  # the row's own module is the last to finish

    for name, module in network.named_modules():
        module.register_forward_hook(lambda module, _, output, name=name: watch(name, module, output))
    channels = network.backbone.config.in_chans
    with torch.no_grad():
        network(torch.empty(1, channels, *pixels, device="meta"))
    parameters, statistics = _sizes(network.named_parameters()), _sizes(network.named_buffers())
    layers = tuple(
        Layer(
            name=row,
            shape=shape,
            parameters=parameters[row],
            statistics=statistics[row],
            macs=operations[row]["macs"],
        )
        for row, shape in shapes.items()
        if parameters[row]
    )
    return layers, sum(operations.values(), Counter())


def _operations(module: nn.Module, output: Tensor) -> dict[str, int]:
    elements = output.numel()
    if isinstance(module, nn.Conv2d):
        return {"macs": elements * module.weight[0].numel(), "bias": elements if module.bias is not None else 0}
    if isinstance(module, nn.Linear):
        return {"macs": elements * module.in_features}
    if isinstance(module, nn.BatchNorm2d):
        return {"batch_norm": elements}
    return {"layer_norm": elements} if isinstance(module, nn.LayerNorm) else {}


def _sizes(tensors: Any) -> Counter[str]:
    """Elements per row of the summary, BatchNorm's step counters left out."""
    sizes: Counter[str] = Counter()
    for name, tensor in tensors:
        row = _ROW.match(name)
        if row is not None and not name.endswith("num_batches_tracked"):
            sizes[row[0]] += tensor.numel()
    return sizes
