"""Classification: one label per image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...configs.backbone import VanConfig
from ...configs.model_config import ModelConfig
from ...errors import ConfigError, DataError, VanNotice
from .. import base
from ..base import DataSet, EvaluationData, ResultTable, Subject, Task
from ..comparison import Comparison
from .options import EvalOptions, PredictOptions, ViewOptions
from .output import ClassificationResults

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...recipes import BaseRecipe, Recipe
    from .evaluation import ClassificationEvaluator
    from .processor import ClassificationProcessor
    from .report import ClassificationReport
    from .training import ClassificationTraining


class Classification(Task):
    """Images with one label each: top-1, top-5."""

    name: ClassVar[str] = "classification"
    noun: ClassVar[str] = "classifier"
    config: ClassVar[type[ModelConfig]] = VanConfig
    predict_options: ClassVar[type] = PredictOptions
    eval_options: ClassVar[type[base.EvalOptions]] = EvalOptions
    results: ClassVar[ResultTable] = ClassificationResults()
    data_help: ClassVar[str] = "'digits', a folder with train/ and val/, or class folders"
    comparison: ClassVar[Comparison] = Comparison(score="top1", heading="top-1 %")

    def config_of(self, model: nn.Module) -> ModelConfig | None:
        """Also of networks of other packages that have `num_classes`: no more is known of them."""
        config, number = getattr(model, "config", None), getattr(model, "num_classes", None)
        if not isinstance(number, int) or (isinstance(config, ModelConfig) and not isinstance(config, VanConfig)):
            return None
        if isinstance(config, VanConfig):
            return config.with_options(num_classes=number)
        preprocess = getattr(model, "preprocess", None)
        return VanConfig(num_classes=number, in_chans=3 if preprocess is None else preprocess.channels)

    def network(self, model: nn.Module, subject: Subject, options: object) -> nn.Module:
        if not isinstance(options, ViewOptions) or not options.test_time_pool:
            return model
        from ...images.preprocess import Preprocess
        from ...nn import Classifier, TestTimePool

        if not isinstance(model, Classifier):
            raise ConfigError(f"test-time pooling needs a plain classifier, not {type(model).__name__}; leave it out")
        own = subject.metadata.preprocess or Preprocess()
        stride = model.config.reductions[-1]
        return TestTimePool(model, pool_size=-(-min(own.size) // stride))  # side of the map at the training size

    def class_scores(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> Tensor:
        """The logits."""
        return raw["logits"][0]

    def processor(self, subject: Subject, options: object) -> ClassificationProcessor:
        from .processor import processor_of

        assert isinstance(options, ViewOptions)
        return processor_of(subject, options, getattr(options, "top", PredictOptions.top))

    def open_data(self, path: str | Path, split: str | None = None, **options: Any) -> DataSet[int]:
        from ...data.classification import open_classification

        known = ("seed", "val_fraction", "exif", "classes", "index")
        given = {name: options[name] for name in known if options.get(name) is not None}
        return open_classification(path, split or "val", **given)

    def evaluation_data(
        self, data: str | Path | DataSet[Any], options: base.EvalOptions, provenance: Mapping[str, Any]
    ) -> EvaluationData:
        """Of a folder without val/ what training held out, with a notice; all of one that is a validation set."""
        from ...data.classification import has_own_val
        from ...data.labelled_images import ClassificationData
        from ...data.split_folders import is_split_name
        from ...files import why_no_path

        if isinstance(data, ClassificationData) and not options.exif:
            raise ConfigError("exif is for data that is opened here; the data set given has its own way to read images")
        if not isinstance(data, str | Path) or options.split is not None:
            return super().evaluation_data(data, options, provenance)
        if reason := why_no_path(data):
            raise DataError(f"data {str(data)!r} {reason}; expected a folder, or 'digits'")
        assert isinstance(options, EvalOptions)
        automatic = str(data) != "digits" and not has_own_val(data)
        whole = automatic and (is_split_name(Path(data).resolve().name, "val") or options.foreign)
        drawn = options.drawn(provenance)
        images = self.open_data(data, split := "all" if whole else "val", **drawn)
        if automatic and split == "val":
            warnings.warn(
                f"{data} has no val/ folder: evaluating the {len(images)} image(s) that training holds out of it "
                f"(seed {drawn.get('seed') or 0}); split 'all' takes every image",
                VanNotice,
                stacklevel=4,
            )
        return EvaluationData(images, str(data), split)

    def evaluator(self, subject: Subject, data: EvaluationData, options: base.EvalOptions) -> ClassificationEvaluator:
        from ...data.labelled_images import ClassificationData
        from .evaluation import evaluator_of

        if not isinstance(data.images, ClassificationData):
            raise ConfigError(f"{subject.name} is a classifier; expected images with one label each as data")
        assert isinstance(options, EvalOptions)
        return evaluator_of(subject, data.images, options)

    @property
    def report(self) -> type[ClassificationReport]:
        from .report import ClassificationReport

        return ClassificationReport

    @property
    def recipe(self) -> type[Recipe]:
        from ...recipes import Recipe

        return Recipe

    def training(self, recipe: BaseRecipe) -> ClassificationTraining:
        from ...recipes import Recipe
        from .training import ClassificationTraining

        assert isinstance(recipe, Recipe)
        return ClassificationTraining(recipe)


CLASSIFICATION = Classification()
