"""Training of the toy by `van train`: its recipe, what is minimised, what is validated."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from van.data.augment import SeededExample
from van.data.fingerprint import Fingerprint, fingerprint
from van.errors import DataError
from van.nn import Model
from van.recipes import EpochRecipe, OptimSpec, ScheduleSpec, TrackSpec
from van.recipes.data_spec import BaseDataSpec
from van.recipes.model_spec import BaseModelSpec
from van.recipes.trainer_spec import EpochTrainerSpec
from van.tasks.training import EpochTraining, Objective
from van.tasks.validation import MetricValidator

from .config import TINY, MeanColourConfig
from .data import Colours, open_colours
from .evaluation import MeanColourMetric
from .model import MeanColour
from .processor import PREPROCESS, MeanColourProcessor


@dataclass(frozen=True, kw_only=True)
class ColourTrainerSpec(EpochTrainerSpec):
    """How long, on what, and where the results go.

    monitor: "val/loss", the mean error.
    """


@dataclass(frozen=True, kw_only=True)
class ColourRecipe(EpochRecipe):
    """Training of a colour guesser, entirely."""

    task: ClassVar[str] = "mean_colour"

    model: BaseModelSpec = field(default_factory=BaseModelSpec)
    data: BaseDataSpec = field(default_factory=BaseDataSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    trainer: ColourTrainerSpec = field(default_factory=ColourTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)


def colours_tiny() -> ColourRecipe:
    """Mean colours of noisy images, on a CPU in a second.

    Command: van train colours_tiny
    """
    return ColourRecipe(
        name="colours_tiny",
        data=BaseDataSpec(path="colours"),
        optim=OptimSpec(lr=1e-2),
        trainer=ColourTrainerSpec(
            epochs=3, batch_size=4, device="cpu", workers=0, threads=1, keep="last", progress="none"
        ),
    )


broken: int | None = None  # the training image that cannot be read, for tests


class TrainingColours(Colours):
    """The data set as training asks for it."""

    def load(self, index: int) -> Any:
        if self.split == "train" and index == broken:
            raise DataError(f"{self.name(index)} is broken")
        return super().load(index)

    def fingerprint(self) -> Fingerprint:
        return fingerprint(("images", self.name(index)) for index in range(len(self)))


class SquaredError(Objective):
    """The mean squared error of the colours."""

    def losses(self, model: Any, batch: Any, *, epoch: int) -> dict[str, Tensor]:
        images, colours = batch
        return {"square": (model(images) - colours.float()).square().mean()}


def with_noise(image: Any) -> Tensor:
    """(3, H, W): the input and noise on it."""
    return torch.from_numpy(PREPROCESS(image)) + 0.1 * torch.rand(3, *PREPROCESS.size)


class MeanColourTraining(EpochTraining[ColourRecipe]):
    """See `EpochTraining`."""

    columns: ClassVar[tuple[str, ...]] = ("val/loss",)
    shown: ClassVar[dict[str, str]] = {"val/loss": "error {:.3f}"}

    def open_data(self) -> tuple[TrainingColours, TrainingColours]:
        open_colours(self.recipe.data.path)
        return TrainingColours("train"), TrainingColours("val")

    def example(self, train: Any, network: Model) -> SeededExample:
        return SeededExample(with_noise, seed=self.recipe.trainer.seed)

    def network(self, train: Any) -> Model:
        config = MeanColourConfig(backbone=TINY).with_options(**self.recipe.model.options())
        network = MeanColour(config)
        network.reset_parameters(torch.Generator().manual_seed(self.recipe.trainer.seed))
        network.classes, network.preprocess = train.classes, PREPROCESS
        return network.train()

    def objective(self, train: Any, network: Model) -> SquaredError:
        return SquaredError(self.recipe)

    def validator(self, val: Any, network: Model) -> MetricValidator:
        return MetricValidator(MeanColourProcessor(), MeanColourMetric(val.classes, 0.1), {"error": "loss"})
