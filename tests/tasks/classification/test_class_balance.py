"""Imbalanced classes: weights in the loss, balanced sampling, scores by class."""

import collections
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from chaos import assert_same
from interrupted_runs import cut_off
from sklearn.metrics import f1_score, precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight
from tiny_training import make_stripes, slim_recipe

from van.cli import main
from van.data.dataset import EpochSampler, ProcessShare
from van.errors import ConfigError
from van.recipes import Recipe
from van.tasks.classification.accuracy import accuracy
from van.tasks.classification.losses import Criterion
from van.tasks.classification.meter import ClassificationMeter
from van.tasks.training import class_weights
from van.tools.report.page import write_report
from van.train import run
from van.train.folder import read_recipe
from van.train.prepare import prepare

LABELS = [0] * 12 + [1] * 3 + [2] * 5


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """Stripes, of which one class has a quarter of the images."""
    root = make_stripes(tmp_path_factory.mktemp("rare"), count=8)
    for i in range(2, 8):
        (root / "along" / f"{i}.png").unlink()
    return root


def never():
    raise AssertionError("nothing is to be counted")


class TestWeights:
    @pytest.mark.promise("21")
    def test_balanced_weights_are_scikit_learns(self):
        ours = class_weights("balanced", "abc", lambda: torch.tensor([12, 3, 5]))
        theirs = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
        assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-6)

    @pytest.mark.promise("21")
    def test_by_number_and_by_name(self):
        assert class_weights((1.0, 2.0), "ab", never).tolist() == [1, 2]
        assert class_weights({"b": 3.0}, "ab", never).tolist() == [1, 3]

    @pytest.mark.promise("21")
    def test_classes_may_be_called_as_numbers_are(self):
        recipe = Recipe.from_dict({"loss": {"class_weights": {0: 5, "1": 2}}})  # as YAML reads {0: 5, '1': 2}
        assert class_weights(recipe.loss.class_weights, ("0", "1", "2"), never).tolist() == [5, 2, 1]

    @pytest.mark.promise("21")
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_the_loss_is_the_weighted_mean(self, smoothing):
        logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1]), torch.tensor([1.0, 5.0, 0.5])
        recipe = Recipe().with_options(**{"augment.label_smoothing": smoothing})
        hard = Criterion(recipe, weights)(logits, labels)
        assert torch.equal(hard, F.cross_entropy(logits, labels, weights, label_smoothing=smoothing))
        shares = F.one_hot(labels, 3).float()
        expected = F.cross_entropy(logits, labels, weights)
        assert Criterion(recipe, weights)(logits, shares) == pytest.approx(float(expected), rel=1e-6)
        assert torch.equal(
            Criterion(recipe)(logits, labels), F.cross_entropy(logits, labels, label_smoothing=smoothing)
        )

    @pytest.mark.promise("21")
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss.class_weights": "balancd"}, "did you mean 'balanced'"),
            ({"loss.class_weights": "balanced", "loss.name": "bce"}, "belongs to loss.name cross_entropy"),
            ({"loss.class_weights": (1.0, -1.0)}, "class_weights"),
            ({"loss.class_weights": (0.0, 0.0)}, "above 0"),
            ({"loss.class_weights": {"along": float("nan")}}, "class_weights"),
            ({"data.sampling": "balancd"}, "did you mean 'balanced'"),
            ({"data.sampling": "balanced", "data.reader": "wds"}, "data.sampling has no effect"),
            ({"trainer.monitor": "val/f1"}, "val/macro_f1"),
        ],
    )
    def test_options_without_effect_or_sense_are_errors(self, options, message):
        with pytest.raises(ConfigError, match=message):
            Recipe().with_options(**options)

    @pytest.mark.promise("21")
    @pytest.mark.parametrize(
        ("weights", "message"),
        [((1.0, 2.0, 3.0), "3 numbers, the data 2 classes"), ({"alongg": 2.0}, "did you mean 'along'")],
    )
    def test_weights_that_do_not_fit_the_classes(self, weights, message, rare, tmp_path):
        with pytest.raises(ConfigError, match=message):
            prepare(slim_recipe(rare, tmp_path, **{"loss.class_weights": weights}))


class TestSampling:
    @pytest.mark.promise("21")
    def test_every_class_equally_often_and_every_copy_its_own_key(self):
        keys = EpochSampler(20, seed=3, labels=LABELS).order(1)
        counts = collections.Counter(LABELS[key[1]] for key in keys)
        assert sorted(counts.values()) == [6, 7, 7]
        assert len(set(keys)) == len(keys) == 20
        assert EpochSampler(20, seed=3, labels=LABELS).order(1) == keys
        assert EpochSampler(20, seed=3, labels=LABELS).order(2) != keys
        small = collections.Counter(key[1] for key in keys if LABELS[key[1]] == 1)
        assert max(small.values()) - min(small.values()) <= 1  # gone through evenly

    @pytest.mark.promise("21")
    def test_processes_share_one_order(self):
        whole = EpochSampler(20, seed=0, labels=LABELS)
        shares = [ProcessShare(whole) for _ in range(2)]
        for rank, share in enumerate(shares):
            share.rank, share.world_size = rank, 2
        taken = [list(share) for share in shares]
        assert [key for pair in zip(*taken, strict=True) for key in pair] == whole.order(0)

    @pytest.mark.promise("21")
    def test_repeated_augmentation_goes_with_it(self):
        keys = EpochSampler(20, seed=0, labels=LABELS, repeats=2).order(0)
        assert len(set(keys)) == 20
        assert all(a[1] == b[1] for a, b in zip(keys[::2], keys[1::2], strict=True))

    @pytest.mark.promise("21")
    @pytest.mark.parametrize("at_step", [1, 4])
    def test_a_resumed_run_is_the_uninterrupted_one(self, at_step, rare, tmp_path, monkeypatch):
        options = {"data.sampling": "balanced", "loss.class_weights": "balanced", "trainer.monitor": "val/macro_f1"}
        options |= {"trainer.checkpoint_every_steps": 1, "trainer.batch_size": 2, "trainer.epochs": 2}
        whole = run(slim_recipe(rare, tmp_path / "whole", **options))
        cut = slim_recipe(rare, tmp_path / "cut", **options)
        cut_off(monkeypatch, cut, at_step=at_step)
        run(cut.with_options(**{"trainer.resume": str(tmp_path / "cut")}))
        assert_same(whole, tmp_path / "cut")


class TestScores:
    @pytest.mark.promise("21")
    def test_scores_are_scikit_learns(self):
        rng = np.random.default_rng(0)
        truth, logits = rng.choice(5, 200, p=[0.6, 0.2, 0.1, 0.1, 0.0]), rng.normal(size=(200, 5))
        logits[:, 4] -= 100  # never there, never predicted
        logits[np.arange(200), truth] += 1
        meter = ClassificationMeter("abcde")
        meter.update(logits, truth)
        guesses = logits.argmax(1)
        theirs = precision_recall_fscore_support(truth, guesses, labels=range(4), zero_division=0)
        for number, score in enumerate(meter.per_class()):
            assert (score.precision, score.recall, score.f1) == pytest.approx(
                [100 * column[number] for column in theirs[:3]]
            )
            assert score.recall == score.top1
        assert meter.macro()["macro_f1"] == pytest.approx(100 * f1_score(truth, guesses, average="macro"))
        scores = accuracy(5)
        scores.update(torch.from_numpy(logits), torch.from_numpy(truth))
        for name, value in meter.macro().items():
            assert float(scores.compute()[name]) == pytest.approx(value, rel=1e-5)

    @pytest.mark.promise("21")
    def test_the_best_checkpoint_by_f1_and_every_figure_of_it(self, rare, tmp_path, capsys):
        options = {"trainer.monitor": "val/macro_f1", "loss.class_weights": {"along": 4.0}, "trainer.early_stopping": 5}
        folder = run(slim_recipe(rare, tmp_path / "run", **options))
        assert read_recipe(folder / "recipe.yaml").loss.class_weights == {"along": 4.0}
        summary = json.loads((folder / "summary.json").read_text())
        assert {"val/macro_f1", "val/macro_precision", "val/macro_recall"} <= summary.keys()
        assert "val/macro_f1" in (folder / "metrics.csv").read_text().splitlines()[0]
        page = write_report(folder).read_text()
        for part in (
            "<h3>Classes</h3>",
            "mean over classes (%)",
            "<th>F1</th>",
            "<th>precision</th>",
            "mean over classes",
        ):
            assert part in page
        command = ["eval", str(folder / "model.safetensors"), "--data", str(rare), "--per-class", "--split", "all"]
        assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in ("precision %", "recall %", "F1 %"))
        result = json.loads((tmp_path / "out.json").read_text())["results"][0]
        assert {"precision", "recall", "f1"} <= result["per_class"][0].keys()
        assert result["macro_f1"] == pytest.approx(np.mean([score["f1"] for score in result["per_class"]]))
