"""D-FINE, the real-time detector, on the backbone's last three maps, with its options: pure data, stdlib only.

Source: arXiv 2410.13842 and its official configurations, whose sizes S, M, L and X these are. None has a VAN as
backbone: which size goes with which VAN is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .backbone import VARIANTS, check_number
from .object_config import DetectorConfig

_WHOLE = (
    *("encoder_channels", "encoder_feed_forward", "hidden_size", "feed_forward"),
    *("heads", "decoder_layers", "queries", "bins", "quality_hidden"),
)
_UNSIGNED = ("label_noise", "box_noise")
_POSITIVE = ("depth_multiplier", "expansion", "regression_scale", "regression_limit")
LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class DFineConfig(DetectorConfig):
    """One D-FINE; images are stretched to squares of `min_size`.

    encoder_channels, encoder_feed_forward, encoder_layers: of the hybrid encoder; layers of self-attention on the
    coarsest map. depth_multiplier, expansion: of its fusion blocks: 3 times the former convolutions, hidden channels.
    hidden_size, feed_forward, decoder_layers, heads: of the decoder; `heads` is the encoder's number too.
    points: sampled by each head on each of the three maps. queries: objects that an image can have.
    bins, regression_scale, regression_limit: of the distributions over each side's offset (reg_max, reg_scale and up
    of the official code). quality_hidden: width of what adds the boxes' quality to the logits.
    denoising_queries: noisy copies of the true boxes in training, about so many per image and sign; 0: none.
    label_noise, box_noise: share of wrong labels among them, and shift of their sides relative to half the box.
    """

    section: ClassVar[str] = "dfine"
    prefix: ClassVar[str] = "dfine"
    stretched: ClassVar[bool] = True
    constants: ClassVar[tuple[str, ...]] = ("decoder.up", "decoder.reg_scale", "num_points_scale")

    min_size: int = 640
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    score_threshold: float = 0.0
    detections_per_image: int = 300
    encoder_channels: int = 256
    encoder_feed_forward: int = 1024
    encoder_layers: int = 1
    depth_multiplier: float = 1.0
    expansion: float = 1.0
    hidden_size: int = 256
    feed_forward: int = 1024
    decoder_layers: int = 6
    heads: int = 8
    points: tuple[int, ...] = (3, 6, 3)
    queries: int = 300
    bins: int = 32
    regression_scale: float = 4.0
    regression_limit: float = 0.5
    quality_hidden: int = 64
    denoising_queries: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0

    @property
    def size_fields(self) -> tuple[str, ...]:
        """See ObjectConfig."""
        return (*super().size_fields, *_WHOLE)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder_layers", "denoising_queries"):
            check_number(name, getattr(self, name), whole=True)
            most = 64 if name == "encoder_layers" else 2**16
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}; expected 0 to {most:,}")
        for name in (*_UNSIGNED, *_POSITIVE):
            check_number(name, getattr(self, name), whole=False)
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a positive number")
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(f"label_noise is {self.label_noise}; expected 0 to 1")
        if self.box_noise < 0:
            raise ConfigError(f"box_noise is {self.box_noise}; expected a number from 0")
        self._check_widths()
        self._check_maps()

    def _check_widths(self) -> None:
        for name in ("encoder_channels", "hidden_size"):
            if getattr(self, name) % self.heads:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a multiple of heads, {self.heads}")
        if self.encoder_channels % 4:
            raise ConfigError(
                f"encoder_channels is {self.encoder_channels}; expected a multiple of 4, for the encoding of positions"
            )
        if round(self.expansion * self.encoder_channels // 2) < 1:
            raise ConfigError(f"expansion is {self.expansion}, which leaves no channels of {self.encoder_channels}")
        if not isinstance(self.points, tuple) or len(self.points) != LEVELS:
            raise ConfigError(f"points is {self.points}; expected {LEVELS} entries, one per map of the backbone")
        for count in self.points:
            check_number("points", count, whole=True)
            if not 1 <= count <= 64:
                raise ConfigError(f"points is {self.points}; expected 1 to 64 for each map")
        if self.bins < 4 or self.bins % 2:
            raise ConfigError(f"bins is {self.bins}; expected an even number from 4")

    def _check_maps(self) -> None:
        steps = self.backbone.strides[2:]
        if steps != (2, 2):
            raise ConfigError(f"the backbone's last two strides are {steps}; D-FINE joins maps of strides 1 : 2 : 4")
        step = max(self.backbone.reductions[-1], self.size_divisor)
        if self.min_size % step:
            raise ConfigError(f"min_size is {self.min_size}; expected a multiple of {step}: squares are not padded")
        cells = self.cells(self.min_size, self.min_size)
        if self.queries > cells:
            raise ConfigError(
                f"queries is {self.queries}, but images of {self.min_size} pixels give {cells} places to choose them "
                "from; lower queries or enlarge min_size"
            )

    def cells(self, height: int, width: int) -> int:
        """Places on the three maps of an image, of which the queries are chosen."""
        return sum(-(-height // step) * -(-width // step) for step in self.backbone.reductions[-LEVELS:])


_S: dict[str, Any] = {"depth_multiplier": 0.34, "expansion": 0.5, "decoder_layers": 3}
_M: dict[str, Any] = {"depth_multiplier": 0.67, "decoder_layers": 4}
_L: dict[str, Any] = {}
_X: dict[str, Any] = {"encoder_channels": 384, "encoder_feed_forward": 2048, "regression_scale": 8.0}
SIZES = {"van_b0": _S, "van_b1": _M, "van_b2": _L, "van_b3": _L, "van_b4": _X, "van_b5": _X, "van_b6": _X}

DFINES: dict[str, DFineConfig] = {
    f"dfine_{name}": DFineConfig(backbone=variant.with_options(num_classes=0), **SIZES[name[:6]])
    for name, variant in VARIANTS.items()
}
