"""The network of a recipe that finds objects, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from ...configs.backbone import VanConfig
from ...configs.catalog import MODELS, resolve
from ...configs.object_config import ObjectConfig
from ...errors import ConfigError, with_article
from ..checks import MAX_SIDE, at_least, in_range
from ..model_spec import BaseModelSpec

_BACKBONE = frozenset(item.name for item in fields(VanConfig))


@dataclass(frozen=True, kw_only=True)
class ObjectModelSpec(BaseModelSpec):
    """The network, and the weights it starts from.

    checkpoint: file, folder or hub id to start from: a classifier's gives the backbone, one of the same kind of model
    everything; None: fresh weights.
    reset_head: fresh classifiers even if the checkpoint's fit the classes.
    keep_head: the checkpoint's classifiers whatever its classes are called, in the order of the data's; without it they
    stay where both name the same classes: letter case, blanks, "-" and "_" apart, in any order.
    min_size, max_size: images are resized to a short side of min_size pixels unless the long one would pass max_size;
    models that take squares use min_size alone; None keeps what the model or the checkpoint has.
    mean, std: of the images per channel, on the 0 … 1 scale; None keeps what the model or the checkpoint has.
    score_threshold, detections_per_image: objects that inference gives: from this score on, and at most so many; None
    keeps what the model or the checkpoint has.
    """

    # the models that can be trained, what one is called in messages, and one of them
    KNOWN: ClassVar[Mapping[str, ObjectConfig]]
    NOUN: ClassVar[str]
    EXAMPLE: ClassVar[str]

    min_size: int | None = None
    max_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    score_threshold: float | None = None
    detections_per_image: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_size", "max_size"):
            at_least(f"model.{name}", getattr(self, name), 1, MAX_SIDE)
        at_least("model.detections_per_image", self.detections_per_image, 1)
        if self.score_threshold is not None:
            in_range("model.score_threshold", self.score_threshold, 0, 1)
        if self.name is not None:
            self._check_name(resolve(self.name))

    def _check_name(self, name: str) -> None:
        if name not in self.KNOWN:
            raise ConfigError(
                f"model.name is {self.name!r}, {with_article(MODELS[name].noun)}; expected {with_article(self.NOUN)}, "
                f"e.g. {self.EXAMPLE}"
            )
        check_fields(self, self.KNOWN[name], name)


def check_fields(spec: ObjectModelSpec, config: ObjectConfig, name: str) -> None:
    """Raise ConfigError for an option that belongs to another method than that of `config`; name: of the model."""
    for option in spec.options():
        if option in _BACKBONE or option in config.own_fields():
            continue
        kinds = {each.method: each for each in spec.KNOWN.values()}
        owners = [method for method, each in kinds.items() if option in each.own_fields()]
        raise ConfigError(f"model.{option} belongs to {' and '.join(owners)}, not to {name}; leave it out")
