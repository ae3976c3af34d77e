"""The network and the weights it starts from, as data: what every task's section has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..configs.backbone import ATTENTION_OPTIONS
from ..errors import ConfigError
from .checks import check_head, in_range, one_of

# Far beyond every network; larger ones would fill the memory before any check.
_LARGEST = {
    "in_chans": 10_000, "embed_dims": 100_000, "depths": 1000, "mlp_ratios": 1000, "patch_sizes": 1000, "strides": 1000,
    "kernel_size": 1000, "dilation": 1000,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BaseModelSpec:
    """The network, and the weights it starts from.

    checkpoint: file, folder or hub id of any published format to start from; None: fresh weights.
    reset_head: start with a fresh head even if the checkpoint's fits the classes.
    keep_head: the checkpoint's head whatever its classes are called, in the order of the data's; without it the head
    stays where both name the same classes: letter case, blanks, "-" and "_" apart, in any order.
    grad_checkpointing: recompute blocks in the backward pass: less memory, more time.
    drop_path_rate, frozen_stages, norm_eval, layer_norm_eps, layer_scale_init, attention, kernel_size, dilation,
    embed_dims, depths, mlp_ratios, patch_sizes, strides: of the backbone, as in VanConfig; None keeps what the model or
    the checkpoint has.
    """

    name: str | None = None
    checkpoint: str | None = None
    reset_head: bool = False
    keep_head: bool = False
    grad_checkpointing: bool = False
    drop_path_rate: float | None = None
    frozen_stages: int | None = None
    norm_eval: bool | None = None
    layer_norm_eps: float | None = None
    layer_scale_init: float | None = None
    attention: str | None = None
    kernel_size: int | None = None
    dilation: int | None = None
    embed_dims: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None
    mlp_ratios: tuple[float, ...] | None = None
    patch_sizes: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.attention is not None:
            one_of("model.attention", self.attention, ATTENTION_OPTIONS)
        for name, high in _LARGEST.items():
            value = getattr(self, name, None)
            for number in value if isinstance(value, tuple) else (value,) if value is not None else ():
                in_range(f"model.{name}", number, 0, high)
        check_head(self)
        if self.layer_scale_init is not None and self.checkpoint is not None:
            raise ConfigError("model.layer_scale_init has no effect on a checkpoint's weights; leave one of them out")

    def options(self) -> dict[str, Any]:
        """The fields of the model's configuration that are set."""
        own = ("name", "checkpoint", "reset_head", "keep_head", "grad_checkpointing")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in own}
        return {name: value for name, value in values.items() if value is not None}
