"""The training loss that is shown is the loss of the images, however many passes an optimizer step accumulates."""

import csv
import io
import re

import pytest
from chaos import Victim
from rich.console import Console
from tiny_segmentation import slim_segmentation
from tiny_training import make_stripes, slim_recipe

from van.tools.report.page import write_report
from van.train import progress, run
from van.train.module import TrainingModule

# Weights stay as they are, so that only the counting of passes can differ.
STILL = {
    "optim.name": "sgd", "optim.lr": 0.0, "optim.weight_decay": 0.0, "schedule.name": "constant",
    "schedule.min_lr": 0.0, "trainer.batch_size": 2, "trainer.epochs": 2, "trainer.log_every_steps": 1,
    "model.drop_path_rate": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    root = tmp_path_factory.mktemp("stripes")
    make_stripes(root / "train", count=7)
    make_stripes(root / "val", count=1)
    return root


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def spied(monkeypatch, kind):
    """What every training step of a run returns."""
    seen, step = [], kind.training_step

    def spying(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        seen.append((self.current_epoch, float(loss.detach())))
        return loss

    monkeypatch.setattr(kind, "training_step", spying)
    return seen


def means(seen):
    return [sum(loss for at, loss in seen if at == epoch) / sum(at == epoch for at, _ in seen) for epoch in (0, 1)]


@pytest.mark.promise("2")
@pytest.mark.parametrize("accumulate", [1, 2, 3, 4])
def test_accumulated_passes(accumulate, stripes, tmp_path, monkeypatch):
    """Seven passes an epoch: with 2, 3 and 4 the last step accumulates fewer."""
    seen = spied(monkeypatch, TrainingModule)
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=screen, width=200))
    options = {**STILL, "trainer.accumulate": accumulate, "trainer.progress": "lines"}
    folder = run(slim_recipe(stripes, tmp_path / "run", **options))
    assert len(seen) == 14
    assert losses(folder) == pytest.approx(means(seen), rel=1e-5)
    shown = re.findall(r" loss (\d\.\d{4})", screen.getvalue())
    assert [float(loss) for loss in shown] == pytest.approx(means(seen), abs=1e-4)
    page = write_report(folder).read_text()
    assert f"training {losses(folder)[-1]:.4g}" in page


@pytest.mark.promise("2")
def test_trackers_get_the_same(stripes, tmp_path, monkeypatch):
    seen = spied(monkeypatch, TrainingModule)
    folder = run(slim_recipe(stripes, tmp_path / "run", **STILL, **{"trainer.accumulate": 2}))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [each.value for each in events.Scalars("train/loss_epoch")] == pytest.approx(losses(folder))
    assert losses(folder) == pytest.approx(means(seen), rel=1e-5)


@pytest.mark.promise("2")
def test_segmentation(tmp_path, monkeypatch):
    seen = spied(monkeypatch, TrainingModule)
    folder = run(slim_segmentation(tmp_path / "run", **{"trainer.accumulate": 2, "trainer.batch_size": 2}))
    assert losses(folder) == pytest.approx(means(seen), rel=1e-5)


@pytest.mark.promise("2")
@pytest.mark.long
def test_two_processes(stripes, tmp_path):
    """The same images in the same passes: the loss over both processes is that of one."""
    shown = {}
    for ranks, accumulate in ((1, 4), (2, 2)):
        folder = tmp_path / str(ranks)
        options = {**STILL, "trainer.batch_size": 2, "trainer.accumulate": accumulate, "trainer.devices": ranks}
        options |= {"augment.crop_scale": None, "augment.hflip": 0.0, "trainer.epochs": 1}
        victim = Victim(slim_recipe(stripes, folder, **options), folder, ranks=ranks)
        assert victim.live() == [0] * ranks, victim.said()
        shown[ranks] = losses(folder)
    assert shown[2] == pytest.approx(shown[1], rel=0.1)  # seven passes, and six


@pytest.mark.promise("21")
def test_epochs_count_from_one_everywhere(stripes, tmp_path, capfd):
    folder = run(slim_recipe(stripes, tmp_path / "run", **STILL, **{"trainer.history": 2, "trainer.progress": "lines"}))
    assert re.findall(r"epoch (\d)/2", capfd.readouterr().err) == ["1", "2"]
    with (folder / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert sorted(path.name for path in (folder / "history").iterdir()) == ["epoch-0001.ckpt", "epoch-0002.ckpt"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {each.value for each in events.Scalars("epoch")} == {1.0, 2.0}
    table = write_report(folder).read_text().split("Last epochs")[1]
    assert re.findall(r"<tr><td>(\d)</td>", table) == ["1", "2"]


@pytest.mark.promise("21")
def test_tables_of_earlier_versions_are_counted_from_one_too(tmp_path):
    from van.tools.report.run_picture import read_table

    (tmp_path / "metrics.csv").write_text("epoch,train/loss\n0,2.0\n1,1.0\n")
    assert read_table(tmp_path)["epoch"] == [1, 2]
