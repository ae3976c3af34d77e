"""What a network costs: parameters exactly, multiply-adds at any image size, and where they are.

The network runs once on the meta device, so nothing is computed and no memory is needed.
B6's published figures exist twice: the paper's for a third stage 384 wide, OpenMMLab's for 480 (`van_b6_480`).
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..configs.backbone import ATTENTION_OPTIONS, PUBLISHED, VARIANTS, VanConfig, name_of, resolve
from ..configs.segmenter import SEGMENTERS, SegmenterConfig
from ..nn.build import build
from ..nn.hamburger import factorisations
from ..nn.heads.layers import ConvNormReLU
from .complexity_counter import Convention, Operations, count_operations
from .complexity_tables import COUNTED, Alternative, Complexity, Layer, SegmenterComplexity, sides

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

# Kernel side and dilation -> ImageNet-1K top-1 on B0, in percent (paper, section 4.1).
KERNELS: dict[tuple[int, int], float] = {(7, 2): 74.8, (14, 3): 75.3, (21, 3): 75.4, (28, 4): 75.4}


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
        network = build(config).eval()
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
        model = build(config).eval()
    operations = count_operations(model, torch.empty(1, config.backbone.in_chans, *pixels, device="meta"))
    by_part = {name: sum(tensor.numel() for tensor in part.parameters()) for name, part in model.named_children()}
    return SegmenterComplexity(
        parameters=sum(by_part.values()),
        by_part={name: count for name, count in by_part.items() if count},
        macs=operations.total["macs"],
        matmul_macs=operations.total["matmul"],
        torchprofile=operations.in_convention(TORCHPROFILE) + _idle(model, config, pixels),
        mmcv=operations.in_convention(MMCV_SEGMENTATION) + _rectified(model, operations),
    )


def _rectified(model: nn.Module, operations: Operations) -> int:
    """Elements of the ReLUs that mmcv's counter meets: those of convolution modules, which are modules there."""
    convolutions = [name for name, module in model.named_modules() if isinstance(module, ConvNormReLU)]
    return sum(operations.by_module[name]["relu"] for name in convolutions if name in operations.by_module)


def _idle(model: nn.Module, config: SegmenterConfig, pixels: tuple[int, int]) -> int:
    """What the published Ham heads do in vain and ours do not, so that no counter can find it here.

    They multiply by a constant 1 and, the light ones, resize stage 2 to its own size.
    """
    light = config.method == "light_ham"
    stage = 1 if light else -1
    stride, width = config.backbone.reductions[stage], config.backbone.embed_dims[stage]
    positions = -(-pixels[0] // stride) * -(-pixels[1] // stride)
    extras = sum(positions * nmf.rank + 2 for nmf in factorisations(model))  # and two products of plain numbers
    return extras + (4 * positions * width if light else 0)


def write_counted() -> None:
    """Count every classifier and segmenter at its usual size, for `complexity_tables`."""
    classifiers = {}
    for cost in variants():
        layers = [[*(getattr(layer, name) for name in Layer.__dataclass_fields__)] for layer in cost.layers]
        totals = {"macs": cost.macs, "mmcv": cost.mmcv, "mmcv_without_layer_norm": cost.mmcv_without_layer_norm}
        classifiers[cost.name] = totals | {"layers": layers}
    segmenters = {name: asdict(describe_segmenter(config)) for name, config in SEGMENTERS.items()}
    COUNTED.write_text(_lines({"classifiers": classifiers, "segmenters": segmenters}), encoding="utf-8")


def _lines(value: Any, indent: str = "\n ") -> str:
    """JSON with a line for every model and every layer."""
    if isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
        rows = [f"{json.dumps(key)}: {_lines(inner, indent + ' ')}" for key, inner in value.items()]
        return "{" + ",".join(indent + row for row in rows) + indent[:-1] + "}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[" + ",".join(indent + json.dumps(row) for row in value) + indent[:-1] + "]"
    return json.dumps(value)
