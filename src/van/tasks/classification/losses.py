"""What training minimises: timm's losses on hard, mixed or several versions' labels, and a teacher's answers.

Shapes: N batch, S versions of an image, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss import BinaryCrossEntropy, JsdCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from ...errors import ConfigError
from ...images.preprocess import Preprocess
from ...models import load
from ...nn import Classifier
from ...recipes import CriterionSpec, Recipe
from ..class_names import first_difference, places

JSD_ALPHA, DISTILL_WEIGHT = 12.0, 0.5


class Criterion(nn.Module):
    """The loss of a recipe: (N, K) logits and labels, (N,) indices or (N, K) shares -> a scalar.

    weights: of the classes, (K,), for a weighted mean; None: all alike.
    """

    weights: Tensor | None

    def __init__(self, recipe: Recipe, weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        loss, smoothing = recipe.loss, recipe.augment.label_smoothing
        self.smoothing = smoothing
        self.soft = SoftTargetCrossEntropy()
        self.special: nn.Module | None = None
        if loss.name == "bce":
            self.special = BinaryCrossEntropy(
                smoothing=smoothing, target_threshold=loss.bce_threshold, sum_classes=loss.bce_sum
            )
        elif loss.name == "jsd":
            alpha = JSD_ALPHA if loss.jsd_alpha is None else loss.jsd_alpha
            self.special = JsdCrossEntropy(recipe.augment.splits, alpha=alpha, smoothing=smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.special is not None:
            return self.special(logits, labels)
        if labels.ndim == 2 and self.weights is not None:
            weighted = labels * self.weights
            return -(weighted * F.log_softmax(logits, 1)).sum() / weighted.sum()
        if labels.ndim == 2:
            return self.soft(logits, labels)
        return F.cross_entropy(logits, labels, self.weights, label_smoothing=self.smoothing)


class Teacher:
    """A classifier in evaluation mode whose answers are learnt; not a module, so that checkpoints stay without it.

    classes: those of the student; student: how its images are normalised, which the teacher's eyes are fitted to.
    Raises ConfigError for a teacher of other classes, CheckpointError for a file that is none.
    """

    def __init__(self, spec: CriterionSpec, *, classes: tuple[str, ...], student: Preprocess) -> None:
        assert spec.teacher is not None
        model = load(spec.teacher)
        if not isinstance(model, Classifier):
            raise ConfigError(f"loss.teacher is {spec.teacher}, a segmenter; give a classifier's checkpoint")
        _fit_classes(spec.teacher, model, classes)
        self.hard = spec.distill == "hard"
        self.weight = DISTILL_WEIGHT if spec.distill_weight is None else spec.distill_weight
        self.temperature = spec.temperature or 1.0
        self.model: Classifier = model.requires_grad_(False).eval()
        own: Preprocess = model.preprocess or Preprocess()
        if own.channels != student.channels:
            raise ConfigError(f"loss.teacher {spec.teacher} sees {own.channels} channel(s), not {student.channels}")
        view = [torch.tensor(values).view(1, -1, 1, 1) for values in (student.mean, student.std, own.mean, own.std)]
        self.scale, self.shift = view[1] / view[3], (view[0] - view[2]) / view[3]

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """Distance of (N, K) logits from the teacher's answer to (N, C, H, W) images, normalised as the student's.

        Soft: Kullback-Leibler divergence at the temperature, times its square. Hard: cross-entropy to the first choice.
        """
        self.to(images.device)
        with torch.no_grad():
            answer = self.model(images * self.scale + self.shift).float()
        if self.hard:
            return F.cross_entropy(logits, answer.argmax(1))
        ours, theirs = (F.log_softmax(each / self.temperature, 1) for each in (logits.float(), answer))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * self.temperature**2

    def to(self, device: torch.device) -> None:
        """Move everything; does nothing once there."""
        if self.scale.device != device:
            self.model.to(device)
            self.scale, self.shift = self.scale.to(device), self.shift.to(device)


def build_teacher(recipe: Recipe, model: nn.Module, classes: tuple[str, ...]) -> Teacher | None:
    """The teacher of a recipe that has one, fitted to the images of `model`."""
    if recipe.loss.teacher is None:
        return None
    student: Preprocess = getattr(model, "preprocess", None) or Preprocess()
    return Teacher(recipe.loss, classes=classes, student=student)


def build_mixup(recipe: Recipe, num_classes: int) -> Mixup | None:
    """timm's Mixup and CutMix, which also smooths labels."""
    spec = recipe.augment
    if not spec.mixes:
        return None
    return Mixup(
        mixup_alpha=spec.mixup,
        cutmix_alpha=spec.cutmix,
        cutmix_minmax=spec.cutmix_minmax,
        prob=spec.mix_prob,
        switch_prob=spec.switch_prob,
        mode=spec.mix_mode,
        label_smoothing=spec.label_smoothing,
        num_classes=num_classes,
    )


def join_splits(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, S, C, H, W) -> (S·N, C, H, W), all first versions first, as timm's divergence expects; labels likewise."""
    if images.ndim == 4:
        return images, labels
    return images.transpose(0, 1).flatten(0, 1), labels.repeat(images.shape[1])


def _fit_classes(source: str, model: Any, classes: tuple[str, ...]) -> None:
    """Put the teacher's classes into the data's order; raises ConfigError where they are others, spelling apart."""
    if model.num_classes != len(classes):
        raise ConfigError(f"loss.teacher {source} knows {model.num_classes} classes, the data have {len(classes)}")
    if model.classes is None:
        return
    order = places(model.classes, classes)
    if order is None:
        different = first_difference(model.classes, classes)
        raise ConfigError(
            f"loss.teacher {source} calls class {different} {model.classes[different]!r}, the data "
            f"{classes[different]!r}; use a teacher of these classes"
        )
    model.reorder_classes(order)
