"""The loss of a classifier and its teacher, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import ConfigError
from ..checks import check_weights, in_range, one_of

LOSSES = ("cross_entropy", "bce", "jsd")
DISTILLATIONS = ("soft", "hard")


@dataclass(frozen=True, kw_only=True)
class CriterionSpec:
    """What training minimises; label smoothing and mixed labels come from `augment`.

    class_weights: of cross_entropy, which becomes the weighted mean: "balanced" (images / (classes x images of the
    class), so that every class weighs the same in an epoch), a number per class in label order, or numbers by class
    name, the others 1; None: every image weighs the same. Validation's loss stays unweighted.
    name: "cross_entropy"; "bce", a yes or no for every class; "jsd", cross-entropy of the clean version of an image
    and the Jensen-Shannon divergence between all versions (AugMix; needs augment.splits).
    bce_threshold: targets above it count as 1, the others as 0; None: targets as they are.
    bce_sum: add the classes up instead of averaging over them.
    jsd_alpha: weight of the divergence; None: 12.
    teacher: checkpoint of a classifier with the same classes, whose answers are learnt too; None: no teacher.
    distill: "soft" (its probabilities), or "hard" (its first choice).
    distill_weight: share of the teacher's loss; the labels' has the rest.
    temperature: of soft distillation.
    """

    name: str = "cross_entropy"
    class_weights: tuple[float, ...] | dict[str, float] | str | None = None
    bce_threshold: float | None = None
    bce_sum: bool = False
    jsd_alpha: float | None = None
    teacher: str | None = None
    distill: str | None = None
    distill_weight: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        one_of("loss.name", self.name, LOSSES)
        if self.name != "bce" and (self.bce_threshold is not None or self.bce_sum):
            raise ConfigError("loss.bce_threshold and bce_sum belong to loss.name bce; leave them out")
        if self.bce_threshold is not None:
            in_range("loss.bce_threshold", self.bce_threshold, 0, 1)
        if self.jsd_alpha is not None:
            if self.name != "jsd":
                raise ConfigError("loss.jsd_alpha belongs to loss.name jsd; leave it out")
            in_range("loss.jsd_alpha", self.jsd_alpha, 0, math.inf)
        if self.class_weights is not None:
            self._check_weights(self.class_weights)
        self._check_teacher()

    def _check_weights(self, weights: tuple[float, ...] | dict[str, float] | str) -> None:
        if self.name != "cross_entropy":
            raise ConfigError(
                f"loss.class_weights belongs to loss.name cross_entropy, not to {self.name}; leave it out"
            )
        check_weights(weights)

    def _check_teacher(self) -> None:
        options = {name: getattr(self, name) for name in ("distill", "distill_weight", "temperature")}
        if self.teacher is None and any(value is not None for value in options.values()):
            raise ConfigError("loss.distill, distill_weight and temperature need loss.teacher, a checkpoint")
        if self.distill is not None:
            one_of("loss.distill", self.distill, DISTILLATIONS)
        if self.distill_weight is not None and not 0 < self.distill_weight <= 1:
            raise ConfigError(f"loss.distill_weight is {self.distill_weight}; expected a share above 0, up to 1")
        if self.temperature is not None and (self.distill == "hard" or not self.temperature > 0):
            raise ConfigError(
                f"loss.temperature is {self.temperature}; expected a positive number, for soft distillation only"
            )
