"""A task that the exporter has never heard of: several labels per image, each true or false."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from exported import PICTURES
from networks import lived_in
from torch import nn

import van
from van.configs.backbone import VanConfig
from van.configs.head_config import SECTIONS, HeadConfig
from van.images.preprocess import Preprocess
from van.inference.engines.exported import description_of
from van.nn import Model
from van.nn.backbone import Backbone
from van.tasks import TASKS
from van.tasks.base import Output, Processor, Task
from van.tasks.comparison import Comparison

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SLIM = VanConfig(embed_dims=(8, 16), depths=(1, 1), mlp_ratios=(4, 2), patch_sizes=(7, 3), num_classes=0)


class Tagger(Model):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = nn.Linear(config.backbone.embed_dims[-1], config.num_classes)

    def forward(self, images):
        return self.raw(images).sigmoid()

    def raw(self, images):
        return self.head(self.backbone(images)[-1].mean((2, 3)))


@dataclass(frozen=True)
class Tags(Output):
    image: str
    tags: tuple[str, ...]

    def to_dict(self):
        return {"image": self.image, "tags": list(self.tags)}

    def draw(self):
        raise NotImplementedError


class TagProcessor(Processor):
    def __init__(self, subject):
        self.preprocess, self.classes = subject.metadata.preprocess, subject.classes

    def prepare(self, image):
        return self.preprocess(image)

    def inputs(self, image):
        yield self.preprocess(image)

    def run(self, engine, prepared):
        return list(engine.run(np.stack(prepared))["logits"])

    def output(self, raw, prepared, source):
        return Tags(source.name, tuple(name for name, value in zip(self.classes, raw, strict=True) if value > 0))


@dataclass(frozen=True)
class Signs(Comparison):
    def decide(self, raw):
        return raw["logits"] > 0

    def measure(self, got, want):
        pairs = [(self.decide(a), self.decide(b)) for a, b in zip(got, want, strict=True)]
        return {"both": float(np.mean([(a & b).mean() for a, b in pairs]))}


@dataclass(frozen=True)
class NoOptions:
    pass


@pytest.fixture
def tagger(monkeypatch):
    monkeypatch.setattr("van.configs.head_config.SECTIONS", dict(SECTIONS))

    @dataclass(frozen=True, kw_only=True)
    class TaggerConfig(HeadConfig):
        task: ClassVar[str] = "tagging"
        noun: ClassVar[str] = "tagger"
        section: ClassVar[str] = "tagger"
        name: ClassVar[str] = "tagger_van_custom"
        backbone: VanConfig
        num_classes: int = 3

    class Tagging(Task):
        name, noun, config = "tagging", "tagger", TaggerConfig
        predict_options = NoOptions
        comparison = Signs(
            score="exact", heading="exact %", decisions="tags", unit="tags", figures={"both": "both set"}
        )

        def processor(self, subject, options):
            return TagProcessor(subject)

        def open_data(self, path, split=None, **options):
            raise NotImplementedError

        def evaluator(self, subject, data, options):
            raise NotImplementedError

    monkeypatch.setitem(TASKS, "tagging", Tagging())
    model = lived_in(Tagger(TaggerConfig(backbone=SLIM))).eval()
    model.preprocess = Preprocess(size=(32, 32), crop_pct=1.0)
    model.classes = ("wet", "wild", "woolly")
    return model


def test_it_is_exported_with_parity_and_predicts(tagger, tmp_path):
    done = van.export(tagger, tmp_path / "m.onnx", images=PICTURES)
    assert done.max_error < 1e-5
    assert [case.shape for case in done.parity.cases][-1] == (3, 3, 32, 32)
    assert [case.votes for case in done.parity.cases][-1] == 9  # a decision per tag
    found = description_of(tmp_path / "m.onnx")
    assert (found.task, found.config, found.classes) == ("tagging", tagger.config, ("wet", "wild", "woolly"))
    assert found.to_dict()["tagger"] == {"num_classes": 3}
    exported, original = (van.Predictor(source).predict_many(PICTURES) for source in (tmp_path / "m.onnx", tagger))
    outputs = list(exported)
    assert outputs == list(original)
    assert {type(each) for each in outputs} == {Tags}
    with pytest.raises(van.errors.ConfigError, match=r"size belongs to classifiers, .*, which Tagger is not"):
        van.export(tagger, tmp_path / "m.onnx", size=64)


@pytest.mark.long
def test_int8_is_measured_by_what_the_task_decides(tagger, tmp_path):
    done = van.quantize(tagger, tmp_path / "m.onnx", calibration=PICTURES, max_drop=1)
    report = done.report.to_dict()
    assert (report["exact"], report["fp32_exact"], report["top1"]) == (None, None, None)  # no validation data
    assert report["drop"] == 1 - report["agreement"]
    assert 0 <= report["both"] <= 1
    assert done.comparison.unit == "tags"
