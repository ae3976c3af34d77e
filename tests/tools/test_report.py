"""The report of a run: scores per class, confusion matrix, worst examples, charts."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from tiny_segmentation import slim_segmentation

from van.data.infinite_sampler import spread
from van.data.scenes import Scenes
from van.images.confusion_picture import confusion_picture
from van.inference.predictor import Predictor
from van.tasks.classification.report import ClassificationReport
from van.tasks.report_parts import Cell, ReportParts, Section, Table, WorstExample
from van.tasks.segmentation.confusion_matrix import ConfusionMatrix
from van.tasks.segmentation.report import EXAMPLES
from van.tools.report.chart import chart
from van.tools.report.evaluation import evaluate_run
from van.tools.report.page import render, write_report
from van.train import run
from van.train.folder import read_recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(slim_segmentation(tmp_path_factory.mktemp("runs") / "seg", **{"data.val_images": 12}))


def test_report_of_a_segmentation_run(finished):
    text = write_report(finished).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Curves", "Classes", "Confusion matrix", "Worst-segmented images", "Last epochs", "Recipe", "Environment",
    ]  # fmt: skip
    classes = text.split("<h2>Classes</h2>")[1].split("<h2>")[0]
    assert classes.count("<tr>") == 1 + 11
    pixels = sum(int(cells[0].replace(",", "")) for cells in re.findall(r"<td>([\d,]+)</td><td>([\d,]+)</td>", classes))
    assert pixels == 12 * 32 * 32  # of the pictures that the validations looked at
    ious = [float(share) for share in re.findall(r"</span>([\d.]+)%</td><td>", classes)]
    summary = json.loads((finished / "summary.json").read_text())
    assert np.mean(ious) == pytest.approx(100 * summary["val/mIoU"], abs=0.06)
    worst = text.split("<h2>Worst-segmented images</h2>")[1].split("<h2>")[0]
    assert worst.count("<img") == 3 * EXAMPLES
    shown = [float(share) for share in re.findall(r"mIoU ([\d.]+)%", worst)]
    assert shown == sorted(shown)


def test_the_worst_pictures_are_the_worst(finished):
    data = Scenes("val", size=32)
    predict = Predictor(finished / "model.safetensors")
    chosen = spread(len(data), 12)
    scores, total = {}, ConfusionMatrix(len(data.classes))
    for index in chosen:
        one = ConfusionMatrix(len(data.classes))
        image, labels = data.load(index)
        one.update(predict(image).mask, labels)
        scores[index], total = one.summary()["mIoU"], total + one
    parts = evaluate_run(finished, read_recipe(finished / "recipe.yaml"), device="cpu")
    assert parts.headline == {"mIoU": f"{total.summary()['mIoU']:.2%}"}
    worst = sorted(chosen, key=lambda index: scores[index])[:EXAMPLES]
    assert [example.name for example in parts.examples] == [str(index) for index in worst]
    assert [example.facts for example in parts.examples] == [(f"mIoU {scores[index]:.1%}",) for index in worst]


def test_the_surest_mistakes_of_a_classifier_come_first():
    report = ClassificationReport(("cat", "<b>dog</b>"))
    for number in range(40):
        logits = np.array([number / 10, 0], np.float32)
        report.update(f"some/{number}.png", Image.new("L", (300, 8)), number % 2, logits)
    parts = report.parts()
    assert parts.headline == {"top1": "50.00%"}
    assert [example.name for example in parts.examples] == [f"{number}.png" for number in range(39, 0, -2)]
    assert parts.examples[0].wrong == "cat"
    assert parts.examples[0].facts == ("98%", "is <b>dog</b>")
    assert parts.examples[0].pictures[0][1].size == (224, 6)


def test_the_page_escapes_what_others_wrote():
    hostile = '</pre><script>alert("x")</script>'
    parts = ReportParts(
        headline={},
        sections=(Section(title=hostile, table=Table(title=hostile, columns=(hostile,), rows=((Cell(hostile),),))),),
        examples_title=hostile,
        examples=(
            WorstExample(pictures=((hostile, Image.new("L", (4, 4))),), facts=(hostile,), name=hostile, wrong=hostile),
        ),
        none=hostile,
    )
    text = dict.fromkeys(("title", "name", "subtitle", "recipe"), hostile)
    tables = {"headline": {hostile: hostile}, "environment": {hostile: hostile}}
    epochs = {"columns": [hostile], "rows": [[hostile]]}
    page = render(charts={hostile: chart([1], {hostile: [1.0]})}, parts=parts, epochs=epochs, **text, **tables)
    assert "<script" not in page
    assert page.count("</pre>") == 1
    assert page.count("&lt;script&gt;") >= 16


def test_the_page_is_the_same_every_time(finished, tmp_path):
    first, second = (write_report(finished, tmp_path / f"{number}.html").read_bytes() for number in range(2))
    assert first == second
    assert all(word not in first for word in (b"http://www.w3.org/1999/02/22-rdf", b"<dc:date>"))


def test_counts_of_pixels_are_shares_in_the_picture():
    """Numbers that would not fit a cell: the picture is as that of a matrix of a hundredth of them, text aside."""
    few = np.array([[900, 100], [1, 999]])
    assert confusion_picture(few, ("a", "b")) != confusion_picture(few * 100, ("a", "b"))
    assert confusion_picture(few * 1000, ("a", "b")) == confusion_picture(few * 10_000, ("a", "b"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.19, 0.756], ["0", "0.2", "0.4", "0.6", "0.8"]),
        ([1.25e-6, 0.0015], ["0", "0.0005", "0.001", "0.0015"]),
        ([90.0, 99.7], ["90", "92.5", "95", "97.5", "100"]),
        ([-3.0, 4.0], ["-4", "-2", "0", "2", "4"]),
    ],
)
def test_ticks_are_round_and_reach_around(values, expected):
    texts = re.findall(r"<text[^>]*>([^<]*)", chart([1, 2], {"line": values}))
    assert texts == ["1", "2", *expected, f"line {values[-1]:.4g}"]


def test_a_line_of_one_value_has_ticks_too():
    for values in ([5.0, 5.0], [float("nan")] * 2):
        assert len(re.findall("<text", chart([1, 2], {"line": values}))) >= 5
