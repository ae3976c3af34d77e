"""The report's part of models of objects and of segments."""

import io

import numpy as np
import pytest
from fake_objects import fake_model

from van.data.object_scenes import SceneObjects, ScenePanoptic
from van.data.scenes import Scenes
from van.inference.session import open_session
from van.recipes import RECIPES, get_recipe
from van.tasks import task_named
from van.tasks.base import EvaluationData


def reported(task, count=14, **options):
    """The parts, and the metric of an evaluation of the same images."""
    made = Scenes(count=count)
    data = ScenePanoptic(made) if task == "panoptic" else SceneObjects(made)
    session, own = open_session(fake_model(task, **options)), task_named(task)
    evaluator = own.evaluator(session.subject, EvaluationData(data, "scenes", "val"), own.eval_options())
    report, metric = own.report.of(data, lambda: evaluator), evaluator.metric.empty()
    for index in range(len(data)):
        image, target = data.load(index)
        raw = evaluator.processor.run(session.engine, [evaluator.processor.prepare(image)])
        report.update(data.name(index), image, target, raw[0])
        metric.update(raw, [target], [data.name(index)])
    return report.parts(), metric, own


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        ("detection", ["AP", "AP50", "AP75"]),
        ("instance", ["AP", "AP50", "AP75", "mask/AP", "mask/AP50", "mask/AP75"]),
        ("panoptic", ["PQ", "PQ_things", "PQ_stuff"]),
    ],
)
def test_scores_classes_and_worst_images(task, shown):
    parts, metric, own = reported(task)
    scores = metric.compute()
    assert list(parts.headline) == shown
    assert parts.headline[shown[0]] == f"{scores[shown[0]]:.2%}"
    (section,) = parts.sections
    assert [row[0].text for row in section.table.rows] == list(metric.classes)
    assert all(len(row) == len(section.table.columns) for row in section.table.rows)
    assert 0 < len(parts.examples) <= 10
    for example in parts.examples:
        assert [caption for caption, _ in example.pictures] == ["truth", "prediction"]
        assert all(picture.size == (224, 224) for _, picture in example.pictures)
        example.pictures[0][1].save(io.BytesIO(), "PNG")
        assert not np.array_equal(*(np.asarray(picture) for _, picture in example.pictures))
    curves = {column for each in own.report.curves for column in each.labels}
    recipe = next(get_recipe(name) for name in RECIPES if isinstance(get_recipe(name), own.recipe))
    assert curves | set(own.report.headline) <= set(own.training(recipe).columns)


def test_the_worst_come_first():
    parts, _, _ = reported("detection")
    counts = [sum(int(fact.split()[0]) for fact in example.facts[:2]) for example in parts.examples]
    assert counts == sorted(counts, reverse=True)
    parts, _, _ = reported("panoptic")
    qualities = [float(example.facts[0].removeprefix("PQ ").removesuffix("%")) for example in parts.examples]
    assert qualities == sorted(qualities)


def test_unsure_detections_are_no_mistakes():
    parts, _, _ = reported("detection", score_threshold=0.0)
    sure, _, _ = reported("detection", score_threshold=0.3)
    assert [example.facts for example in parts.examples] == [example.facts for example in sure.examples]
