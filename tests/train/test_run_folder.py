"""One training per folder, what killed runs leave behind, and Ctrl-C at any moment."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from chaos import Victim, assert_same
from tiny_training import make_stripes, slim_recipe

from van.cli import main
from van.errors import ConfigError, DataError, VanNotice
from van.tools.report.page import write_report
from van.train import lock as locks
from van.train import run
from van.train.folder import open_folder, write_recipe
from van.train.lock import LOCK, RunLock
from van.train.module import TrainingModule


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes"))


def left_by(folder, **other):
    """The lock file of a process that did not let go."""
    holder = {"host": socket.gethostname(), "process": os.getpid(), "started": "2026-01-01T00:00:00+0000", **other}
    (folder / LOCK).write_text(json.dumps(holder))


def open_files(process):
    """What a process has open; a file that it closes meanwhile is left out."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield str(descriptor.readlink())


class TestLock:
    @pytest.mark.promise("run-folder")
    def test_the_second_is_refused_and_names_the_first(self, tmp_path):
        with RunLock() as first:
            first.take(tmp_path)
            first.take(tmp_path)  # again does nothing
            expected = rf"in use by another training: process {os.getpid()} on {socket.gethostname()}, since \d"
            with RunLock() as second, pytest.raises(ConfigError, match=expected):
                second.take(tmp_path)
        assert not (tmp_path / LOCK).exists()
        with RunLock() as third:
            third.take(tmp_path)

    @pytest.mark.promise("run-folder")
    def test_a_second_training_is_refused_while_one_runs(self, stripes, tmp_path, monkeypatch, capsys):
        step, said = TrainingModule.training_step, []

        def meanwhile(self, batch, batch_idx):
            if not said:
                options = ["--config", str(tmp_path / "run" / "recipe.yaml"), "--trainer.out", str(tmp_path / "run")]
                said.append(main(["train", *options]))
                said.append(main(["train", *options, "--trainer.resume", "auto"]))
            return step(self, batch, batch_idx)

        monkeypatch.setattr(TrainingModule, "training_step", meanwhile)
        folder = run(slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 1}))
        assert said == [2, 2]
        assert capsys.readouterr().err.count(f"in use by another training: process {os.getpid()} on") == 2
        assert (folder / "model.safetensors").exists()
        assert not (folder / LOCK).exists()

    @pytest.mark.promise("run-folder")
    def test_the_lock_of_a_dead_process_is_taken_over_at_once(self, tmp_path):
        left_by(tmp_path, process=1)  # alive, but the kernel knows that it has no lock
        with RunLock() as lock:
            lock.take(tmp_path)
            assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()

    @pytest.mark.promise("run-folder")
    @pytest.mark.parametrize("alive", [True, False])
    def test_without_locks_of_the_kernel_the_process_decides(self, alive, tmp_path, monkeypatch):
        def unsupported(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", unsupported)
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        left_by(tmp_path, process=os.getppid() if alive else int(ended.stdout))
        with RunLock() as lock:
            if alive:
                with pytest.raises(ConfigError, match=rf"process {os.getppid()} on"):
                    lock.take(tmp_path)
            else:
                lock.take(tmp_path)

    @pytest.mark.promise("run-folder")
    @pytest.mark.parametrize("beating", [True, False])
    def test_another_machine_is_watched_for_its_heartbeat(self, beating, tmp_path, monkeypatch):
        left_by(tmp_path, host="elsewhere", process=77)
        monkeypatch.setattr(locks, "WATCH_S", 0.2)
        times = iter(range(1, 1000))
        if beating:
            monkeypatch.setattr(locks, "_time_of", lambda path: next(times))
        refused = pytest.raises(ConfigError, match=r"process 77 on elsewhere.*remove .*run\.lock")
        told = pytest.warns(VanNotice, match="process 77 on elsewhere; watching")
        with RunLock() as lock, told, refused if beating else nullcontext():
            lock.take(tmp_path)

    @pytest.mark.promise("run-folder")
    def test_the_heart_beats(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "BEAT_S", 0.01)
        with RunLock() as lock:
            lock.take(tmp_path)
            os.utime(tmp_path / LOCK, (0, 0))
            until(lambda: (tmp_path / LOCK).stat().st_mtime > 1)

    @pytest.mark.promise("run-folder")
    def test_data_workers_do_not_keep_it(self, tmp_path):
        with RunLock() as lock:
            lock.take(tmp_path)
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            try:
                # the child may not have come to it yet
                until(lambda: not any(LOCK in name for name in open_files(child)))
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)

    @pytest.mark.promise("run-folder")
    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"host": 1}', b"null"])
    def test_a_damaged_lock_file_is_no_obstacle(self, content, tmp_path):
        (tmp_path / LOCK).write_bytes(content)
        with RunLock() as lock:
            lock.take(tmp_path)

    @pytest.mark.promise("run-folder")
    @pytest.mark.long
    def test_a_killed_run_resumes_at_once(self, stripes, tmp_path):
        recipe = slim_recipe(stripes, tmp_path / "run", **{"trainer.workers": 2, "trainer.epochs": 2})
        victim = Victim(recipe.with_options(**{"trainer.out": None}), tmp_path / "run")
        assert victim.live(("kill", "step", 5)) == [-signal.SIGKILL]
        assert (tmp_path / "run" / LOCK).exists()
        assert victim.live() == [0], victim.said()
        whole = run(slim_recipe(stripes, tmp_path / "whole", **{"trainer.workers": 2, "trainer.epochs": 2}))
        assert_same(whole, tmp_path / "run")

    @pytest.mark.promise("run-folder")
    def test_runs_of_the_same_second_have_folders_of_their_own(self, stripes, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(time, "strftime", lambda *_: "20260101-120000")
        recipe = slim_recipe(stripes, "x", **{"trainer.out": None})
        assert [str(open_folder(recipe)) for _ in range(2)] == [
            "runs/slim-20260101-120000",
            "runs/slim-20260101-120000-2",
        ]


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.promise("run-folder")
def test_the_quickstart_does_not_remove_a_run_that_goes_on(stripes, tmp_path):
    from van.tools.quickstart import _fresh

    write_recipe(tmp_path, slim_recipe(stripes, tmp_path))
    with RunLock() as lock:
        lock.take(tmp_path)
        with pytest.raises(ConfigError, match="in use by another training"):
            _fresh(tmp_path)
    assert [*_fresh(tmp_path).iterdir()] == []


@pytest.mark.promise("run-folder")
def test_what_killed_runs_left_half_written_is_cleared(stripes, tmp_path):
    folder = tmp_path / "run"
    (folder / "history").mkdir(parents=True)
    of_earlier_versions = [".last.ckpt.123.tmp", ".metrics.csv.tmp", ".model.safetensors.a1b2c3d4"]
    ours = [*of_earlier_versions, "history/.epoch-0003.ckpt.9.tmp"]
    ours += [".last.ckpt.a1b2c3_4.part", ".summary.json.a1b2c3d4.part", "history/.epoch-0003.ckpt.a1b2c3d4.part"]
    others = [".notes.tmp", ".last.ckpt.tmp.mine", "data.tmp", ".report.html.tmp", ".report.html.a1b2c3d4.part"]
    others += [".a1b2c3d4.part"]
    for name in (*ours, *others):
        (folder / name).write_bytes(b"x")
    run(slim_recipe(stripes, folder, **{"trainer.epochs": 1}))
    assert [name for name in ours if (folder / name).exists()] == []
    assert [name for name in others if not (folder / name).exists()] == []


class TestInterrupted:
    """Ctrl-C before there is anything to resume, and after."""

    @pytest.mark.promise("16")
    def test_before_the_first_checkpoint_and_the_same_command_again(self, stripes, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "run"
        write_recipe(tmp_path, slim_recipe(stripes, folder, **{"trainer.epochs": 1}))
        command = ["train", "--config", str(tmp_path / "recipe.yaml")]
        with monkeypatch.context() as patch:
            patch.setattr(TrainingModule, "training_step", interrupt)
            assert main(command) == 130
        assert capsys.readouterr().err.splitlines()[-1] == (
            "van: interrupted: before the first checkpoint, so there is nothing to resume: "
            "the same command starts again"
        )
        assert main(["report", str(folder)]) == 2
        err = capsys.readouterr().err
        assert "no epoch of this run has ended" in err
        assert "Errno" not in err
        assert main(["train", "--trainer.resume", str(folder)]) == 2
        assert "stopped before its first checkpoint; start it again with the same command" in capsys.readouterr().err
        assert main(command) == 0
        write_report(folder)

    @pytest.mark.promise("16")
    def test_auto_simply_starts(self, stripes, tmp_path, monkeypatch):
        recipe = slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 1, "trainer.resume": "auto"})
        with monkeypatch.context() as patch:
            patch.setattr(TrainingModule, "training_step", interrupt)
            with pytest.raises(KeyboardInterrupt, match="nothing to resume"):
                run(recipe)
        assert (run(recipe) / "model.safetensors").exists()

    @pytest.mark.promise("16")
    @pytest.mark.parametrize("when", ["the data are looked at", "loaders start", "an epoch is validated"])
    def test_at_odd_moments_before_it(self, when, stripes, tmp_path, monkeypatch):
        from van.train.loading import SampledDataModule

        owner, name = {
            "the data are looked at": (SampledDataModule, "probe"),
            "loaders start": (SampledDataModule, "train_dataloader"),
            "an epoch is validated": (TrainingModule, "validation_step"),
        }[when]
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupt)
            with pytest.raises(KeyboardInterrupt, match="nothing to resume"):
                run(slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 1}))
        assert not (tmp_path / "run" / LOCK).exists()
        run(slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 1}))

    @pytest.mark.promise("16")
    @pytest.mark.parametrize("where", ["while a checkpoint is written", "between two renames"])
    def test_during_a_later_checkpoint(self, where, stripes, tmp_path, monkeypatch):
        options = {"trainer.epochs": 3, "trainer.keep": "last"}
        write, visits = torch.save, []
        rename = Path.replace

        def cut_write(state, file):
            visits.append(1)
            write(state, file)
            if len(visits) == 4:
                raise KeyboardInterrupt

        def cut_rename(self, target):
            if re.match(r"\.last\.ckpt", self.name) and (tmp_path / "cut" / "previous.ckpt").exists():
                raise KeyboardInterrupt
            return rename(self, target)

        whole = run(slim_recipe(stripes, tmp_path / "whole", **options))
        recipe = slim_recipe(stripes, tmp_path / "cut", **options)
        with monkeypatch.context() as patch:
            if where == "while a checkpoint is written":
                patch.setattr(torch, "save", cut_write)
            else:
                patch.setattr(Path, "replace", cut_rename)
            with pytest.raises(KeyboardInterrupt, match=r"last checkpoint is in .*cut: go on with trainer\.resume"):
                run(recipe)
        assert [path.name for path in (tmp_path / "cut").glob(".*")] == []
        notice = pytest.warns(VanNotice, match="missing") if where == "between two renames" else nullcontext()
        with notice:
            run(recipe.with_options(**{"trainer.resume": str(tmp_path / "cut")}))
        assert_same(whole, tmp_path / "cut")

    @pytest.mark.promise("16")
    def test_a_signal_to_every_process_of_the_terminal(self, stripes, tmp_path):
        recipe = slim_recipe(stripes, tmp_path / "run", **{"trainer.workers": 2, "trainer.epochs": 10_000})
        write_recipe(tmp_path, recipe)
        command = [sys.executable, "-m", "van", "train", "--config", str(tmp_path / "recipe.yaml")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            until(lambda: (tmp_path / "run" / "last.ckpt").exists(), 120)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("van: interrupted: the last checkpoint is in ")


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.promise("16")
def test_a_damaged_table_is_said_in_words(stripes, tmp_path):
    write_recipe(tmp_path, slim_recipe(stripes, tmp_path))
    (tmp_path / "metrics.csv").write_text("epoch,train/loss\none,2.0\n")
    with pytest.raises(DataError, match=r"metrics\.csv is damaged .* expected a row of numbers per epoch"):
        write_report(tmp_path)
