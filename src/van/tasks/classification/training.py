"""Training of classifiers: timm's augmentations, mixed labels and losses; top-1 and its kin while training.

Shapes: N batch, S versions of an image, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Sampler
from torchmetrics import MeanMetric

from ...data import ClassificationData, has_own_val
from ...data.augment import SeededExample, TrainingTransform
from ...data.dataset import EpochSampler, ProcessShare
from ...data.split import VAL_FRACTION
from ...data.streams import StreamData
from ...errors import ConfigError
from ...images.preprocess import Preprocess
from ...nn import Classifier, Model
from ...recipes import Recipe
from ..training import EpochTraining, Example, Key, Objective, TrainingData, class_weights
from ..validation import Gather, Validator
from .accuracy import accuracy
from .losses import Criterion, build_mixup, build_teacher, join_splits
from .network import build_network, check_map, resolve_preprocess
from .training_data import Images, open_images


class ClassificationTraining(EpochTraining[Recipe]):
    """Training of a classifier by a recipe."""

    columns: ClassVar[tuple[str, ...]] = (
        "val/loss",
        "val/top1",
        "val/top5",
        "val/macro_f1",
        "val/macro_precision",
        "val/macro_recall",
    )
    shown: ClassVar[Mapping[str, str]] = {
        "val/loss": "val {:.4f}",
        "val/top1": "top1 {:.2f}%",
        "val/macro_f1": "F1 {:.2f}%",
    }

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.batch_multiple = 2 if recipe.augment.mixes else 1

    def open_data(self) -> tuple[Images, Images]:
        return open_images(self.recipe)

    def example(self, train: TrainingData, network: Model) -> Example:
        transform = TrainingTransform(self.recipe.augment, _preprocess(network))
        return SeededExample(transform, seed=self.recipe.trainer.seed)

    def sampler(self, train: TrainingData) -> Sampler[Key]:
        labels = cast(ClassificationData, train).labels if self.recipe.data.sampling == "balanced" else None
        repeats, seed = self.recipe.augment.repeats, self.recipe.trainer.seed
        return ProcessShare(EpochSampler(len(train), seed=seed, repeats=repeats, labels=labels))

    def network(self, train: TrainingData) -> Classifier:
        network = build_network(self.recipe.model, train.classes, seed=self.recipe.trainer.seed)
        network.preprocess = resolve_preprocess(network, self.recipe.data)
        check_map(self.recipe, network, network.preprocess)
        return network

    def objective(self, train: TrainingData, network: Model) -> ClassificationObjective:
        return ClassificationObjective(self.recipe, network, train.classes, self._class_weights(train))

    def _class_weights(self, train: TrainingData) -> Tensor | None:
        def counts() -> Tensor:
            if isinstance(train, StreamData):
                raise ConfigError(
                    "loss.class_weights balanced counts the labels before training, and data.reader "
                    f"{self.recipe.data.reader} has them in a stream; give the numbers"
                )
            labels: Sequence[int] = cast(ClassificationData, train).labels
            return torch.bincount(torch.tensor(labels), minlength=len(train.classes))

        return class_weights(self.recipe.loss.class_weights, train.classes, counts)

    def validator(self, val: TrainingData, network: Model) -> AccuracyValidator:
        return AccuracyValidator(
            _preprocess(network), len(val.classes), channels_last=self.recipe.trainer.channels_last
        )

    def decays(self, name: str, parameter: Tensor) -> bool:
        """As timm: without any weight decay there is one group."""
        return bool(self.recipe.optim.weight_decay) and super().decays(name, parameter)

    def provenance(self, network: Model) -> dict[str, Any]:
        """How the data set was split, to evaluate on what was held out."""
        spec = self.recipe.data
        if spec.reader is not None or has_own_val(spec.path or ""):
            return {}
        return {"split": {"seed": spec.split_seed or 0, "val_fraction": spec.val_fraction or VAL_FRACTION}}


class ClassificationObjective(Objective):
    """The loss of a recipe on images that are mixed or come in several versions, and a teacher's answers."""

    def __init__(self, recipe: Recipe, network: nn.Module, classes: tuple[str, ...], weights: Tensor | None) -> None:
        super().__init__(recipe)
        self.mix_off_epoch = recipe.augment.mix_off_epoch
        self.mixup = build_mixup(recipe, len(classes))
        self.criterion = Criterion(recipe, weights)
        self.teacher = build_teacher(recipe, network, classes)

    def losses(self, model: nn.Module, batch: tuple[Tensor, Tensor], *, epoch: int) -> dict[str, Tensor]:
        images, labels = join_splits(batch[0], batch[1])  # (N, C, H, W), (N,)
        images, targets = self.in_layout(images), labels
        if self.mixup is not None:
            self.mixup.mixup_enabled = self.mix_off_epoch is None or epoch < self.mix_off_epoch
            images, targets = self.mixup(images, labels)  # targets (N, K)
        logits = model(images)  # (N, K)
        loss = self.criterion(logits, targets)
        if self.teacher is None:
            return {"labels": loss}
        return {"labels": torch.lerp(loss, self.teacher.loss(images, logits), self.teacher.weight)}


class AccuracyValidator(Validator):
    """Loss, top-1, top-5 and means over classes of batches, on the device, by torchmetrics."""

    def __init__(self, preprocess: Preprocess, num_classes: int, *, channels_last: bool) -> None:
        super().__init__()
        self.preprocess, self.channels_last = preprocess, channels_last
        self.accuracy = accuracy(num_classes)
        self.loss = MeanMetric()

    def example(self, image: Image.Image, target: int, name: str) -> tuple[Tensor, int]:
        return torch.from_numpy(self.preprocess(image)), target

    def reset(self) -> None:
        self.accuracy.reset()
        self.loss.reset()

    def count(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last) if self.channels_last else images
        logits = network(images).float()  # (N, K)
        self.accuracy.update(logits, labels)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))

    def compute(self, gather: Gather) -> dict[str, float | Tensor]:
        """torchmetrics adds up over the processes by itself."""
        return {"loss": self.loss.compute(), **self.accuracy.compute()}


def _preprocess(network: Model) -> Preprocess:
    assert network.preprocess is not None
    return network.preprocess
