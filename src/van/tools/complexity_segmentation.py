"""Parameters and multiply-adds of segmenters, in plain MACs and in the conventions of the published tables.

The network runs once on the meta device, so nothing is computed and no memory is needed.

| convention | what is counted | which table |
|---|---|---|
| `macs` | convolutions and linear layers, no bias | none |
| `macs` + `matmul_macs` | and the matrix products of the NMF | none |
| `torchprofile` | those; 1 per element of a multiplication and of a batch, layer or group norm; 4 per element of a bilinear resize, the last one to the image included; 1 per pooled element | VAN segmentation code of 2022-03, 512 x 512 |
| `mmcv` | convolutions with bias; 2 per element of a layer or group norm; 1 per element that a head's convolution module rectifies and that pooling reads; no matrix products, no synchronised BatchNorm | the same of 2022-07, 2048 x 512 |

The auxiliary head is never run; the published parameters include it.
"""  # noqa: E501  # a table row has no line breaks

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..configs.segmenter import SegmenterConfig
from ..nn.hamburger import factorisations
from ..nn.heads.layers import ConvNormReLU
from ..nn.segmenter import Segmenter


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
PUBLISHED: dict[str, tuple[PublishedCost, ...]] = {
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
class SegmenterComplexity:
    """What a segmenter costs; operations for one image of the size asked for.

    parameters: all, auxiliary head included; by_part: of backbone, neck, head and auxiliary.
    macs, matmul_macs, torchprofile, mmcv: see the module's table.
    """

    parameters: int
    by_part: dict[str, int]
    macs: int
    matmul_macs: int
    torchprofile: int
    mmcv: int


def measure_segmenter(config: SegmenterConfig, size: tuple[int, int] = (512, 512)) -> SegmenterComplexity:
    """Count the parameters of a configuration, and its operations on one image of (H, W) pixels."""
    with torch.device("meta"):
        model = Segmenter(config).eval()
    backbone, head = Counter[str](), Counter[str]()
    rectified = _count_rectified(model)
    with torch.no_grad():
        images = torch.empty(1, config.backbone.in_chans, *size, device="meta")
        with _Operations(backbone):
            pyramid = model.backbone(images)
        with _Operations(head):
            logits = model.head(model.neck(pyramid))
            nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    total = backbone + head
    parts = {"backbone": model.backbone, "neck": model.neck, "head": model.head, "auxiliary": model.auxiliary}
    by_part = {name: _parameters(part) for name, part in parts.items() if part is not None}
    norms = 2 * (total["layer_norm"] + total["group_norm"])
    return SegmenterComplexity(
        parameters=sum(by_part.values()),
        by_part={name: count for name, count in by_part.items() if count},
        macs=total["macs"],
        matmul_macs=total["matmul"],
        torchprofile=_torchprofile(total) + _published_extras(model, pyramid),
        mmcv=total["macs"] + total["bias"] + norms + rectified["elements"] + total["pool_input"],
    )


def _torchprofile(n: Counter[str]) -> int:
    ones = ("macs", "matmul", "batch_norm", "layer_norm", "group_norm", "multiply", "pooled")
    return sum(n[name] for name in ones) + 4 * n["bilinear"]


def _published_extras(model: Segmenter, pyramid: tuple[Tensor, ...]) -> int:
    """What the published Ham heads do in vain: multiply by a constant 1, resize stage 2 to its own size."""
    light = model.config.method == "light_ham"
    level = pyramid[1] if light else pyramid[-1]
    positions = level.shape[-2] * level.shape[-1]
    extras = sum(positions * nmf.rank + 2 for nmf in factorisations(model))  # and two products of plain numbers
    return extras + (4 * level.numel() if light else 0)


def _parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _count_rectified(model: Segmenter) -> Counter[str]:
    elements = Counter[str]()

    def add(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        elements["elements"] += output.numel()

    for module in model.modules():
        if isinstance(module, ConvNormReLU):
            module.register_forward_hook(add)
    return elements


class _Operations(TorchDispatchMode):
    """Counts what the operators under it would do."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        first = out[0] if isinstance(out, tuple | list) else out
        if name == "convolution":
            self.counts["macs"] += first.numel() * math.prod(args[1].shape[1:])
            self.counts["bias"] += first.numel() if args[2] is not None else 0
        elif name in ("mm", "bmm"):
            self.counts["matmul"] += first.numel() * args[0].shape[-1]
        elif name in ("mean", "_adaptive_avg_pool2d"):
            self.counts["pooled"] += first.numel()
            self.counts["pool_input"] += args[0].numel()
        elif name in _ELEMENTS:
            self.counts[_ELEMENTS[name]] += first.numel()
        return out


_ELEMENTS = {
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "mul": "multiply",
    "upsample_bilinear2d": "bilinear",
}
