"""Training of models that find objects, counted in epochs; what the three tasks have alike.

Shapes: N batch, C channels, H, W sides of the padded batch, K objects of an image.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Sampler

from ...data.dataset import EpochSampler, GroupedSampler, ProcessShare
from ...data.infinite_sampler import spread
from ...data.objects import ObjectData, PanopticData
from ...errors import ConfigError, DataError, UnknownNameError, VanNotice
from ...nn import Model
from ...nn.object_model import ObjectModel, Target
from ...recipes.coco.data_spec import SampledDataSpec
from ...recipes.coco.recipe import ObjectRecipe
from ...recipes.coco.training_spec import BOX_SCORES
from ..parameter_groups import grouped_by_layer
from ..training import EpochTraining, Example, Key, Objective, TrainingData
from ..validation import MetricValidator, Validator
from .metric import ObjectMetric
from .network import build_object_model
from .processor import ObjectProcessor
from .resizing import Resizing
from .training_example import ObjectExample, collate

R = TypeVar("R", bound=ObjectRecipe)
BOX_COLUMNS = tuple(f"val/{name}" for name in BOX_SCORES)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class ObjectTraining(EpochTraining[R]):
    """Training of a model that finds objects by a recipe; a task adds its data and its scores.

    masks: whether training needs the objects' masks.
    """

    masks: ClassVar[bool] = False

    @abstractmethod
    def open_split(self, split: str, **options: Any) -> ObjectData | PanopticData:
        """A part of the recipe's data set; options: those that are set. Raises ConfigError, DataError."""

    def open_data(self) -> tuple[Any, Any]:
        spec = self.recipe.data
        if spec.path is None:
            raise ConfigError("no data: give --data (data.path), an annotated data set's folder or file, or 'scenes'")
        train, val = (self.open_split(split, **self._split_options()) for split in ("train", "val"))
        if not len(train) or not len(val):
            raise DataError(
                f"{spec.path} has {len(train)} training and {len(val)} validation images; expected some of each"
            )
        return train, val

    def _split_options(self) -> dict[str, Any]:
        spec = self.recipe.data
        chosen = {"seed": spec.split_seed, "val_fraction": spec.val_fraction, "scene_size": spec.scene_size}
        return {name: value for name, value in chosen.items() if value is not None}

    def fitted(self, train: TrainingData, val: TrainingData) -> R:
        """See EpochTraining; a warm-up in steps is shortened too."""
        recipe = super().fitted(train, val)
        before = recipe.schedule.warmup_steps
        steps = recipe.total_epochs * recipe.updates_per_epoch(len(train))
        if not before or before < steps:
            return recipe
        warnings.warn(
            f"schedule.warmup_steps {before} becomes {steps // 2}: the run has {steps} steps", VanNotice, stacklevel=3
        )
        return recipe.with_options(**{"schedule.warmup_steps": steps // 2})

    def example(self, train: TrainingData, network: Model) -> Example:
        assert isinstance(network, ObjectModel)
        return ObjectExample(self.recipe, network.config, masks=self.masks)

    def collate(self, examples: list[Any]) -> tuple[Tensor, list[Target]]:
        return collate(examples)

    def network(self, train: Any) -> ObjectModel:
        num_things = train.num_things if isinstance(train, PanopticData) else None
        network = build_object_model(
            self.recipe.model, train.classes, seed=self.recipe.trainer.seed, num_things=num_things
        )
        network.palette = train.palette
        return network

    def compile(self, network: Model) -> None:
        """The backbone alone: the heads work on lists of objects, whose lengths change from step to step."""
        network.backbone.compile()

    def objective(self, train: TrainingData, network: Model) -> ObjectObjective:
        return ObjectObjective(self.recipe)

    @property
    def scores(self) -> dict[str, str]:
        """The metric's names of the scores in `columns`."""
        names = [column.removeprefix("val/") for column in self.columns]
        return dict(zip(names, names, strict=True))

    def validation_indices(self, val: TrainingData) -> Sequence[int]:
        return spread(len(val), self.recipe.data.val_images)

    def is_output_layer(self, name: str) -> bool:
        return not name.startswith(("backbone.", "pyramid."))

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """By the recipe's rule of decay, with the backbone's share of the rate or that of each of its layers."""
        spec = self.recipe.optim
        norms = {
            f"{prefix}.{name}"
            for prefix, module in network.named_modules()
            if isinstance(module, NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }

        def decays(name: str, parameter: Tensor) -> bool:
            if spec.decayed == "all_but_norms":
                return name not in norms
            return spec.decayed == "everything" or parameter.ndim > 1

        options: dict[str, Any] = {"weight_decay": spec.weight_decay, "layer_decay": spec.layer_decay}
        if spec.backbone_lr_scale is None:
            return grouped_by_layer(network, decays, self.layer, **options)
        # two layers, the backbone and what stands on it
        options["layer_decay"] = spec.backbone_lr_scale
        return grouped_by_layer(network, decays, lambda name: (float(not name.startswith("backbone.")), 0.0), **options)

    def provenance(self, network: Model) -> dict[str, Any]:
        """How the data set was split, to evaluate on what was held out."""
        split = self._split_options()
        return {"split": split} if split else {}


class ObjectsTraining(ObjectTraining[R]):
    """Training of a model that finds objects one by one: boxes, and masks where it has them."""

    def sampler(self, train: TrainingData) -> Sampler[Key]:
        spec, data = self.recipe.data, cast(ObjectData, train)
        assert isinstance(spec, SampledDataSpec)
        labels = rarest_classes(data) if spec.sampling == "balanced" else None
        options: dict[str, Any] = {"seed": self.recipe.trainer.seed, "labels": labels}
        if (sizes := self._sizes(data)) is None:
            return ProcessShare(EpochSampler(len(train), **options))
        tall = (sizes[:, 0] > sizes[:, 1]).tolist()
        chunk = self.recipe.trainer.batch_size * self.recipe.trainer.devices
        return ProcessShare(GroupedSampler(len(train), groups=tall, chunk=chunk, **options))

    def _sizes(self, data: ObjectData) -> np.ndarray | None:
        """Of every image, where batches are to be of one shape; None: any images make a batch."""
        if not cast(SampledDataSpec, self.recipe.data).group_shapes:
            return None
        if (sizes := data.sizes()) is None:
            warnings.warn(
                f"data.group_shapes has no effect: {self.recipe.data.path} does not hold the sizes of its images",
                VanNotice,
                stacklevel=5,
            )
        return sizes

    def validator(self, val: TrainingData, network: Model) -> Validator:
        data = cast(ObjectData, val)
        processor = ObjectProcessor(network.config, Resizing.of(network.config), data.classes, data.palette)
        return MetricValidator(processor, ObjectMetric(data.classes, masks=self.masks), self.scores)


def rarest_classes(data: ObjectData) -> list[int]:
    """Of every image the class in it that has the fewest objects in all; the number of classes for an empty image."""
    counts = data.class_counts()
    labels = (data.labels(index) for index in range(len(data)))
    return [min(map(int, found), key=lambda label: (counts[label], label), default=len(counts)) for found in labels]


class ObjectObjective(Objective):
    """The losses of the network, weighted as the recipe says."""

    def __init__(self, recipe: ObjectRecipe) -> None:
        super().__init__(recipe)
        self.weights: Mapping[str, float] = recipe.loss.weights or {}

    def losses(self, model: ObjectModel, batch: tuple[Tensor, list[Target]], *, epoch: int) -> dict[str, Tensor]:
        images, targets = batch  # (N, C, H, W)
        losses = model.losses(self.in_layout(images), targets)
        for name in self.weights:
            if name not in losses:
                raise UnknownNameError.of("loss in loss.weights:", name, losses)
        return {name: self.weights[name] * loss if name in self.weights else loss for name, loss in losses.items()}
