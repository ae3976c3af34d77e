"""What every model's configuration offers, whatever its task."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

BACKBONE = "config"  # section of every record that holds the backbone


class ModelConfig:
    """A model, entirely: what a checkpoint and an exported file carry of it.

    task: what the model is for, "classification". noun: what it is called in messages, "classifier".
    output_layers: what depends on the classes, "head". statistics: how images are prepared where no file says:
    "official" or "imagenet" (`images.preprocess.RECORDS`).
    output_axes: of what the network gives, N images and K classes first, "N, K, h, w"; "" where it gives several.
    not_exported: of a kind of model that no graph can hold: why, and what to do.
    draws_globally: whether building the model draws from torch's global generator more than its own parts do: the
    heads of other libraries do.
    fixed_size_graphs: whether OpenVINO may compile a graph of its own for the sizes that images have, which is faster.
    backbone: the configuration of the backbone, its `num_classes` 0. num_classes: of the output.
    constants: ends of the keys of the head's tensors that are no parameters, BatchNorm's statistics left out.
    pipeline_tag: what the Hub calls the task.
    architecture: what shapes the backbone: a classifier's configuration itself, else `backbone`.
    name: as `van list` has it, or one that ends in "van_custom". method: the kind of head.
    """

    task: ClassVar[str]
    noun: ClassVar[str]
    output_layers: ClassVar[str] = "head"
    statistics: ClassVar[str] = "official"
    output_axes: ClassVar[str] = "N, K"
    constants: ClassVar[tuple[str, ...]] = ()
    pipeline_tag: ClassVar[str] = "image-feature-extraction"
    draws_globally: ClassVar[bool] = False
    fixed_size_graphs: ClassVar[bool] = False
    not_exported: ClassVar[str] = ""

    if TYPE_CHECKING:
        num_classes: int
        backbone: Any
        architecture: Any

        @property
        def name(self) -> str: ...

        @property
        def method(self) -> str: ...

    @property
    def graph_size(self) -> tuple[int, int] | None:
        """(height, width) of the images that an exported graph takes; None: any."""
        return None

    @property
    def trial_size(self) -> tuple[int, int]:
        """Height and width of a small image that the model takes."""
        return 96, 96

    @property
    def input_rows(self) -> dict[str, str]:
        """How images become inputs, as (what, value) for people, where the configuration decides it."""
        return {}

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values of every field."""

    @abstractmethod
    def with_options(self, **options: Any) -> Self:
        """A copy with fields replaced; names of the backbone's fields go to the backbone."""

    def to_record(self) -> dict[str, Any]:
        """Sections of plain values, as files carry them: the backbone's under "config", a head's under its own."""
        return {BACKBONE: self.to_dict()}
