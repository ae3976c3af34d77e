"""What the tasks share whose models give objects, with or without masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...configs.model_config import ModelConfig
from ...configs.object_config import ObjectConfig
from .. import base
from ..base import DataSet, EvaluationData, ResultTable, Subject, Task
from .options import EvalOptions, ObjectOptions, PredictOptions
from .output import ObjectResults

if TYPE_CHECKING:
    from torch import Tensor

    from .evaluation import CocoEvaluation
    from .object_evaluation import ObjectEvaluator
    from .processor import ObjectProcessor
    from .report import ObjectReport

DATA_HELP = "'scenes', a folder, or COCO's JSON"


class ObjectTask(Task):
    """Images with objects. masks: whether objects have masks, which are scored too."""

    masks: ClassVar[bool]
    predict_options: ClassVar[type] = PredictOptions
    eval_options: ClassVar[type[base.EvalOptions]] = EvalOptions
    results: ClassVar[ResultTable] = ObjectResults()
    data_help: ClassVar[str] = DATA_HELP

    @property
    def evaluation(self) -> type[CocoEvaluation]:
        """What an evaluation gives."""
        raise NotImplementedError

    def class_scores(self, config: ModelConfig, raw: Mapping[str, Tensor]) -> Tensor:
        """The best score of each class."""
        from ...nn.object_model import class_scores

        assert isinstance(config, ObjectConfig)
        return class_scores(config, raw)

    def takes_images(self, subject: Subject) -> bool:
        from .resizing import takes_images

        return takes_images(subject)

    def sized(self, subject: Subject, size: int | tuple[int, int]) -> Subject:
        from .resizing import sized

        return sized(subject, size)

    def processor(self, subject: Subject, options: object) -> ObjectProcessor:
        from .processor import processor_of

        assert isinstance(options, ObjectOptions)
        return processor_of(subject, options)

    def open_data(self, path: str | Path, split: str | None = None, **options: Any) -> DataSet[Any]:
        from ...data.object_data import open_objects

        given = {name: value for name, value in options.items() if value is not None}
        return open_objects(path, split or "val", need_masks=self.masks, **given)

    def evaluator(self, subject: Subject, data: EvaluationData, options: base.EvalOptions) -> ObjectEvaluator:
        from .object_evaluation import object_evaluator

        assert isinstance(options, EvalOptions)
        return object_evaluator(subject, data, options, masks=self.masks, kind=self.evaluation)

    @property
    def report(self) -> type[ObjectReport]:
        from .report import ObjectReport

        return ObjectReport
