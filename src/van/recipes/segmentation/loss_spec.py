"""The loss of a segmenter, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import ConfigError
from ..checks import at_least, check_weights, in_range, one_of

LOSSES = ("cross_entropy", "dice", "lovasz", "focal")


@dataclass(frozen=True, kw_only=True)
class SegmentationLossSpec:
    """A weighted sum of losses at the size of the crop, of the head and of the auxiliary head.

    cross_entropy, dice, lovasz, focal: weight of each loss; 0: not used. Dice and Lovász-Softmax measure the overlap of
    every class over the whole batch, focal loss is a yes or no for every class at every pixel.
    focal_gamma: how far focal loss turns away from pixels that are right already; None: 2.
    focal_alpha: weight of a yes in focal loss, that of a no is 1 - alpha; None: both 1.
    auxiliary_weight: of the auxiliary head's loss; networks without that head have none.
    class_weights: factors of the classes in every loss: a number per class in label order (`van doctor` suggests
    some), numbers by class name, the others 1, or "balanced" (pixels / (classes x pixels of the class), counted before
    training in up to 1000 label maps); None: all alike.
    ohem_threshold: online hard example mining in cross-entropy: only pixels whose right class has a lower probability
    count; None: all.
    ohem_min_kept: as many pixels per image as count at least, the hardest; needs ohem_threshold.
    ohem_top_k: mining without a threshold: so many pixels per image count, those with the largest loss.
    average: of cross-entropy: "pixels" divides by all pixels, the ignored and the easy ones included, as published;
    "labelled" by those with a label.
    """

    cross_entropy: float = 1.0
    dice: float = 0.0
    lovasz: float = 0.0
    focal: float = 0.0
    focal_gamma: float | None = None
    focal_alpha: float | None = None
    auxiliary_weight: float = 0.4
    class_weights: tuple[float, ...] | dict[str, float] | str | None = None
    ohem_threshold: float | None = None
    ohem_min_kept: int | None = None
    ohem_top_k: int | None = None
    average: str = "pixels"

    def __post_init__(self) -> None:
        for name in (*LOSSES, "auxiliary_weight"):
            in_range(f"loss.{name}", getattr(self, name), 0, math.inf)
        one_of("loss.average", self.average, ("pixels", "labelled"))
        if self.class_weights is not None:
            check_weights(self.class_weights)
        if not any(getattr(self, name) for name in LOSSES):
            raise ConfigError(f"the weights of {', '.join(LOSSES)} are all 0; give one, e.g. loss.cross_entropy 1")
        self._check_mining()
        self._check_owners()

    def _check_mining(self) -> None:
        if self.ohem_threshold is not None:
            in_range("loss.ohem_threshold", self.ohem_threshold, 0, 1)
        for name in ("ohem_min_kept", "ohem_top_k"):
            at_least(f"loss.{name}", getattr(self, name), 1)
        if self.ohem_min_kept is not None and self.ohem_threshold is None:
            raise ConfigError(
                "loss.ohem_min_kept belongs to mining by a threshold; set loss.ohem_threshold too, e.g. 0.7, or use "
                "loss.ohem_top_k"
            )
        if self.ohem_top_k is not None and self.ohem_threshold is not None:
            raise ConfigError("loss.ohem_top_k and ohem_threshold choose pixels in two ways; leave one of them out")

    def _check_owners(self) -> None:
        """Options of a loss that is not used."""
        mining = self.ohem_threshold is not None or self.ohem_top_k is not None
        if not self.cross_entropy and (mining or self.average != "pixels"):
            option = "mining" if mining else "loss.average"
            raise ConfigError(f"{option} belongs to cross-entropy, and loss.cross_entropy is 0; leave it out")
        for name in ("focal_gamma", "focal_alpha"):
            value = getattr(self, name)
            if value is not None and not self.focal:
                raise ConfigError(f"loss.{name} belongs to focal loss; give it a weight, e.g. loss.focal 1")
        if self.focal_gamma is not None:
            in_range("loss.focal_gamma", self.focal_gamma, 0, math.inf)
        if self.focal_alpha is not None:
            in_range("loss.focal_alpha", self.focal_alpha, 0, 1)
