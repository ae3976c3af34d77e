"""A task in one file: how bright an image is, a number from 0 to 1, learnt from images made in memory.

Everything here is what the author of a task writes to train by `van.train`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from van.configs.backbone import VanConfig
from van.configs.head_config import HeadConfig
from van.data.augment import SeededExample
from van.data.fingerprint import fingerprint
from van.errors import DataError
from van.images.preprocess import Preprocess
from van.nn import Backbone, Model
from van.recipes import EpochRecipe, OptimSpec, ScheduleSpec, TrackSpec, register
from van.recipes.data_spec import BaseDataSpec
from van.recipes.model_spec import BaseModelSpec
from van.recipes.trainer_spec import EpochTrainerSpec
from van.tasks import Task
from van.tasks import register as register_task
from van.tasks.base import EvalOptions, Metric, Processor
from van.tasks.training import EpochTraining, Objective
from van.tasks.validation import MetricValidator

SIZE = 16


@dataclass(frozen=True, kw_only=True)
class BrightnessConfig(HeadConfig):
    task: ClassVar[str] = "brightness"
    noun: ClassVar[str] = "light meter"
    section: ClassVar[str] = "brightness"

    backbone: VanConfig = field(
        default_factory=lambda: VanConfig(
            num_classes=0, embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2)
        )
    )
    num_classes: int = 1
    name: ClassVar[str] = "light_meter_van_custom"
    method: ClassVar[str] = "mean"


class LightMeter(Model):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = nn.Linear(config.backbone.embed_dims[-1], 1)

    def forward(self, images):
        return self.head(self.backbone.last(images).mean((2, 3)))


class Grays:
    """Images of one gray each."""

    classes = ("brightness",)

    def __init__(self, count, seed):
        self.levels = np.random.default_rng(seed).uniform(0, 1, count)

    def __len__(self):
        return len(self.levels)

    def load(self, index):
        if index == broken:
            raise DataError(f"{self.name(index)} is broken")
        return Image.new("RGB", (SIZE, SIZE), (round(255 * self.levels[index]),) * 3), float(self.levels[index])

    def name(self, index):
        return f"gray {index}"

    def fingerprint(self):
        return fingerprint(("images", self.name(index)) for index in range(len(self)))


broken = None  # the image that cannot be read


class BrightnessProcessor(Processor[np.ndarray, float]):
    preprocess = Preprocess(size=(SIZE, SIZE), crop_pct=1.0)

    def prepare(self, image):
        return self.preprocess(image)

    def inputs(self, image) -> Iterator[np.ndarray]:
        yield self.preprocess(image)

    def run(self, engine, prepared: Sequence[np.ndarray]) -> list[float]:
        return engine.run(np.stack(prepared))["logits"][:, 0].tolist()

    def output(self, raw, prepared, source):
        raise NotImplementedError


class BrightnessError(Metric[float, float]):
    def __init__(self, errors=()):
        self.errors = [*errors]

    def update(self, raw, targets, names):
        self.errors += [abs(a - b) for a, b in zip(raw, targets, strict=True)]

    def __add__(self, other):
        return BrightnessError([*self.errors, *other.errors])

    def empty(self):
        return BrightnessError()

    def compute(self):
        return {"error": math.fsum(self.errors) / len(self.errors) if self.errors else math.nan}

    def table(self):
        return []


@dataclass(frozen=True, kw_only=True)
class BrightnessTrainerSpec(EpochTrainerSpec):
    """How long, on what, and where the results go.

    monitor: "val/loss", the mean error.
    """


@dataclass(frozen=True, kw_only=True)
class BrightnessRecipe(EpochRecipe):
    task: ClassVar[str] = "brightness"

    model: BaseModelSpec = field(default_factory=BaseModelSpec)
    data: BaseDataSpec = field(default_factory=BaseDataSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    trainer: BrightnessTrainerSpec = field(default_factory=BrightnessTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)


class SquaredError(Objective):
    def losses(self, model, batch, *, epoch):
        images, levels = batch
        return {"square": (model(images)[:, 0] - levels.float()).square().mean()}


def to_tensor(image):
    noise = torch.rand(3, SIZE, SIZE) * 0.1
    return torch.from_numpy(BrightnessProcessor.preprocess(image)) + noise


class BrightnessTraining(EpochTraining[BrightnessRecipe]):
    columns = ("val/loss",)
    shown: ClassVar[dict[str, str]] = {"val/loss": "error {:.3f}"}

    def open_data(self):
        return Grays(16, seed=1), Grays(6, seed=2)

    def example(self, train, network):
        return SeededExample(to_tensor, seed=self.recipe.trainer.seed)

    def network(self, train):
        network = BRIGHTNESS.build(BrightnessConfig().with_options(**self.recipe.model.options()))
        network.classes, network.preprocess = train.classes, BrightnessProcessor.preprocess
        return network.train()

    def objective(self, train, network):
        return SquaredError(self.recipe)

    def validator(self, val, network):
        return MetricValidator(BrightnessProcessor(), BrightnessError(), {"error": "loss"})


class Brightness(Task):
    name = "brightness"
    noun = "light meter"
    config = BrightnessConfig
    predict_options = eval_options = EvalOptions
    recipe = BrightnessRecipe

    def build(self, config):
        return LightMeter(config)

    def processor(self, subject, options):
        return BrightnessProcessor()

    def open_data(self, path, split=None, **options):
        return Grays(6, seed=2)

    def evaluator(self, subject, data, options):
        raise NotImplementedError

    def training(self, recipe):
        return BrightnessTraining(recipe)


def brightness_tiny():
    """How bright gray images are, on a CPU in a second.

    Command: van train brightness_tiny
    """
    return BrightnessRecipe(
        name="brightness_tiny",
        optim=OptimSpec(lr=1e-2),
        trainer=BrightnessTrainerSpec(
            epochs=3, batch_size=4, device="cpu", workers=0, threads=1, keep="last", progress="none"
        ),
    )


BRIGHTNESS = Brightness()


def make_known():
    register_task(BRIGHTNESS)
    register(BrightnessRecipe, {"brightness_tiny": brightness_tiny})
