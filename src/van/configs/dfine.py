"""D-FINE, the real-time detector, on the backbone's last three maps, with its options: pure data, stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .backbone import VARIANTS
from .object_config import DetectorConfig


@dataclass(frozen=True, kw_only=True)
class DFineConfig(DetectorConfig):
    """One D-FINE; images are stretched to squares of `min_size`."""

    section: ClassVar[str] = "dfine"
    prefix: ClassVar[str] = "dfine"
    stretched: ClassVar[bool] = True

    min_size: int = 640
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    detections_per_image: int = 300


DFINES: dict[str, DFineConfig] = {
    f"dfine_{name}": DFineConfig(backbone=variant.with_options(num_classes=0)) for name, variant in VARIANTS.items()
}
