"""What training by a recipe needs of a task. `train/` is one loop that knows this file and nothing of a task.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Sampler, default_collate

from ..data.dataset import EpochSampler, ProcessShare
from ..data.fingerprint import Fingerprint
from ..data.infinite_sampler import InfiniteSampler
from ..data.streams import StreamData
from ..errors import ConfigError, DataError, UnknownNameError, VanNotice
from ..nn import Model
from ..recipes import BaseRecipe, EpochRecipe, StepRecipe
from .parameter_groups import grouped_by_layer, stage_and_block
from .validation import Validator

Key = tuple[int, ...]  # where an image stands in a run: (epoch, index, …), from which its augmentation is drawn
Example = Callable[[Image.Image, Any, Key], Any]

R = TypeVar("R", bound=BaseRecipe)
E = TypeVar("E", bound=EpochRecipe)
S = TypeVar("S", bound=StepRecipe)


class TrainingData(Protocol):
    """A part of a data set: a `tasks.base.DataSet`, or a stream (`data.readers.StreamData`), which has no `load`."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def fingerprint(self) -> Fingerprint:
        """What it holds, to notice that it has changed."""
        ...


class Objective(nn.Module):
    """What training minimises; by itself for models that give their own losses in training mode, as torchvision's do.

    Its buffers, such as weights of classes, move with the network and are in no checkpoint.
    """

    def __init__(self, recipe: BaseRecipe) -> None:
        super().__init__()
        self.channels_last = recipe.trainer.channels_last

    def losses(self, model: Any, batch: Any, *, epoch: int) -> dict[str, Tensor]:
        """Loss by name, scalars whose sum is minimised; batch: as `Training.collate` makes it, on the device."""
        return model(*batch)

    def in_layout(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in the recipe's memory format."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


class Training(ABC, Generic[R]):
    """Training by one recipe.

    columns: scores of a validation in the order of metrics.csv, "val/loss"; recipe.trainer.monitor is one of them.
    shown: how scores are written on the line of an epoch, "val/top1" -> "top1 {:.2f}%".
    """

    columns: ClassVar[tuple[str, ...]]
    shown: ClassVar[Mapping[str, str]] = {}

    def __init__(self, recipe: R) -> None:
        self.recipe = recipe

    # ---- the data

    @abstractmethod
    def open_data(self) -> tuple[TrainingData, TrainingData]:
        """Training and validation data; raises ConfigError, DataError, MissingExtraError."""

    def fitted(self, train: TrainingData, val: TrainingData) -> R:
        """The recipe as this data needs it, with a VanNotice for each change; raises ConfigError, DataError."""
        return self.recipe

    @abstractmethod
    def example(self, train: TrainingData, network: Model) -> Example:
        """What makes an augmented example of an image and its target; called in data workers, so picklable."""

    def collate(self, examples: list[Any]) -> Any:
        """A batch of examples; called in data workers. Tensors are stacked."""
        return default_collate(examples)

    @abstractmethod
    def sampler(self, train: TrainingData) -> Sampler[Key]:
        """The keys of each epoch, of which every process takes its share: has `rank`, `world_size`, `set_epoch`."""

    # ---- the network

    @abstractmethod
    def network(self, train: TrainingData) -> Model:
        """The network to start from, in training mode, with all its metadata: fresh, or a checkpoint's.

        Raises what `models.load` and `models.create_model` raise, ConfigError for one that does not fit recipe or data.
        """

    def compile(self, network: Model) -> None:
        """torch.compile what is called in training."""
        network.compile()

    @abstractmethod
    def objective(self, train: TrainingData, network: Model) -> Objective:
        """What is minimised; raises ConfigError for options that do not fit the data."""

    @abstractmethod
    def validator(self, val: TrainingData, network: Model) -> Validator:
        """What computes the scores of a validation, `columns` without "val/"."""

    def validation_indices(self, val: TrainingData) -> Sequence[int]:
        """The images that a validation uses."""
        return range(len(val))

    def validation_images(self, val: Any) -> Iterator[tuple[str, Image.Image, Any]]:
        """Name, image and target of every image that a validation uses; those of a stream are numbered."""
        if isinstance(val, StreamData):
            yield from val.images()
            return
        for index in self.validation_indices(val):
            yield val.name(index), *val.load(index)

    # ---- the optimizer

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a parameter."""
        return parameter.ndim > 1

    def layer(self, name: str) -> tuple[float, float]:
        """Where the layer of a parameter stands, sorted from the image to the output; for layer decay."""
        return stage_and_block(name)

    def is_output_layer(self, name: str) -> bool:
        """Whether a parameter is one of the layers that adaptive clipping leaves alone."""
        return name.startswith("head.")

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The trainable parameters with their weight decay, and with layer decay their share of the rate."""
        spec = self.recipe.optim
        return grouped_by_layer(
            network, self.decays, self.layer, weight_decay=spec.weight_decay, layer_decay=spec.layer_decay
        )

    # ---- the result

    def provenance(self, network: Model) -> dict[str, Any]:
        """Facts about the training for the model's file, besides those that every task records."""
        return {}


class EpochTraining(Training[E]):
    """Training that is counted in passes over the images."""

    batch_multiple: int = 1  # of which every batch must be a multiple

    def fitted(self, train: TrainingData, val: TrainingData) -> E:
        """A smaller batch for a data set that does not fill one, a shorter warm-up for a run that is nothing else."""
        return _fitted_warmup(_fitted_batch(self.recipe, len(train), self.batch_multiple))

    def sampler(self, train: TrainingData) -> Sampler[Key]:
        return ProcessShare(EpochSampler(len(train), seed=self.recipe.trainer.seed))


class StepTraining(Training[S]):
    """Training that is counted in iterations, over an endless stream of shuffled passes."""

    def sampler(self, train: TrainingData) -> Sampler[Key]:
        images = self.recipe.images_per_epoch(len(train))
        return InfiniteSampler(len(train), period=images, seed=self.recipe.trainer.seed)


def _fitted_batch(recipe: E, images: int, multiple: int) -> E:
    size, devices = recipe.trainer.batch_size, recipe.trainer.devices
    images //= devices
    if images >= size:
        return recipe
    if images < 1:
        raise DataError(f"{recipe.data.path} has fewer training images than trainer.devices, {devices}; set it lower")
    fitting = images - images % multiple
    warnings.warn(
        f"trainer.batch_size {size} becomes {fitting}: there are {images} training images per device",
        VanNotice,
        stacklevel=4,
    )
    return recipe.with_options(**{"trainer.batch_size": fitting})


def _fitted_warmup(recipe: E) -> E:
    before, epochs = recipe.schedule.warmup_epochs, recipe.trainer.epochs
    if not before or before < epochs:
        return recipe
    after = epochs // 2 if recipe.schedule.per == "epoch" else epochs / 2
    warnings.warn(
        f"schedule.warmup_epochs {before:g} becomes {after:g}: trainer.epochs is {epochs}", VanNotice, stacklevel=4
    )
    return recipe.with_options(**{"schedule.warmup_epochs": after})


def class_weights(
    given: Sequence[float] | Mapping[str, float] | str | None,
    classes: Sequence[str],
    counts: Callable[[], Tensor],
) -> Tensor | None:
    """The weights of a recipe's loss, (K,) float32; None: all alike.

    given: a number per class, numbers by class name (the others 1), or "balanced": all / (classes x of the class).
    counts: how often each class occurs, (K,), asked for "balanced" only; classes that do not occur weigh 1.
    Raises ConfigError for another number of weights than classes, and for names that are no classes.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in classes]
        if unknown:
            raise UnknownNameError.of("class in loss.class_weights:", unknown[0], classes)
        return torch.tensor([float(given.get(name, 1.0)) for name in classes])
    if not isinstance(given, str):
        if len(given) != len(classes):
            raise ConfigError(
                f"loss.class_weights has {len(given)} numbers, the data {len(classes)} classes; give one each "
                "(van doctor suggests some)"
            )
        return torch.tensor(given, dtype=torch.float32)
    found = counts().double()
    present = found > 0
    balanced = found.sum() / (present.sum() * found.clamp_min(1))
    return torch.where(present, balanced, 1.0).float()
