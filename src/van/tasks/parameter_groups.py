"""Parameters in groups of one weight decay and, with layer decay, one learning rate."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Place = tuple[float, float]


def grouped(
    network: nn.Module, decays: Callable[[str, Tensor], bool], *, weight_decay: float, decayed_first: bool
) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, those that decay and those that are spared; an empty one is left out.

    decayed_first: the order of the groups, on which the optimizer states in checkpoints depend.
    """
    groups: dict[bool, list[nn.Parameter]] = {decayed_first: [], not decayed_first: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[decays(name, parameter)].append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay if decayed else 0.0}
        for decayed, members in groups.items()
        if members
    ]


def grouped_by_layer(
    network: nn.Module,
    decays: Callable[[str, Tensor], bool],
    layer: Callable[[str], Place],
    *,
    weight_decay: float,
    layer_decay: float | None,
    decayed_first: bool = False,
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of one layer and one weight decay each; None: one rate for all layers.

    A group's `lr_scale` is its share of the rate: the last layer learns at the full rate, every earlier one at
    `layer_decay` of the next one's.
    """
    if layer_decay is None:
        return grouped(network, decays, weight_decay=weight_decay, decayed_first=decayed_first)
    numbers = {
        key: number for number, key in enumerate(sorted({layer(name) for name, _ in network.named_parameters()}))
    }
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, value in network.named_parameters():
        if not value.requires_grad:
            continue
        number, decayed = numbers[layer(name)], decays(name, value)
        group = {
            "params": [],
            "lr_scale": layer_decay ** (len(numbers) - 1 - number),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        groups.setdefault((number, decayed), group)["params"].append(value)
    return list(groups.values())


def stage_and_block(name: str) -> Place:
    """(stage, place) of a parameter of a model with a backbone, which sort from the image to the output.

    Every patch embedding and block is a layer; a stage's last norm is one too, and all behind the backbone one more.
    """
    found = re.match(r"backbone\.stages\.(\d+)\.(?:(patch_embed)|blocks\.(\d+)|norm)", name)
    if found is None:
        return float("inf"), 0.0
    place = -1.0 if found[2] else float("inf") if found[3] is None else float(found[3])
    return float(found[1]), place
