"""Training of segmenters: crops of images with their label maps, counted in iterations; validated as `van eval` does.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from ...configs.segmenter import SIZE_DIVISORS
from ...data.infinite_sampler import spread
from ...data.joint import JointExample, JointTransform
from ...data.labelled_pixels import SegmentationData
from ...errors import ConfigError
from ...images.preprocess import IMAGENET, Preprocess
from ...nn import Model
from ...nn.segmenter import Segmenter
from ...recipes import SegmentationRecipe
from ..parameter_groups import grouped_by_layer
from ..training import Example, Objective, StepTraining, TrainingData, class_weights
from ..validation import MetricValidator, Validator
from .inference import RECORDED, Inference
from .losses import PixelLoss
from .metric import SegmentationMetric
from .network import build_segmenter
from .processor import SegmentationProcessor
from .training_data import Pictures, count_pixels, open_pictures


class SegmentationTraining(StepTraining[SegmentationRecipe]):
    """Training of a segmenter by a recipe."""

    columns: ClassVar[tuple[str, ...]] = ("val/mIoU", "val/aAcc", "val/mAcc", "val/mDice", "val/mFscore")
    shown: ClassVar[Mapping[str, str]] = {"val/mIoU": "mIoU {:.2%}", "val/aAcc": "aAcc {:.2%}"}

    def open_data(self) -> tuple[Pictures, Pictures]:
        return open_pictures(self.recipe)

    def example(self, train: TrainingData, network: Model) -> Example:
        augment = self.recipe.augment
        transform = JointTransform(
            preprocess=_preprocess(network),
            crop=augment.crop,
            base=self.recipe.data.resize,
            scale=augment.scale,
            max_class_share=augment.max_class_share,
            flip=augment.flip,
            vflip=augment.vflip,
            photometric=augment.photometric,
            ignore_index=cast(Pictures, train).ignore_index,
        )
        return JointExample(transform, seed=self.recipe.trainer.seed)

    def network(self, train: TrainingData) -> Segmenter:
        pictures = cast(Pictures, train)
        network = build_segmenter(self.recipe.model, pictures.classes, pictures.palette, seed=self.recipe.trainer.seed)
        own: Preprocess = network.preprocess or IMAGENET
        data = self.recipe.data
        preprocess = own.with_overrides(mean=data.mean, std=data.std, size=self.recipe.augment.crop)
        if preprocess.channels != network.config.backbone.in_chans:
            raise ConfigError(
                f"the network takes {network.config.backbone.in_chans} channel(s), data.mean and data.std have "
                f"{preprocess.channels} entries; give as many"
            )
        network.preprocess = preprocess
        return network

    def compile(self, network: Model) -> None:
        """The backbone alone: the heads are called by methods of their own."""
        network.backbone.compile()

    def objective(self, train: TrainingData, network: Model) -> PixelObjective:
        def counts() -> Tensor:
            if not isinstance(train, SegmentationData):
                raise ConfigError(
                    "loss.class_weights balanced counts pixels before training, and data.reader "
                    f"{self.recipe.data.reader} has them in a stream; give the numbers"
                )
            return count_pixels(train)

        weights = class_weights(self.recipe.loss.class_weights, train.classes, counts)
        return PixelObjective(self.recipe, cast(Pictures, train).ignore_index, weights)

    def validator(self, val: TrainingData, network: Model) -> Validator:
        pictures = cast(Pictures, val)
        processor = SegmentationProcessor(self.inference(network), pictures.classes, pictures.palette)
        metric = SegmentationMetric(pictures.classes, ignore_index=pictures.ignore_index)
        names = [column.removeprefix("val/") for column in self.columns]
        return MetricValidator(processor, metric, dict(zip(names, names, strict=True)))

    def validation_indices(self, val: TrainingData) -> Sequence[int]:
        return spread(len(val), self.recipe.data.val_images)

    def inference(self, network: Model) -> Inference:
        """How validation, and later `van eval`, uses a picture; what the recipe leaves open is the method's own."""
        return inference_of_recipe(self.recipe, _preprocess(network), method=network.config.method)

    def decays(self, name: str, parameter: Tensor) -> bool:
        """By the recipe's rule.

        The published rule spares names with `norm`; the heads' norms are called bn and gn there, so only the backbone's
        are spared, and biases and layer scales decay.
        """
        rule = self.recipe.optim.decayed
        if rule == "everything":
            return True
        if rule == "matrices":
            return parameter.ndim > 1
        return not (name.startswith("backbone.") and "norm" in name)

    def is_output_layer(self, name: str) -> bool:
        return ".classify." in name

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        spec = self.recipe.optim
        return grouped_by_layer(
            network,
            self.decays,
            self.layer,
            weight_decay=spec.weight_decay,
            layer_decay=spec.layer_decay,
            decayed_first=True,
        )

    def provenance(self, network: Model) -> dict[str, Any]:
        """How the segmenter is to be applied, and how the data set was split, to evaluate on what was held out."""
        how, data = self.inference(network), self.recipe.data
        own: dict[str, Any] = {
            "inference": {name: list(v) if isinstance(v := getattr(how, name), tuple) else v for name in RECORDED}
        }
        chosen = {"seed": data.split_seed, "val_fraction": data.val_fraction, "scene_size": data.scene_size}
        split = {name: value for name, value in chosen.items() if value is not None}
        return own | ({"split": split} if split else {})


class PixelObjective(Objective):
    """The loss of the head and, weighted, of the auxiliary head."""

    def __init__(self, recipe: SegmentationRecipe, ignore_index: int, weights: Tensor | None) -> None:
        super().__init__(recipe)
        self.auxiliary_weight = recipe.loss.auxiliary_weight
        self.loss = PixelLoss(recipe.loss, ignore_index=ignore_index, weights=weights)

    def losses(self, model: Segmenter, batch: tuple[Tensor, Tensor], *, epoch: int) -> dict[str, Tensor]:
        images, labels = batch  # (N, C, H, W), (N, H, W)
        logits, auxiliary = model.decode_with_auxiliary(self.in_layout(images))
        losses = {"head": self.loss(logits, labels)}
        if auxiliary is not None:
            losses["auxiliary"] = self.auxiliary_weight * self.loss(auxiliary, labels)
        return losses


def inference_of_recipe(recipe: SegmentationRecipe, preprocess: Preprocess, *, method: str) -> Inference:
    """How a segmenter of `method` is applied by a recipe."""
    data = recipe.data
    divisor = SIZE_DIVISORS[method] if data.size_divisor is None else data.size_divisor
    views: dict[str, Any] = {name: getattr(data, name) for name in RECORDED} | {"size_divisor": divisor}
    return Inference(**views, mean=preprocess.mean, std=preprocess.std)


def _preprocess(network: Model) -> Preprocess:
    assert network.preprocess is not None
    return network.preprocess
