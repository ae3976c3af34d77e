"""Folders that vanish or close while a run writes to them, data sets that change, images that go, memory that stays."""

import errno
import gc
import os
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from chaos import assert_same
from interrupted_runs import cut_off
from PIL import Image
from tiny_training import SLIM, make_stripes, slim_recipe

import van
from van.cli import main
from van.errors import CheckpointError, ConfigError, DataError, VanNotice
from van.models import create_model, save
from van.recipes import get_recipe
from van.train import run
from van.train.module import TrainingModule


@pytest.fixture
def stripes(tmp_path):
    return make_stripes(tmp_path / "data")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def at_step(monkeypatch, number, act):
    """Let something happen while a run trains."""
    step = TrainingModule.training_step

    def acting(self, batch, batch_idx):
        if self.global_step == number:
            act()
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", acting)


def close(monkeypatch, folder, number):
    """From now on the folder takes no file any more; permissions would not stop root."""
    write = Path.open

    def refused(self, mode="r", *rest, **named):
        if "w" in mode and folder in self.parents:
            raise OSError(number, os.strerror(number), str(self))
        return write(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", refused)


class TestFolders:
    @pytest.mark.promise("changing-world")
    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ESTALE, errno.EIO])
    def test_a_folder_that_becomes_read_only(self, number, stripes, temporary, tmp_path, monkeypatch):
        whole = run(slim_recipe(stripes, tmp_path / "whole"))
        kept = {}
        with monkeypatch.context() as patch:

            def shut():
                kept["last"] = (tmp_path / "run" / "last.ckpt").read_bytes()
                close(patch, tmp_path / "run", number)

            at_step(patch, 4, shut)
            with (
                pytest.warns(VanNotice, match=r"cannot write .*metrics\.csv"),
                pytest.raises(CheckpointError) as caught,
            ):
                run(slim_recipe(stripes, tmp_path / "run"))
        refuge = next(temporary.glob("run-rescued-*"))
        said = str(caught.value)
        assert os.strerror(number) in said
        assert f"was kept in {refuge}: go on with trainer.resume {refuge}" in said
        assert (tmp_path / "run" / "last.ckpt").read_bytes() == kept["last"]
        run(slim_recipe(stripes, "x", **{"trainer.out": None, "trainer.resume": str(refuge)}))
        assert_same(whole, refuge)

    @pytest.mark.promise("changing-world")
    def test_a_folder_that_vanishes(self, stripes, temporary, tmp_path, monkeypatch, capfd):
        with monkeypatch.context() as patch:
            at_step(patch, 4, lambda: shutil.rmtree(tmp_path / "run"))
            with (
                pytest.warns(VanNotice, match="metrics.csv"),
                pytest.raises(CheckpointError, match="the run's folder has vanished; step 6 was kept in"),
            ):
                run(slim_recipe(stripes, tmp_path / "run"))
        assert not (tmp_path / "run").exists()
        assert "Traceback" not in capfd.readouterr().err
        refuge = next(temporary.glob("run-rescued-*"))
        assert main(["train", "--trainer.resume", str(refuge)]) == 0
        assert (refuge / "model.safetensors").exists()

    @pytest.mark.promise("changing-world")
    def test_a_run_whose_folder_was_moved_knows_its_best_epoch(self, stripes, tmp_path, monkeypatch):
        """The later epochs are worse on purpose; the best one's weights are still those that are kept."""
        options = {"trainer.epochs": 4, "trainer.history": 1, "optim.lr": 1e-2, "optim.lr_batch": None}
        whole = run(slim_recipe(stripes, tmp_path / "whole", **options))
        cut_off(monkeypatch, slim_recipe(stripes, tmp_path / "run", **options), at_step=7)
        (tmp_path / "run").rename(tmp_path / "moved")
        run(slim_recipe(stripes, "x", **{**options, "trainer.out": None, "trainer.resume": str(tmp_path / "moved")}))
        assert_same(whole, tmp_path / "moved")
        assert (tmp_path / "moved" / "summary.json").exists()
        assert not (tmp_path / "run").exists()
        names = [sorted(path.name for path in (each / "history").iterdir()) for each in (whole, tmp_path / "moved")]
        assert names[0] == names[1]


class TestDataSets:
    def interrupted(self, stripes, tmp_path, monkeypatch, **options):
        recipe = slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 2, **options})
        cut_off(monkeypatch, recipe, at_step=4)
        return recipe.with_options(**{"trainer.resume": str(tmp_path / "run")})

    @pytest.mark.promise("changing-world")
    @pytest.mark.parametrize("change", ["added", "removed", "renamed"])
    def test_changed_files_are_named_by_class(self, change, stripes, tmp_path, monkeypatch):
        recipe = self.interrupted(stripes, tmp_path, monkeypatch)
        image = stripes / "along" / "3.png"
        if change == "added":
            shutil.copy(image, stripes / "along" / "new.png")
        else:
            image.rename(stripes / "along" / "renamed.png") if change == "renamed" else image.unlink()
        with pytest.raises(
            DataError, match=r"data set has changed since .*'along' has .*resume_with_changed_data true"
        ):
            run(recipe)
        with pytest.warns(VanNotice, match=r"'along' has .*: the run goes on"):
            folder = run(recipe.with_options(**{"trainer.resume_with_changed_data": True}))
        assert (folder / "model.safetensors").exists()

    @pytest.mark.promise("changing-world")
    def test_changed_classes_are_named(self, stripes, tmp_path, monkeypatch):
        recipe = self.interrupted(stripes, tmp_path, monkeypatch)
        (stripes / "along").rename(stripes / "lengthwise")
        with pytest.raises(ConfigError, match=r"other classes than those of .*\(without along; new: lengthwise\)"):
            run(recipe.with_options(**{"trainer.resume_with_changed_data": True}))

    @pytest.mark.promise("changing-world")
    def test_a_data_set_that_was_moved_is_the_same(self, stripes, tmp_path, monkeypatch):
        whole = run(slim_recipe(stripes, tmp_path / "whole", **{"trainer.epochs": 2}))
        recipe = self.interrupted(stripes, tmp_path, monkeypatch)
        stripes.rename(tmp_path / "moved")
        run(recipe.with_options(**{"data.path": str(tmp_path / "moved")}))
        assert_same(whole, tmp_path / "run")

    @pytest.mark.promise("changing-world")
    def test_the_option_needs_a_run(self):
        with pytest.raises(ConfigError, match=r"needs trainer\.resume"):
            get_recipe("finetune").with_options(**{"trainer.resume_with_changed_data": True})
        with pytest.raises(ConfigError, match=r"needs trainer\.resume"):
            get_recipe("light_ham_digits").with_options(**{"trainer.resume_with_changed_data": True})

    @pytest.mark.promise("changing-world")
    def test_pictures_of_a_segmentation_data_set(self, tmp_path):
        from segmentation_pairs import make_pairs

        from van.data.fingerprint import differences
        from van.data.segmentation import open_segmentation

        for part in ("train", "val"):
            make_pairs(tmp_path, f"images/{part}", f"masks/{part}")
        (tmp_path / "dataset.yaml").write_text("images: images\nmasks: masks\nnames: [a, b]\n")
        before = {"train": open_segmentation(tmp_path, "train").fingerprint()}
        for folder, suffix in (("images", ".jpg"), ("masks", ".png")):
            (tmp_path / folder / "train" / f"1{suffix}").unlink()
        now = {"train": open_segmentation(tmp_path, "train").fingerprint()}
        assert differences(before, now) == ["train: 'images' has 1 images, had 2"]

    @pytest.mark.promise("changing-world")
    def test_an_image_that_vanishes_is_replaced_aloud(self, stripes, tmp_path, monkeypatch):
        at_step(monkeypatch, 3, lambda: (stripes / "along" / "3.png").unlink())
        with pytest.warns(VanNotice, match=r"along/3\.png cannot be read; another image stands in"):
            assert (run(slim_recipe(stripes, tmp_path / "run")) / "model.safetensors").exists()

    @pytest.mark.promise("changing-world")
    def test_all_images_vanish(self, stripes, tmp_path, monkeypatch):
        at_step(monkeypatch, 4, lambda: shutil.rmtree(stripes))
        with pytest.raises(DataError) as caught:
            run(slim_recipe(stripes, tmp_path / "run"))
        assert "\n" not in str(caught.value)
        assert (tmp_path / "run" / "last.ckpt").exists()


def round_of(path):
    """What a service does again and again: load, optimise, predict."""
    model = van.optimize(van.load(path))
    predict = van.Predictor(model)
    predict(Image.fromarray(np.zeros((32, 32, 3), np.uint8)))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    options = {name.removeprefix("model."): value for name, value in SLIM.items()}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(create_model("van_b0", num_classes=3, **options), path)
    return path


@pytest.mark.promise("changing-world")
@pytest.mark.long
def test_rounds_of_loading_and_predicting_leave_nothing_behind(model_file):
    """Python's own memory and the living modules; the slow test below measures the process."""
    for _ in range(3):
        round_of(model_file)
    gc.collect()
    tracemalloc.start()
    try:
        before, modules = tracemalloc.get_traced_memory()[0], living_modules()
        for _ in range(10):
            round_of(model_file)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert living_modules() <= modules
    assert grown < 200_000  # one network has 100,000 weights, and so many bytes of Python objects again


def living_modules():
    from torch import nn

    return sum(issubclass(type(each), nn.Module) for each in gc.get_objects())


@pytest.mark.slow
@pytest.mark.promise("changing-world")
def test_memory_of_the_process_stays_flat(model_file):
    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(50):
        round_of(model_file)
    before = resident()
    for _ in range(400):
        round_of(model_file)
    assert resident() - before < 20e6
