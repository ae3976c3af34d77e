"""What the original code bases do not know about a network that we write into their formats."""

from __future__ import annotations

from collections.abc import Collection

from ..configs.backbone import VanConfig
from .checkpoint import Checkpoint
from .reading import COUNTER, counters_of


class ReadBack(str):
    """A limit of the original code alone: van finds the value in its own record when it reads the file."""

    __slots__ = ()


def beyond_original(checkpoint: Checkpoint, who: str, *built_in: str, layer_norm_eps: float | None = None) -> list[str]:
    """Sentences on fields that only van's record in the file holds.

    built_in: fields besides those of the attention that the original code cannot change.
    layer_norm_eps: what the original code assumes; None when the format has a place for it.
    """
    config, published = checkpoint.backbone, VanConfig()
    lost: list[str] = []
    if config.num_stages != published.num_stages:
        return [ReadBack(f"{config.num_stages} stages: {who} has {published.num_stages}")]
    for name in ("attention", "kernel_size", "dilation", *built_in):
        if getattr(config, name) != getattr(published, name):
            ours, theirs = getattr(config, name), getattr(published, name)
            lost.append(ReadBack(f"{name}={ours!r}: {who} has {theirs!r} built in"))
    if layer_norm_eps is not None and config.layer_norm_eps != layer_norm_eps:
        lost.append(ReadBack(f"layer_norm_eps={config.layer_norm_eps:g}: {who} assumes {layer_norm_eps:g}"))
    return lost


def no_counters(checkpoint: Checkpoint, who: str) -> list[str]:
    """A sentence on the BatchNorm counters, which only van's record in the file holds."""
    counters = counters_of(checkpoint)
    return [ReadBack(f"{len(counters)} BatchNorm counters ({COUNTER}): {who} has none")] if counters else []


def extra_tensors(checkpoint: Checkpoint, known: Collection[str] = ()) -> list[str]:
    """A sentence on tensors that belong to no classifier and have no place in the format."""
    left = [key for key in checkpoint.extra if key not in known]
    return [f"{len(left)} tensors that belong to no classifier, e.g. {left[0]}"] if left else []
