"""The published segmenters and the options of their heads: pure data, stdlib only.

Source: arXiv 2202.09741 (segmentation tables) and the configurations of the VAN segmentation code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError, UnknownNameError
from .backbone import ALIASES as BACKBONE_ALIASES
from .backbone import VARIANTS, VanConfig, check_number
from .backbone import name_of as backbone_name_of
from .head_config import HeadConfig

# Fields that are sizes, and more than any of them needs.
_SIZES = ("num_classes", "channels", "ham_channels", "ham_rank", "neck_channels", "auxiliary_channels")
_MOST = 2**16
METHODS = ("light_ham", "hamnet", "upernet", "semantic_fpn")
# The published tests stretch pictures to sides of a multiple of 32, but for HamNet's.
SIZE_DIVISORS = {"light_ham": 32, "hamnet": 1, "upernet": 32, "semantic_fpn": 32}


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(HeadConfig):
    """One segmenter: a backbone, a method, and the sizes of its heads.

    backbone: its `num_classes` is 0; `num_classes` of the segmenter is below.
    method: one of METHODS.
    channels: width of the head before its classifier (Semantic FPN: 128 after a neck of `neck_channels`).
    ham_channels, ham_rank: width of the Hamburger and R of its factorisation (Ham heads only).
    auxiliary: an FCN head on the third stage, trained with weight 0.4 (HamNet and UperNet as published).
    drop_rate: dropout before the classifiers.
    """

    task: ClassVar[str] = "segmentation"
    noun: ClassVar[str] = "segmenter"
    pipeline_tag: ClassVar[str] = "image-segmentation"
    section: ClassVar[str] = "segmenter"
    output_layers: ClassVar[str] = "pixel classifiers"
    output_axes: ClassVar[str] = "N, K, h, w"
    statistics: ClassVar[str] = "imagenet"

    backbone: VanConfig
    method: str
    num_classes: int = 150
    channels: int = 512
    ham_channels: int = 512
    ham_rank: int = 64
    neck_channels: int = 256
    auxiliary: bool = False
    auxiliary_channels: int = 256
    drop_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError.of("segmentation method", self.method, METHODS)
        self._check_types()
        if self.backbone.num_stages != 4:
            raise ConfigError(f"the backbone has {self.backbone.num_stages} stages; every segmentation head needs 4")
        for name in ("channels", "ham_channels"):
            if "ham" in self.method and getattr(self, name) % 32:
                raise ConfigError(f"{name} is {getattr(self, name)}; its GroupNorm needs a multiple of 32")
        if not 0 <= self.drop_rate < 1:
            raise ConfigError(f"drop_rate is {self.drop_rate}; expected a probability in [0, 1)")

    def _check_types(self) -> None:
        if not isinstance(self.auxiliary, bool):
            raise ConfigError(f"auxiliary is {self.auxiliary!r:.80}; expected true or false")
        check_number("drop_rate", self.drop_rate, whole=False)
        for name in _SIZES:
            check_number(name, getattr(self, name), whole=True)
            if not 1 <= getattr(self, name) <= _MOST:
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}; expected 1 to {_MOST:,}")

    @property
    def name(self) -> str:
        """Name of the published segmenter, else '<method>_van_custom'."""
        return name_of(self)


def _backbone(size: str, **options: Any) -> VanConfig:
    return VARIANTS[f"van_{size}"].with_options(num_classes=0, **options)


# Drop path of the published configurations; tests/test_published_recipes.py names the file of each.
_DROP_PATH = {
    "light_ham": {"b0": 0.1, "b1": 0.1, "b2": 0.1, "b3": 0.25, "b4": 0.3},
    "hamnet": {"b0": 0.1, "b1": 0.1, "b2": 0.1, "b3": 0.25},
    "upernet": {"b0": 0.1, "b1": 0.1, "b2": 0.1, "b3": 0.3, "b4": 0.4, "b5": 0.4, "b6": 0.5},
    "semantic_fpn": {"b0": 0.2, "b1": 0.2, "b2": 0.2, "b3": 0.3, "b4": 0.4},
}


def _published() -> dict[str, SegmenterConfig]:
    light_ham, hamnet, upernet, semantic_fpn = (_DROP_PATH[method] for method in METHODS)
    table = {
        f"light_ham_van_{size}_d256": SegmenterConfig(
            backbone=_backbone(size, drop_path_rate=light_ham[size]),
            method="light_ham",
            channels=256,
            ham_channels=256,
            ham_rank=16,
        )
        for size in ("b0", "b1")
    }
    for size, rate in light_ham.items():
        table[f"light_ham_van_{size}"] = SegmenterConfig(
            backbone=_backbone(size, drop_path_rate=rate),
            method="light_ham",
            ham_channels=480 if size == "b0" else 512,
        )
    for size, rate in hamnet.items():
        table[f"hamnet_van_{size}"] = SegmenterConfig(
            backbone=_backbone(size, drop_path_rate=rate, strides=(4, 2, 1, 1)),
            method="hamnet",
            auxiliary=True,
        )
    for size, rate in upernet.items():
        table[f"upernet_van_{size}"] = SegmenterConfig(
            backbone=_backbone(size, drop_path_rate=rate), method="upernet", auxiliary=True
        )
    for size, rate in semantic_fpn.items():
        table[f"semantic_fpn_van_{size}"] = SegmenterConfig(
            backbone=_backbone(size, drop_path_rate=rate), method="semantic_fpn", channels=128
        )
    return table


SEGMENTERS: dict[str, SegmenterConfig] = _published()

# Names with an alias of the backbone: light_ham_van_tiny, light_ham_van_tiny_d256, …
ALIASES: dict[str, str] = {
    name.replace(variant, alias): name
    for alias, variant in BACKBONE_ALIASES.items()
    for name in SEGMENTERS
    if variant in name
}


def resolve(name: str) -> str:
    """Canonical name of a classifier or segmenter (aliases and dashes allowed); raises UnknownNameError."""
    key = name.lower().replace("-", "_")
    key = {**BACKBONE_ALIASES, **ALIASES}.get(key, key)
    if key not in VARIANTS and key not in SEGMENTERS:
        raise UnknownNameError.of("model", name, [*VARIANTS, *SEGMENTERS, *BACKBONE_ALIASES, *ALIASES])
    return key


def name_of(config: SegmenterConfig) -> str:
    """Name of the published segmenter of this method, head width and size of backbone, else '<method>_van_custom'."""
    sizes = ("channels", "ham_channels") if "ham" in config.method else ("channels",)
    for name, published in SEGMENTERS.items():
        same = published.method == config.method and all(getattr(published, s) == getattr(config, s) for s in sizes)
        if same and backbone_name_of(published.backbone) == backbone_name_of(config.backbone):
            return name
    return f"{config.method}_van_custom"
