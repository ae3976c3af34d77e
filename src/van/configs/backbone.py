"""The sizes of the Visual Attention Network and the options of its architecture: pure data, stdlib only.

Source: arXiv 2202.09741, table 2 (sizes), section 3.1 (decomposition), table 4 (ablations).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from ..errors import ConfigError, UnknownNameError, UnknownOptionError
from .model_config import ModelConfig

# What each value of `VanConfig.attention` does to large kernel attention, with the paper's ImageNet-1K top-1 on B0.
ATTENTION_OPTIONS: dict[str, tuple[str, float]] = {
    "lka": ("as published: depthwise, dilated depthwise, 1x1, multiplied with the input", 75.4),
    "no_dw": ("without the depthwise convolution", 74.9),
    "no_dw_d": ("without the dilated depthwise convolution", 74.1),
    "no_1x1": ("without the 1x1 convolution", 74.6),
    "add": ("added to the input instead of multiplied", 74.6),
    "sigmoid": ("sigmoid on the attention map before the multiplication", 75.2),
    "none": ("no attention: the convolutions' output itself", 74.3),
}


@dataclass(frozen=True, kw_only=True)
class VanConfig(ModelConfig):
    """One Visual Attention Network: what it computes, and how it is regularised and frozen in training.

    Fields are checked on construction; impossible ones raise ConfigError.

    embed_dims, depths, mlp_ratios, patch_sizes, strides: one entry per stage (any number of stages).
    strides: () means patch_size // 2 + 1 (7 -> 4, 3 -> 2), so a pyramid at strides 4, 8, 16, 32.
    in_chans: channels of the input image.
    num_classes: width of the classifier; 0 for features.
    layer_norm_eps: belongs to the lineage of the weights, 1e-6 (official) or 1e-5 (OpenMMLab).
    kernel_size, dilation: the K x K kernel that attention decomposes into (2d-1)² depthwise, ceil(K/d)² depthwise
        with dilation d, and 1x1.
    attention: a key of ATTENTION_OPTIONS.
    drop_rate: dropout inside the feed-forward layers; head_drop_rate: before the classifier.
    drop_path_rate: of the last block; grows linearly over all blocks from 0.
    layer_scale_init: initial value of both layer scales.
    out_indices: stages that the backbone returns, 0-based; () means all.
    frozen_stages: stages 0 … n are frozen (-1: none); their norms stay in eval mode.
    norm_eval: every BatchNorm stays in eval mode while training.
    """

    task: ClassVar[str] = "classification"
    noun: ClassVar[str] = "classifier"
    pipeline_tag: ClassVar[str] = "image-classification"
    fixed_size_graphs: ClassVar[bool] = True

    embed_dims: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (3, 3, 5, 2)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = ()
    in_chans: int = 3
    num_classes: int = 1000
    layer_norm_eps: float = 1e-6
    kernel_size: int = 21
    dilation: int = 3
    attention: str = "lka"
    drop_rate: float = 0.0
    head_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    layer_scale_init: float = 1e-2
    out_indices: tuple[int, ...] = ()
    frozen_stages: int = -1
    norm_eval: bool = False

    def __post_init__(self) -> None:
        for name in ("embed_dims", "depths", "mlp_ratios", "patch_sizes", "strides", "out_indices"):
            object.__setattr__(self, name, _tuple(name, getattr(self, name)))
        _check_types(self)
        if not self.strides:
            object.__setattr__(self, "strides", tuple(size // 2 + 1 for size in self.patch_sizes))
        if not self.out_indices:
            object.__setattr__(self, "out_indices", tuple(range(len(self.embed_dims))))
        _check(self)

    @property
    def backbone(self) -> VanConfig:
        """The backbone alone: this configuration without a head."""
        return self if not self.num_classes else replace(self, num_classes=0)

    @property
    def architecture(self) -> VanConfig:
        """This configuration itself."""
        return self

    @property
    def name(self) -> str:
        """Name of the published size with these widths, depths and ratios, else 'van_custom'."""
        return name_of(self)

    @property
    def method(self) -> str:
        """The kind of head."""
        return "classification"

    @property
    def num_stages(self) -> int:
        """How many stages the pyramid has."""
        return len(self.embed_dims)

    @property
    def near_kernel(self) -> int:
        """Side of the undilated depthwise kernel, 2d - 1."""
        return 2 * self.dilation - 1

    @property
    def far_kernel(self) -> int:
        """Side of the dilated depthwise kernel, ceil(K / d)."""
        return math.ceil(self.kernel_size / self.dilation)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Stride of each stage's map with respect to the image (4, 8, 16, 32 as published)."""
        return tuple(math.prod(self.strides[: i + 1]) for i in range(self.num_stages))

    @property
    def drop_path_rates(self) -> tuple[tuple[float, ...], ...]:
        """Drop path of every block, per stage: linear over the blocks of the whole network."""
        total, rates, k = sum(self.depths), [], 0
        for depth in self.depths:
            rates.append(tuple(self.drop_path_rate * (k + j) / max(total - 1, 1) for j in range(depth)))
            k += depth
        return tuple(rates)

    def hidden_dim(self, stage: int) -> int:
        """Width of the feed-forward layers of a stage."""
        return int(self.embed_dims[stage] * self.mlp_ratios[stage])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict of every field."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VanConfig:
        """Inverse of `to_dict`; an unknown key raises UnknownNameError."""
        return replace(cls(), **_known_fields(values))

    def with_options(self, **options: Any) -> VanConfig:
        """A copy with fields replaced; strides and out_indices follow a changed architecture unless given."""
        _known_fields(options)
        if "patch_sizes" in options:
            options.setdefault("strides", ())
        if "embed_dims" in options and len(_tuple("embed_dims", options["embed_dims"])) != self.num_stages:
            options.setdefault("out_indices", ())
        return replace(self, **options)


def _known_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(VanConfig)]
    for name in values:
        if name not in known:
            raise UnknownOptionError.of("architecture option", name, known)
    return dict(values)


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if value is None and name in ("strides", "out_indices"):
        return ()
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise ConfigError(f"{name} is {value!r}; expected one number per stage, e.g. (32, 64, 160, 256)")
    return tuple(value)


# What no network needs more of; a size beyond is a damaged file or a slip, and would fill the memory.
_MOST = {
    "embed_dims": 2**20,
    "depths": 2**16,
    "mlp_ratios": 2**10,
    "patch_sizes": 2**10,
    "strides": 2**10,
    "in_chans": 2**16,
    "num_classes": 2**24,
    "kernel_size": 2**12,
    "dilation": 2**10,
    "layer_scale_init": 2**20,
}
_WHOLE = (
    *("embed_dims", "depths", "patch_sizes", "strides", "out_indices", "in_chans", "num_classes"),
    *("kernel_size", "dilation", "frozen_stages"),
)


def check_number(name: str, value: Any, *, whole: bool) -> None:
    """Raises ConfigError for what is no finite number, or no whole one where one is needed."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    infinite = number and not isinstance(value, numbers.Integral) and not math.isfinite(value)
    if not number or infinite or (whole and value != int(value)):
        words = "every entry must be a whole number" if whole else "expected a finite number"
        raise ConfigError(f"{name} is {value!r:.80}; {words}")


def _check_types(c: VanConfig) -> None:
    for field in fields(c):
        value = getattr(c, field.name)
        if field.name in ("attention", "norm_eval"):
            kind = str if field.name == "attention" else bool
            if not isinstance(value, kind):
                raise ConfigError(f"{field.name} is {value!r:.80}; expected a {kind.__name__}")
            continue
        for each in value if isinstance(value, tuple) else (value,):
            check_number(field.name, each, whole=field.name in _WHOLE)
            if abs(each) > _MOST.get(field.name, abs(each)):
                raise ConfigError(f"{field.name} is beyond what a network can have: at most {_MOST[field.name]:,}")


def _check(c: VanConfig) -> None:
    for name in ("depths", "mlp_ratios", "patch_sizes", "strides"):
        if len(getattr(c, name)) != c.num_stages:
            raise ConfigError(
                f"{name} has {len(getattr(c, name))} entries, embed_dims has {c.num_stages}; give one entry per stage"
            )
    for name in ("embed_dims", "depths", "mlp_ratios", "patch_sizes", "strides"):
        if not getattr(c, name) or any(value <= 0 for value in getattr(c, name)):
            raise ConfigError(f"{name} is {getattr(c, name)}; every entry must be positive")
    for name in ("in_chans", "kernel_size", "dilation"):
        if getattr(c, name) < 1:
            raise ConfigError(f"{name} is {getattr(c, name)}; it must be at least 1")
    if c.num_classes < 0:
        raise ConfigError(f"num_classes is {c.num_classes}; use 0 for features, else the number of classes")
    for name in ("drop_rate", "head_drop_rate", "drop_path_rate"):
        if not 0 <= getattr(c, name) < 1:
            raise ConfigError(f"{name} is {getattr(c, name)}; expected a probability in [0, 1)")
    if not 0 < c.layer_norm_eps <= 1:
        raise ConfigError(
            f"layer_norm_eps is {c.layer_norm_eps}; it must be positive and small (1e-6 official, 1e-5 OpenMMLab)"
        )
    if c.attention not in ATTENTION_OPTIONS:
        raise UnknownNameError.of("attention option", c.attention, ATTENTION_OPTIONS)
    if any(not 0 <= i < c.num_stages for i in c.out_indices):
        raise ConfigError(f"out_indices is {c.out_indices}; expected stages between 0 and {c.num_stages - 1}")
    if not -1 <= c.frozen_stages < c.num_stages:
        raise ConfigError(f"frozen_stages is {c.frozen_stages}; expected -1 (none) to {c.num_stages - 1}")


_B1_DIMS, _B5_DIMS = (64, 128, 320, 512), (96, 192, 480, 768)

# Paper table 2. B6's third stage is 384 wide in the paper and the official code; OpenMMLab's table counts 480.
VARIANTS: dict[str, VanConfig] = {
    "van_b0": VanConfig(),
    "van_b1": VanConfig(embed_dims=_B1_DIMS, depths=(2, 2, 4, 2)),
    "van_b2": VanConfig(embed_dims=_B1_DIMS, depths=(3, 3, 12, 3)),
    "van_b3": VanConfig(embed_dims=_B1_DIMS, depths=(3, 5, 27, 3)),
    "van_b4": VanConfig(embed_dims=_B1_DIMS, depths=(3, 6, 40, 3)),
    "van_b5": VanConfig(embed_dims=_B5_DIMS, depths=(3, 3, 24, 3)),
    "van_b6": VanConfig(embed_dims=(96, 192, 384, 768), depths=(6, 6, 90, 6)),
    "van_b6_480": VanConfig(embed_dims=_B5_DIMS, depths=(6, 6, 90, 6)),
}
ALIASES = {"van_tiny": "van_b0", "van_small": "van_b1", "van_base": "van_b2", "van_large": "van_b3"}

# Published figures: parameters in millions, multiply-adds in G at 224², ImageNet-1K top-1 in percent (paper table 5;
# B6: parameters and G of the paper for 384, of OpenMMLab's table for 480).
PUBLISHED: dict[str, tuple[float, float, float | None]] = {
    "van_b0": (4.11, 0.88, 75.4),
    "van_b1": (13.86, 2.52, 81.1),
    "van_b2": (26.58, 5.03, 82.8),
    "van_b3": (44.77, 8.99, 83.9),
    "van_b4": (60.28, 12.22, 84.2),
    "van_b5": (89.97, 17.21, None),
    "van_b6": (199.8, 38.4, None),
    "van_b6_480": (283.9, 55.28, None),
}


def resolve(name: str) -> str:
    """Canonical variant name of `name` (aliases and dashes allowed); raises UnknownNameError."""
    key = name.lower().replace("-", "_")
    key = ALIASES.get(key, key)
    if key not in VARIANTS:
        raise UnknownNameError.of("model", name, [*VARIANTS, *ALIASES])
    return key


def name_of(config: VanConfig) -> str:
    """Name of the published size with these widths, depths and ratios, else 'van_custom'."""
    for name, variant in VARIANTS.items():
        if all(getattr(config, field) == getattr(variant, field) for field in ("embed_dims", "depths", "mlp_ratios")):
            return name
    return "van_custom"
