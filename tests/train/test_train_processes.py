"""Several processes train as one: the same batches, exact validation, BatchNorm by policy, one plain loop's losses."""

import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from chaos import Victim, assert_same, numbers
from safetensors.torch import load_file
from tiny_training import make_stripes, slim_recipe
from torch import nn
from torchdata.stateful_dataloader import stateful_dataloader

from van.data.dataset import EpochSampler, ProcessShare, TrainingSet
from van.errors import CheckpointError, ConfigError, DataError, LostProcessError, PreemptedError, VanError, VanNotice
from van.inference.evaluate import evaluate
from van.recipes import get_recipe
from van.train import run
from van.train.batch_norm import recalibrate
from van.train.checkpoint_io import AtomicCheckpointIO, read_last
from van.train.distributed import ProcessInfo, process_info
from van.train.loading import SampledDataModule
from van.train.module import TrainingModule
from van.train.optimizer import build_optimizer
from van.train.prepare import fit_devices, prepare
from van.train.schedule import build_schedule

# No chance that differs between processes, and nothing that looks at a whole batch but BatchNorm.
PLAIN = {
    "augment.crop_scale": None, "augment.hflip": 0.0, "trainer.epochs": 2, "trainer.keep": "last",
    "model.drop_path_rate": 0.0, "optim.name": "sgd", "optim.lr": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Sixteen images of two classes, of which three are left for validation: two processes cannot share them evenly."""
    root = tmp_path_factory.mktemp("stripes")
    make_stripes(root / "train", count=8)
    make_stripes(root / "val", count=2)
    (root / "val" / "along" / "1.png").unlink()
    return root


def lived(stripes, folder, *, ranks, **options):
    victim = Victim(slim_recipe(stripes, folder, **PLAIN, **options), folder, ranks=ranks)
    assert victim.live() == [0] * ranks, victim.said()
    return folder


def weights(folder, name="model.safetensors"):
    return load_file(folder / name)


def test_two_processes_with_sync_are_one_with_the_whole_batch(stripes, tmp_path):
    two = lived(stripes, tmp_path / "two", ranks=2, **{
        "trainer.devices": 2, "trainer.batch_size": 2, "trainer.batch_norm": "sync", "trainer.accumulate": 2,
    })  # fmt: skip
    one = lived(stripes, tmp_path / "one", ranks=1, **{"trainer.batch_size": 4, "trainer.accumulate": 2})
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(two)[key].float(), value.float(), rtol=1e-4, atol=1e-5, msg=key)
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert {k: float(v) for k, v in a.items() if v} == pytest.approx({k: float(b[k]) for k in a if a[k]}, abs=1e-5)


@pytest.mark.parametrize("policy", ["reduce", "recalibrate"])
def test_validation_over_two_processes_is_exact(policy, stripes, tmp_path):
    """Three images on two processes: the copy that pads the last share would count twice."""
    options = {"trainer.devices": 2, "trainer.batch_size": 2, "trainer.batch_norm": policy, "trainer.ema_decay": 0.5}
    folder = lived(stripes, tmp_path / "run", ranks=2, **options)
    result = evaluate(folder / "model.safetensors", stripes, split="val")
    row = numbers(folder)[-1]
    assert float(row["val/top1"]) == pytest.approx(result.top1, abs=1e-4)
    assert float(row["val/loss"]) == pytest.approx(result.loss, abs=1e-5)
    processes = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]["ProcessState"]["processes"]
    means = [state["buffers"]["model.backbone.stages.0.blocks.0.norm1.running_mean"] for state in processes]
    assert torch.equal(*means)  # after the validation all have the average
    assert means[0].abs().max() > 1e-4


@pytest.mark.long
def test_bf16_in_two_processes(stripes, tmp_path):
    """Autocast in both: other losses than in fp32, though near; weights of 32 bits, alike; and an exact resume."""
    options = {"trainer.devices": 2, "trainer.batch_size": 2, "trainer.checkpoint_every_steps": 1}
    full = lived(stripes, tmp_path / "fp32", ranks=2, **options)
    half = lived(stripes, tmp_path / "bf16", ranks=2, **options, **{"trainer.precision": "bf16"})
    one, two = ([float(row["train/loss"]) for row in numbers(folder)] for folder in (full, half))
    assert one == pytest.approx(two, rel=0.02)
    assert one != pytest.approx(two, rel=1e-6)
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(half).values())
    recipe = slim_recipe(stripes, tmp_path / "cut", **PLAIN, **options, **{"trainer.precision": "bf16"})
    cut = Victim(recipe, tmp_path / "cut", ranks=2)
    assert cut.live(("term", "step", 3), rank=1) == [PreemptedError.exit_code] * 2
    assert cut.live() == [0, 0]
    assert_same(half, cut.folder)


def test_statistics_differ_between_validations(stripes, tmp_path):
    options = {"trainer.devices": 2, "trainer.batch_size": 2, "trainer.checkpoint_every_steps": 1}
    recipe = slim_recipe(stripes, tmp_path / "run", **{**PLAIN, **options})
    victim = Victim(recipe, tmp_path / "run", ranks=2)
    victim.live(("kill", "step", 4))
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    one, two = (each["buffers"] for each in state["callbacks"]["ProcessState"]["processes"])
    name = "model.backbone.stages.0.blocks.0.norm1.running_mean"
    assert not torch.equal(one[name], two[name])
    assert torch.equal(one[name], state["state_dict"][name])


def test_each_gets_a_share_of_the_same_order():
    whole = list(EpochSampler(11, seed=3, epoch=2))
    shares = []
    for rank in range(2):
        share = ProcessShare(EpochSampler(11, seed=3))
        share.rank, share.world_size = rank, 2
        share.set_epoch(2)
        shares.append(list(share))
        assert len(share) == 5
    assert [key for pair in zip(*shares, strict=True) for key in pair] == whole[:10]


class TestPlace:
    def test_torchrun_and_slurm_say_it(self, monkeypatch):
        assert process_info() == ProcessInfo()
        for name, value in {"SLURM_NTASKS": 8, "SLURM_PROCID": 5, "SLURM_NNODES": 2, "SLURM_JOB_NAME": "x"}.items():
            monkeypatch.setenv(name, str(value))
        assert process_info() == ProcessInfo(rank=5, world_size=8, nodes=2, launcher="slurm")
        torchrun = {"TORCHELASTIC_RUN_ID": "x", "RANK": 3, "WORLD_SIZE": 6, "LOCAL_WORLD_SIZE": 2}
        for name, value in torchrun.items():
            monkeypatch.setenv(name, str(value))
        assert process_info() == ProcessInfo(rank=3, world_size=6, nodes=3, launcher="torchrun")

    def test_a_published_batch_is_shared_by_the_processes(self, monkeypatch):
        monkeypatch.setattr("van.train.prepare.process_info", lambda: ProcessInfo(world_size=8, launcher="torchrun"))
        recipe = get_recipe("imagenet_van_b0")
        with pytest.warns(VanNotice, match="accumulate 1: there are 8 here; the batch of 1024 images is kept"):
            fitted = fit_devices(recipe, "cpu")
        assert (fitted.trainer.devices, fitted.trainer.accumulate, fitted.global_batch) == (8, 1, 1024)
        with pytest.warns(VanNotice, match="the batch of 64 images becomes 512"):
            assert fit_devices(get_recipe("digits_van_b0"), "cpu").global_batch == 512

    def test_launched_processes_need_one_folder(self, stripes, monkeypatch):
        monkeypatch.setattr("van.train.folder.process_info", lambda: ProcessInfo(world_size=2, launcher="slurm"))
        from van.train.folder import open_folder

        with pytest.raises(ConfigError, match="2 processes need one folder"):
            open_folder(slim_recipe(stripes, "x", **{"trainer.out": None}))


@pytest.mark.long
def test_every_launcher_gives_the_same_run(stripes, tmp_path):
    """srun's processes, and those that Lightning starts by the same command, end as torchrun's."""
    recipe = slim_recipe(stripes, tmp_path / "x", **{**PLAIN, "trainer.devices": 2, "trainer.epochs": 1})
    torchrun = Victim(recipe, tmp_path / "torchrun", ranks=2)
    slurm = Victim(recipe, tmp_path / "slurm", ranks=2, launcher="slurm")
    assert torchrun.live() == [0, 0], torchrun.said()
    assert slurm.live() == [0, 0], slurm.said()
    assert_same(torchrun.folder, slurm.folder)
    own = Victim(recipe, tmp_path / "own")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "van", "train", *own.arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120)
    assert_same(torchrun.folder, own.folder)


class TestBatchNorm:
    def test_frozen_statistics_stay_and_the_rest_learns(self, stripes, tmp_path):
        start = run(slim_recipe(stripes, tmp_path / "start", **{"trainer.epochs": 1})) / "model.safetensors"
        options = {"model.checkpoint": str(start), "model.embed_dims": None, "model.depths": None}
        recipe = slim_recipe(stripes, tmp_path / "run", **{**PLAIN, **options, "trainer.batch_norm": "frozen"})
        before, after = weights(start.parent), weights(run(recipe))
        for key, value in before.items():
            if "running_" in key:
                assert torch.equal(after[key], value), key
        assert not torch.equal(after["head.weight"], before["head.weight"])

    def test_recalibrated_statistics_are_those_of_the_images(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.BatchNorm2d(4))
        batches = [torch.randn(4, 3, 8, 8) for _ in range(3)]
        network.eval()
        recalibrate(network, [network[2]], batches)
        with torch.no_grad():
            seen = torch.stack([network[0](batch) for batch in batches])
        torch.testing.assert_close(network[2].running_mean, seen.mean((0, 1, 3, 4)))
        torch.testing.assert_close(network[2].running_var, seen.var((1, 3, 4)).mean(0))
        assert (network[2].momentum, network[2].training) == (0.1, False)

    def test_recalibration_acts_on_the_average_and_leaves_the_training_alone(self, stripes, tmp_path):
        options = {**PLAIN, "trainer.ema_decay": 0.5}
        plain = run(slim_recipe(stripes, tmp_path / "plain", **options))
        other = {"trainer.batch_norm": "recalibrate", "trainer.recalibrate_images": 8}
        again = run(slim_recipe(stripes, tmp_path / "again", **options, **other))
        one, two = weights(plain), weights(again)
        assert torch.equal(one["head.weight"], two["head.weight"])
        key = "backbone.stages.3.blocks.0.norm1.running_var"
        assert not torch.allclose(one[key], two[key], rtol=1e-2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"trainer.batch_norm": "frozen"}, "checkpoint"),
            ({"trainer.batch_norm": "synced"}, "did you mean 'sync'"),
            ({"trainer.recalibrate_images": 8}, "belongs to"),
            ({"trainer.resume": "auto", "trainer.out": None}, "give trainer.out"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, message, stripes):
        with pytest.raises(ConfigError, match=message):
            slim_recipe(stripes, "x", **options)


@pytest.mark.long
def test_fifty_steps_equal_a_plain_loop(tmp_path, monkeypatch):
    """B0 at 64², batch 4, without augmentation: the engine adds nothing to the mathematics."""
    make_stripes(tmp_path / "data", count=125, size=64)
    recipe = slim_recipe(tmp_path / "data", tmp_path / "run", **{
        **PLAIN, "model.name": "van_b0", "model.embed_dims": None, "model.depths": None, "data.size": 64,
        "optim.name": "adamw", "optim.lr": 1e-3, "trainer.epochs": 1, "schedule.warmup_epochs": 0.2,
        "data.crop_pct": 1.0,
    })  # fmt: skip
    job = prepare(recipe)
    assert job.data.updates_per_epoch == 50
    network = copy.deepcopy(job.network)
    ours, step = [], TrainingModule.training_step

    def noting(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        ours.append(float(loss))
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", noting)
    run(recipe)
    assert ours == pytest.approx(plain_loop(network, job), abs=1e-5)
    assert ours[-1] < ours[0] / 2


def plain_loop(network, job):
    """The losses of a loop that anybody would write."""
    optimizer = build_optimizer(network, job.training)
    schedule = build_schedule(optimizer, job.recipe, job.data.updates_per_epoch)
    order, losses = list(EpochSampler(len(job.data.images), seed=0)), []
    schedule.before_epoch(0)
    network.train()
    for number in range(50):
        samples = [job.data.images[key] for key in order[4 * number : 4 * number + 4]]
        images = torch.stack([image for image, _ in samples])
        loss = F.cross_entropy(network(images), torch.tensor([label for _, label in samples]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.after_step(number + 1)
        losses.append(float(loss))
    return losses


def test_compile_reaches_the_network(stripes, tmp_path):
    for on in (False, True):
        network = prepare(slim_recipe(stripes, tmp_path, **{"trainer.compile": on})).network
        assert (network._compiled_call_impl is not None) is on
        assert not any("_orig_mod" in key for key in network.state_dict())


@pytest.mark.slow
def test_compiled_training_equals_eager_training(stripes, tmp_path):
    eager = run(slim_recipe(stripes, tmp_path / "eager", **PLAIN))
    compiled = run(slim_recipe(stripes, tmp_path / "compiled", **PLAIN, **{"trainer.compile": True}))
    for key, value in weights(eager).items():
        torch.testing.assert_close(weights(compiled)[key], value, rtol=1e-4, atol=1e-5, msg=key)


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("options", "fresh_s", "steps"),
        [
            ({}, 1e9, [4, 8]),
            ({"trainer.checkpoint_every_steps": 2}, 1e9, [2, 4, 6, 8]),
            ({"trainer.checkpoint_every_s": 0.0}, 1e9, [1, 2, 3, 4, 5, 6, 7, 8]),
            ({}, 0.0, [3, 4, 7, 8]),  # one step before a validation, which may be long
            ({"trainer.checkpoint_every_s": 0.0, "trainer.accumulate": 2}, 1e9, [1, 2, 3, 4]),
        ],
    )
    def test_when_they_are_written(self, options, fresh_s, steps, stripes, tmp_path, monkeypatch):
        kept, save = [], AtomicCheckpointIO.save_checkpoint

        def noting(self, checkpoint, path, storage_options=None):
            if Path(path).name == "last.ckpt":
                kept.append(checkpoint["global_step"])
            save(self, checkpoint, path, storage_options)

        monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", noting)
        monkeypatch.setattr("van.train.checkpoint_callbacks.FRESH_S", fresh_s)
        run(slim_recipe(stripes, tmp_path / "run", **{**PLAIN, **options}))
        assert kept == steps

    def test_a_signal_in_a_validation_does_not_wait_for_its_end(self, stripes, tmp_path, monkeypatch):
        monkeypatch.setattr("van.train.checkpoint_callbacks.FRESH_S", 0.0)
        validated, step = [], TrainingModule.validation_step

        def signalled(self, batch, batch_idx):
            validated.append(batch_idx)
            os.kill(os.getpid(), signal.SIGUSR1)
            return step(self, batch, batch_idx)

        monkeypatch.setattr(TrainingModule, "validation_step", signalled)
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
        recipe = slim_recipe(stripes, tmp_path / "run", **PLAIN, **{"trainer.eval_batch_size": 1})
        with pytest.raises(PreemptedError, match="everything up to step 3 is in"):
            run(recipe)
        assert validated == [0]
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before

    @pytest.mark.parametrize("where", ["probe", "train_dataloader"])
    @pytest.mark.parametrize("options", [{}, {"trainer.accumulate": 2}])
    def test_a_signal_before_the_first_step_is_heard(self, where, options, stripes, tmp_path, monkeypatch):
        """While the data is opened, or the loaders start: one step is done, written down and told."""
        original = getattr(SampledDataModule, where)

        def signalled(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return original(self)

        monkeypatch.setattr(SampledDataModule, where, signalled)
        with pytest.raises(PreemptedError, match="everything up to step 1 is in"):
            run(slim_recipe(stripes, tmp_path / "run", **PLAIN, **options))
        assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
    def test_a_signal_to_every_process_of_a_job(self, number, stripes, tmp_path, monkeypatch):
        """Schedulers do so; the data workers must not die of it before the checkpoint is written."""
        step = TrainingModule.training_step

        def signalled(self, batch, batch_idx):
            if self.global_step == 1:
                workers = multiprocessing.active_children()
                assert workers
                for process in (*(worker.pid for worker in workers), os.getpid()):
                    os.kill(process, number)
                time.sleep(0.2)
            return step(self, batch, batch_idx)

        monkeypatch.setattr(TrainingModule, "training_step", signalled)
        with pytest.raises(PreemptedError, match="everything up to step 2 is in"):
            run(slim_recipe(stripes, tmp_path / "run", **PLAIN, **{"trainer.workers": 2}))

    @pytest.mark.long
    def test_a_damaged_byte_is_noticed(self, stripes, tmp_path):
        recipe = slim_recipe(stripes, tmp_path / "run", **PLAIN)
        last = run(recipe) / "last.ckpt"
        with last.open("r+b") as file:
            file.seek(last.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.warns(VanNotice, match=r"damaged.*; resuming from previous.ckpt, step 4"):
            assert read_last(last)[0] == tmp_path / "run" / "previous.ckpt"
        (tmp_path / "run" / "previous.ckpt").unlink()
        with pytest.raises(CheckpointError, match="damaged"):
            read_last(last)


class TestWatches:
    @pytest.mark.long
    def test_a_loss_that_is_no_number_names_the_batch(self, stripes, tmp_path, monkeypatch):
        step = TrainingModule.training_step

        def poisoned(self, batch, batch_idx):
            return step(self, batch, batch_idx) * (float("nan") if self.global_step == 5 else 1.0)

        monkeypatch.setattr(TrainingModule, "training_step", poisoned)
        recipe = slim_recipe(stripes, tmp_path / "run", **PLAIN, **{"trainer.checkpoint_every_steps": 1})
        with pytest.raises(VanError, match=r"loss is nan at epoch 2, step 6, learning rate 0\.0\d+, images") as caught:
            run(recipe)
        order = list(EpochSampler(16, seed=0, epoch=1))[4:8]
        data = prepare(recipe).data.images.data
        assert ", ".join(data.name(index) for _, index in order) in str(caught.value)
        last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
        assert last["global_step"] == 5
        assert all(torch.isfinite(value).all() for value in last["state_dict"].values())

    @pytest.mark.parametrize("epoch_step", [1, 3])
    def test_weights_that_are_no_numbers_are_not_kept(self, epoch_step, stripes, tmp_path, monkeypatch):
        """The loss of the step was finite, its gradient was not; `epoch_step` of four in the second epoch."""
        update = TrainingModule.optimizer_step

        def overflowing(self, epoch, batch_idx, *arguments, **named):
            update(self, epoch, batch_idx, *arguments, **named)
            if (epoch, batch_idx) == (1, epoch_step):
                self.model.head.weight.data[0, 0] = float("inf")

        monkeypatch.setattr(TrainingModule, "optimizer_step", overflowing)
        options = {"trainer.checkpoint_every_steps": 1, "trainer.monitor": "val/top1"}
        recipe = slim_recipe(stripes, tmp_path / "run", **PLAIN, **options)
        with pytest.raises(VanError, match=rf"head.weight is not finite after step {5 + epoch_step}"):
            run(recipe)
        for name in ("best", "last"):
            kept = torch.load(tmp_path / "run" / f"{name}.ckpt", weights_only=True)
            assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
            assert kept["global_step"] <= 4 + epoch_step

    @pytest.mark.parametrize("when", ["it starts", "it reads"])
    def test_a_data_worker_that_is_killed_ends_the_run(self, when, stripes, tmp_path, monkeypatch):
        """One that dies before the first iterator is there, too: Lightning's clearing up fails then, and hides why."""
        recipe = slim_recipe(stripes, tmp_path / "run", **PLAIN, **{"trainer.workers": 1})

        def killed(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        owner, name = {"it starts": (stateful_dataloader, "_worker_loop"), "it reads": (TrainingSet, "__getitem__")}[
            when
        ]
        monkeypatch.setattr(SampledDataModule, "probe", lambda self: None)
        monkeypatch.setattr(owner, name, killed)
        with pytest.raises(LostProcessError, match=r"reads images ended \(DataLoader worker .*fewer trainer.workers"):
            run(recipe)

    def test_why_the_loader_cannot_start_is_told(self, stripes, tmp_path, monkeypatch):
        def failing(self):
            raise DataError("the first shard is no tar file")

        monkeypatch.setattr(stateful_dataloader.StatefulDataLoader, "_get_iterator", failing)
        with pytest.raises(DataError, match="the first shard is no tar file"):
            run(slim_recipe(stripes, tmp_path / "run", **PLAIN))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_unreadable_image_is_replaced_aloud(self, workers, tmp_path):
        make_stripes(tmp_path / "data" / "train", count=4)
        make_stripes(tmp_path / "data" / "val", count=1)
        (tmp_path / "data" / "train" / "along" / "1.png").write_bytes(b"broken")
        recipe = slim_recipe(tmp_path / "data", tmp_path / "run", **PLAIN, **{"trainer.workers": workers})
        with pytest.warns(
            VanNotice, match=r"along/1\.png cannot be read; another image .* \(number 1 of at most 10\)"
        ) as all_:
            folder = run(recipe)
        assert len([w for w in all_ if "cannot be read" in str(w.message)]) == 1  # though every epoch has it
        assert len(numbers(folder)) == 2

    def test_too_many_unreadable_images_stop_the_run(self, tmp_path):
        make_stripes(tmp_path / "data" / "train", count=6)
        make_stripes(tmp_path / "data" / "val", count=1)
        for name in ("0.png", "2.png", "4.png"):
            (tmp_path / "data" / "train" / "along" / name).write_bytes(b"broken")
        recipe = slim_recipe(tmp_path / "data", tmp_path / "run", **PLAIN, **{"trainer.max_unreadable": 2})
        with pytest.raises(DataError, match=r"3 training images cannot be read, trainer.max_unreadable is 2.*png"):
            run(recipe)
