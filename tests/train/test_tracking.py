"""Trackers get the figures, checkpoints have a history, and `van report` shows a run in one page."""

import json
import re
import sys
import types
from html.parser import HTMLParser

import pytest
from tiny_training import make_stripes, slim_recipe

from van.cli import main
from van.errors import ConfigError, DataError, MissingExtraError
from van.recipes import SegmentationRecipe
from van.tools.report.chart import chart
from van.tools.report.page import write_report
from van.train import run, tracking
from van.train.tracking import loggers


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def finished(stripes, tmp_path_factory):
    """A short run that is still wrong about some images."""
    options = {"trainer.epochs": 3, "trainer.history": 2, "optim.lr": 1e-5}
    return run(slim_recipe(stripes, tmp_path_factory.mktemp("runs") / "a<b>", **options))


def test_history_keeps_the_best_checkpoints(finished):
    kept = sorted(path.name for path in (finished / "history").iterdir())
    assert len(kept) == 2
    assert all(re.fullmatch(r"epoch-000\d\.ckpt", name) for name in kept)
    assert (finished / "best.ckpt").exists()
    assert (finished / "last.ckpt").exists()


def test_no_tracker_at_all(stripes, tmp_path):
    folder = run(slim_recipe(stripes, tmp_path / "run", **{"track.tensorboard": False, "trainer.epochs": 1}))
    assert not (folder / "tensorboard").exists()
    assert (folder / "metrics.csv").exists()


class Recorded:
    """Stands in for one of Lightning's loggers; keeps what it is told."""

    def __init__(self, *arguments, **options):
        self.arguments, self.options, self.settings, self.run_id = arguments, options, {}, "1"

    def log_hyperparams(self, values):
        self.settings = values


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_trackers_are_told_the_recipe(monkeypatch, tmp_path, kind):
    for package in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setattr(tracking, "WandbLogger", Recorded)
    monkeypatch.setattr(tracking, "MLFlowLogger", Recorded)
    options = {"track.tensorboard": False, "track.wandb": "van", "track.wandb_offline": True, "track.mlflow": "stripes"}
    recipe = slim_recipe("x", "y") if kind == "classification" else SegmentationRecipe()
    recipe = recipe.with_options(**options)
    wandb, mlflow = loggers(tmp_path / "run", recipe)
    assert (wandb.options["project"], wandb.options["offline"], wandb.options["name"]) == ("van", True, "run")
    assert wandb.options["save_dir"] == str(tmp_path / "run")
    assert (mlflow.arguments, mlflow.options["run_name"]) == (("stripes",), "run")
    assert str(tmp_path) in mlflow.options["tracking_uri"]
    assert wandb.settings == mlflow.settings == recipe.to_dict()
    named = recipe.with_options(**{"track.mlflow_uri": "http://server"})
    assert loggers(tmp_path, named)[1].options["tracking_uri"] == "http://server"


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_missing_trackers_are_named(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is needed.*\[track\]"):
        loggers(tmp_path, slim_recipe("x", "y", **{f"track.{package}": "van"}))


def test_unreachable_server_is_told(monkeypatch, tmp_path):
    class Unreachable(Recorded):
        def __init__(self, *arguments, **options):
            self.options = options

        @property
        def run_id(self):
            raise OSError("no answer")

    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setattr(tracking, "MLFlowLogger", Unreachable)
    with pytest.raises(ConfigError, match="no answer"):
        loggers(tmp_path, slim_recipe("x", "y", **{"track.mlflow": "a", "track.mlflow_uri": "http://nowhere"}))


def test_wandb_offline_writes_into_the_run(stripes, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = {"track.wandb": "van", "track.wandb_offline": True, "trainer.epochs": 1}
    folder = run(slim_recipe(stripes, tmp_path / "run", **options))
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))


def test_mlflow_keeps_figures_in_the_run(stripes, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    folder = run(slim_recipe(stripes, tmp_path / "run", **{"track.mlflow": "stripes", "trainer.epochs": 1}))
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("stripes").experiment_id])
    assert "val/top1" in found[0].data.metrics
    assert found[0].data.params["optim/lr"] == "0.001"


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.images, self.headings, self.lines, self.open = [], 0, [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.open.append(tag)
        self.lines += tag == "g" and "curve-" in values.get("id", "")
        self.images += tag == "img"
        self.fetched += [
            values[name] for name in ("src", "href") if name in values and not values[name].startswith("data:")
        ]

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.headings.append(text)


def test_report_is_one_page_with_everything(finished, capsys):
    assert main(["report", str(finished)]) == 0
    assert "report.html" in capsys.readouterr().out
    text = (finished / "report.html").read_text()
    page = Page(text)
    assert page.fetched == []
    assert "<script" not in text
    wanted = ["Curves", "Confusion matrix", "Worst-classified images", "Last epochs", "Recipe", "Environment"]
    assert page.headings == wanted
    assert page.lines == 5  # two losses, top-1 (two classes have no top-5), rate, images per second
    summary = json.loads((finished / "summary.json").read_text())
    assert f"{summary['val/top1']:.2f}%" in text
    assert "auto_augment: null" in text
    assert "a&lt;b&gt;" in text
    assert "<b>" not in text.split("<title>")[1].split("</title>")[0]


def test_report_shows_the_worst_images_first(finished, stripes):
    text = write_report(finished, finished / "page.html").read_text()
    shown = [int(value) for value in re.findall(r"</span> (\d+)%<br>is (?:across|along)", text)]
    summary = json.loads((finished / "summary.json").read_text())
    held_out = 4
    assert len(shown) == round(held_out * (1 - summary["val/top1"] / 100))
    assert shown == sorted(shown, reverse=True)


def test_report_of_a_run_under_way(finished, tmp_path):
    for name in ("recipe.yaml", "metrics.csv"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    text = write_report(tmp_path).read_text()
    assert "under way: 3 of 3 epochs" in text
    assert "Confusion" not in text
    with pytest.raises(DataError, match="is no run"):
        write_report(tmp_path / "nowhere")


def test_charts_survive_odd_numbers():
    assert "curve-0" in chart([1], {"loss": [0.5]})
    assert "nan" not in chart([1, 2, 3], {"loss": [1.0, float("nan"), 0.5]})
    assert ">loss nan<" in chart([1, 2], {"loss": [1.0, float("nan")]})
    assert chart([1, 2], {"a & $b$": [1.0, 1.0]}).count("a &amp; $b$ 1<") == 1
