"""Training end to end: what a run leaves, what each setting does, what is refused before it begins."""

import csv
import io
import json
import signal
import warnings
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Trainer
from rich.console import Console
from safetensors.torch import load_file
from tiny_training import SLIM, make_stripes, slim_recipe, training_of

import van
from van.errors import CheckpointError, ConfigError, DataError, VanError, VanNotice
from van.inference.evaluate import evaluate
from van.recipes import Recipe, get_recipe
from van.tasks.classification.network import build_network, resolve_preprocess
from van.tasks.classification.training import AccuracyValidator
from van.train import run
from van.train.callbacks import EpochTable, ProcessState
from van.train.folder import read_recipe
from van.train.module import TrainingModule
from van.train.optimizer import build_optimizer
from van.train.prepare import prepare
from van.train.progress import ProgressCallback
from van.train.schedule import build_schedule

CUSTOM = {name.removeprefix("model."): value for name, value in SLIM.items()}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def finished(stripes, tmp_path_factory):
    """A run with an average of the weights; its folder and recipe."""
    recipe = slim_recipe(
        stripes,
        tmp_path_factory.mktemp("runs") / "first",
        **{"trainer.ema_decay": 0.9, "trainer.epochs": 4, "optim.lr": 3e-3, "model.drop_path_rate": 0.1},
    )
    torch.manual_seed(1)
    before = torch.get_rng_state()
    folder = run(recipe)
    assert torch.equal(torch.get_rng_state(), before)  # nobody's global randomness is touched
    return folder, recipe


def table(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_about_it(finished):
    folder, recipe = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "best.ckpt", "last.ckpt", "previous.ckpt", "metrics.csv", "recipe.yaml", "environment.json", "summary.json",
        "tensorboard", "model.safetensors", "model-without-ema.safetensors",
    }  # fmt: skip
    assert read_recipe(folder / "recipe.yaml") == recipe
    assert [row["epoch"] for row in table(folder)] == ["1", "2", "3", "4"]
    assert all(float(row["train/loss"]) > 0 and float(row["images_per_s"]) > 0 for row in table(folder))
    assert any(path.name.startswith("events.out") for path in (folder / "tensorboard").iterdir())
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == 1


def test_the_result_loads_and_evaluates_as_in_training(finished, stripes):
    folder, _ = finished
    model = van.load(folder / "model.safetensors")
    assert model.classes == ("across", "along")
    assert model.preprocess.size == (32, 32)
    assert (model.provenance["recipe"], model.provenance["averaged"]) == ("slim", True)
    summary = json.loads((folder / "summary.json").read_text())
    best = max(table(folder), key=lambda row: float(row["val/top1"]))
    assert summary["epoch"] == int(best["epoch"])
    result = evaluate(model, stripes, split="val")
    assert result.top1 == pytest.approx(summary["val/top1"], abs=1e-4)
    assert result.loss == pytest.approx(summary["val/loss"], abs=1e-5)


def test_the_average_differs_from_the_last_weights(finished):
    folder, _ = finished
    averaged, plain = (load_file(folder / name) for name in ("model.safetensors", "model-without-ema.safetensors"))
    assert averaged.keys() == plain.keys()
    assert not torch.equal(averaged["head.weight"], plain["head.weight"])
    state = torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["ema.module.head.weight"], averaged["head.weight"])
    assert torch.equal(state["model.head.weight"], plain["head.weight"])


def test_an_average_without_memory_is_the_last_weights(stripes, tmp_path):
    options = {"trainer.ema_decay": 0.0, "trainer.keep": "last", "trainer.epochs": 2}
    folder = run(slim_recipe(stripes, tmp_path / "run", **options))
    averaged, plain = (load_file(folder / name) for name in ("model.safetensors", "model-without-ema.safetensors"))
    start = build_network(slim_recipe(stripes, tmp_path).model, ("across", "along"), seed=0).state_dict()
    assert not torch.equal(averaged["head.weight"], start["head.weight"])
    for key, value in plain.items():
        assert torch.equal(averaged[key], value), key
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["model.head.weight"], plain["head.weight"])


def test_same_seed_same_weights(stripes, tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        mixing = {"augment.mixup": 0.8, "augment.cutmix": 1.0, "model.drop_path_rate": 0.2, "trainer.keep": "last"}
        recipe = slim_recipe(stripes, tmp_path / name, **mixing, **{"trainer.seed": seed, "trainer.epochs": 1})
        weights.append(load_file(run(recipe) / "model.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])


def test_overfits_eight_images(tmp_path):
    make_stripes(tmp_path / "data" / "train", count=4)
    make_stripes(tmp_path / "data" / "val", count=4)  # the same images
    options = {"augment.crop_scale": None, "augment.hflip": 0.0, "trainer.epochs": 25, "trainer.batch_size": 8}
    recipe = slim_recipe(tmp_path / "data", tmp_path / "run", **options, **{"optim.lr": 1e-2, "trainer.keep": "last"})
    last = table(run(recipe))[-1]
    assert float(last["train/loss"]) < 0.05
    assert float(last["val/top1"]) == 100


@pytest.mark.parametrize(
    "options",
    [
        {"trainer.precision": "bf16"},
        {"trainer.channels_last": True},
        {"model.grad_checkpointing": True},
        {"trainer.deterministic": True},
        {"trainer.workers": 1},
    ],
)
def test_ways_to_run(options, stripes, tmp_path):
    recipe = slim_recipe(stripes, tmp_path / "run", **options, **{"trainer.epochs": 1, "trainer.keep": "last"})
    weights = load_file(run(recipe) / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert weights["head.weight"].dtype == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


def losses(stripes, out, **options):
    return [
        float(row["train/loss"]) for row in table(run(slim_recipe(stripes, out, **{"trainer.epochs": 2, **options})))
    ]


def test_workers_and_memory_savers_do_not_change_the_training(stripes, tmp_path):
    plain = losses(stripes, tmp_path / "plain")
    assert losses(stripes, tmp_path / "workers", **{"trainer.workers": 2}) == plain
    assert losses(stripes, tmp_path / "saving", **{"model.grad_checkpointing": True}) == pytest.approx(plain, rel=1e-4)


def test_accumulation_makes_fewer_larger_steps(stripes, tmp_path):
    folder = run(slim_recipe(stripes, tmp_path / "run", **{"trainer.accumulate": 2, "trainer.epochs": 2}))
    assert [row["step"] for row in table(folder)] == ["2", "4"]  # 12 images are three batches, so two steps


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_clipping_and_weight_decay_act(weight_decay, stripes, tmp_path):
    options = {"optim.name": "sgd", "optim.clip_norm": 1e-9, "optim.weight_decay": weight_decay, "trainer.epochs": 1}
    recipe = slim_recipe(stripes, tmp_path / "run", **options)
    start = build_network(recipe.model, ("across", "along"), seed=0).state_dict()
    trained = load_file(run(recipe) / "model.safetensors")
    moved = (trained["head.weight"] - start["head.weight"]).abs().max()
    assert moved > 1e-5 if weight_decay else moved < 1e-6  # gradients are clipped to nothing


def test_early_stopping(stripes, tmp_path):
    options = {"trainer.early_stopping": 1, "optim.lr": 0.0, "schedule.min_lr": 0.0, "trainer.epochs": 9}
    folder = run(slim_recipe(stripes, tmp_path / "run", **options, **{"model.norm_eval": True}))
    assert len(table(folder)) == 2  # nothing is learnt, so the second epoch is no better than the first


@pytest.mark.promise("21")
def test_a_score_that_is_no_number_is_not_better_and_is_not_written_down(stripes, tmp_path, monkeypatch):
    compute = AccuracyValidator.compute
    monkeypatch.setattr(AccuracyValidator, "compute", lambda *a: {**compute(*a), "loss": float("nan")})
    options = {"trainer.early_stopping": 2, "trainer.monitor": "val/loss", "trainer.keep": "best"}
    folder = run(slim_recipe(stripes, tmp_path / "run", **options, **{"trainer.epochs": 9}))
    assert len(table(folder)) == 2  # patience counts, the first such score does not end the run
    assert "NaN" not in (folder / "summary.json").read_text()
    assert "val/loss" not in van.load(folder).provenance["scores"]


def test_lr_zero_leaves_the_checkpoint_as_it_was(finished, stripes, tmp_path):
    start = finished[0] / "model.safetensors"
    options = {"model.checkpoint": str(start), "optim.lr": 0.0, "schedule.min_lr": 0.0, "model.norm_eval": True}
    recipe = slim_recipe(stripes, tmp_path / "run", **options, **{"trainer.epochs": 1, **dict.fromkeys(SLIM)})
    before, after = load_file(start), load_file(run(recipe) / "model.safetensors")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value), key
    assert van.load(tmp_path / "run" / "model.safetensors").provenance["started_from"]["recipe"] == "slim"


def network(checkpoint, classes, **options):
    spec = Recipe().with_options(**{f"model.{name}": value for name, value in options.items()}).model
    spec = Recipe(model=spec).with_options(**{"model.checkpoint": str(checkpoint)}).model
    return build_network(spec, classes, seed=0)


def test_head_is_reset_only_for_other_classes(finished):
    path = finished[0] / "model.safetensors"
    file = load_file(path)
    kept = network(path, ("across", "along"), drop_path_rate=0.3)
    assert torch.equal(kept.head.weight, file["head.weight"])
    assert kept.config.drop_path_rate == 0.3
    assert kept.training
    for classes, reason in ((("across", "other"), "other names"), (("a", "b", "c"), "has 2")):
        with pytest.warns(VanNotice, match=rf"fresh head of {len(classes)} classes.*{reason}"):
            fresh = network(path, classes)
        assert fresh.head.weight.shape[0] == len(classes)
        assert not torch.equal(fresh.head.weight[:2], file["head.weight"])
        assert fresh.classes == classes
        for key, value in fresh.backbone.state_dict().items():
            assert torch.equal(value, file[f"backbone.{key}"]), key


@pytest.mark.parametrize("form", ["official", "mmpretrain", "transformers"])
def test_starts_from_every_format(form, tmp_path):
    model = van.create_model("van_b0", seed=1, num_classes=5, drop_path_rate=0.1, **CUSTOM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VanNotice)  # what a format cannot carry is not the matter here
        van.save(model, tmp_path / "weights", format=form)
    with pytest.warns(VanNotice, match="fresh head of 2 classes.*has 5"):
        start = network(tmp_path / "weights", ("a", "b"))
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(start.backbone.state_dict()[key], value), key


def test_head_can_be_reset_on_purpose(finished):
    path = finished[0] / "model.safetensors"
    spec = Recipe().with_options(**{"model.checkpoint": str(path), "model.reset_head": True}).model
    with pytest.warns(VanNotice, match="reset_head"):
        fresh = build_network(spec, ("across", "along"), seed=0)
    assert not torch.equal(fresh.head.weight, load_file(path)["head.weight"])


def test_unnamed_classes_keep_the_head_aloud(tmp_path):
    model = van.create_model("van_b0", seed=0, num_classes=2, **CUSTOM)
    van.save(model, tmp_path / "unnamed.safetensors")
    with pytest.warns(VanNotice, match="does not name its classes"):
        kept = network(tmp_path / "unnamed.safetensors", ("a", "b"))
    assert torch.equal(kept.head.weight, model.head.weight)


def test_another_variant_than_asked_for(finished):
    with pytest.raises(ConfigError, match=r"van_custom.*van_b1"):
        network(finished[0] / "model.safetensors", ("across", "along"), name="van_b1")


def test_preprocessing_is_the_checkpoints_with_overrides(finished):
    model = network(finished[0] / "model.safetensors", ("across", "along"))
    assert resolve_preprocess(model, Recipe().data).size == (32, 32)
    changed = Recipe().with_options(**{"data.size": 64, "data.mean": (0.1, 0.2, 0.3)}).data
    assert resolve_preprocess(model, changed).size == (64, 64)
    assert resolve_preprocess(model, changed).mean == (0.1, 0.2, 0.3)


def test_gray_network(tmp_path, stripes):
    options = {"model.in_chans": 1, "trainer.epochs": 1}
    model = van.load(run(slim_recipe(stripes, tmp_path / "run", **options)) / "model.safetensors")
    assert model.preprocess.color == "L"


def test_no_weight_decay_on_vectors():
    recipe = Recipe().with_options(**{"optim.weight_decay": 0.05})
    model = van.create_model("van_b0", seed=0, num_classes=3, **CUSTOM)
    for group in build_optimizer(model, training_of(recipe)).param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0)


def rates(recipe, updates_per_epoch):
    """Learning rate of every step of a run, as the module and the Trainer drive the schedule."""
    optimizer = build_optimizer(torch.nn.Linear(2, 2), training_of(recipe))
    schedule = build_schedule(optimizer, recipe, updates_per_epoch)
    seen, step = [], 0
    for epoch in range(recipe.total_epochs):
        schedule.before_epoch(epoch)
        for _ in range(updates_per_epoch):
            seen.append(optimizer.param_groups[0]["lr"])
            step += 1
            schedule.after_step(step)
    return seen


def test_published_schedule():
    seen = rates(get_recipe("imagenet_van_b0"), 2)[::2]
    assert seen[0] == pytest.approx(1e-6)
    assert seen[5] == pytest.approx(1e-3, rel=1e-3)
    assert seen[1] == pytest.approx(1e-6 + (1e-3 - 1e-6) / 5)
    assert seen[150] == pytest.approx((1e-3 + 1e-6) / 2)
    assert seen[300:] == [pytest.approx(1e-6)] * 10


def test_schedule_per_step():
    options = {"schedule.warmup_epochs": 0.5, "schedule.warmup_lr": 0.0, "schedule.min_lr": 0.0, "trainer.epochs": 2}
    seen = rates(Recipe().with_options(**options, **{"optim.lr": 1.0}), 10)
    assert seen[:5] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert seen[10] == pytest.approx(0.5)
    assert seen[19] == pytest.approx(0.00616, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "last"), [({"schedule.name": "constant"}, 1.0), ({"schedule.name": "poly", "schedule.power": 1.0}, 0.1)]
)
def test_other_schedules(options, last):
    recipe = Recipe().with_options(**options, **{"optim.lr": 1.0, "schedule.min_lr": 0.0, "trainer.epochs": 1})
    assert rates(recipe, 10)[-1] == pytest.approx(last)


def test_the_run_follows_the_schedule(stripes, tmp_path):
    options = {"optim.lr": 1e-3, "schedule.warmup_epochs": 1, "schedule.cooldown_epochs": 1, "trainer.epochs": 3}
    for per in ("step", "epoch"):
        recipe = slim_recipe(stripes, tmp_path / per, **options, **{"schedule.per": per})
        logged = [float(row["lr"]) for row in table(run(recipe))]
        assert logged == pytest.approx(rates(recipe, 3)[2::3])


def test_linear_scaling_is_said_and_done(stripes, tmp_path):
    options = {"optim.lr": 1e-3, "optim.lr_batch": 16, "schedule.name": "constant", "trainer.epochs": 1}
    with pytest.warns(VanNotice, match=r"0\.001 for a batch of 16 becomes 0\.0005 for.*4 images x 2"):
        folder = run(slim_recipe(stripes, tmp_path / "run", **options, **{"trainer.accumulate": 2}))
    assert float(table(folder)[0]["lr"]) == pytest.approx(5e-4)


def test_mixing_gives_soft_smoothed_targets():
    recipe = Recipe().with_options(**{"augment.mixup": 0.8, "augment.cutmix": 1.0, "augment.label_smoothing": 0.1})
    model = van.create_model("van_b0", seed=0, num_classes=4, **CUSTOM)
    data = SimpleNamespace(classes=tuple("abcd"))
    objective = training_of(recipe).objective(data, model)
    _, targets = objective.mixup(torch.randn(4, 3, 8, 8), torch.arange(4))
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert targets.min() == pytest.approx(0.1 / 4)
    assert training_of(Recipe()).objective(data, model).mixup is None


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_label_smoothing_acts(mixup, stripes, tmp_path):
    options = {"augment.mixup": mixup, "trainer.epochs": 1}
    plain = losses(stripes, tmp_path / "plain", **options)
    assert losses(stripes, tmp_path / "smooth", **options, **{"augment.label_smoothing": 0.5}) != plain


def test_infinite_loss_stops_the_run(stripes, tmp_path):
    recipe = slim_recipe(stripes, tmp_path / "run", **{"optim.name": "sgd", "optim.lr": 1e30, "trainer.epochs": 5})
    with pytest.raises(VanError, match=r"the loss is (nan|inf|-inf) at epoch \d, step \d+, learning rate"):
        run(recipe)


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_image_in_the_middle_is_named(workers, tmp_path):
    make_stripes(tmp_path / "data" / "train", count=4)
    make_stripes(tmp_path / "data" / "val", count=1)
    (tmp_path / "data" / "train" / "along" / "3.png").write_bytes(b"broken")
    recipe = slim_recipe(
        tmp_path / "data", tmp_path / "run", **{"trainer.workers": workers, "trainer.max_unreadable": 0}
    )
    with pytest.raises(DataError, match=r"along/3\.png") as caught:
        run(recipe)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data.path": None}, ConfigError, "data.path"),
        ({"data.path": "/nowhere/at/all"}, DataError, "does not exist"),
        ({"model.in_chans": 4}, ConfigError, "4 channels"),
        ({"data.mean": (0.5,), "data.std": (0.5,)}, ConfigError, "in_chans"),
        ({"model.checkpoint": "/nowhere.safetensors"}, VanError, "nowhere"),
        ({"trainer.precision": "fp16"}, ConfigError, "GPU"),
        ({"trainer.device": "cuda:99"}, ConfigError, "cuda:99"),
        ({"trainer.device": "tpu"}, ConfigError, "expected auto"),
        ({"trainer.batch_size": 1}, ConfigError, "BatchNorm"),
        ({"trainer.resume": "/nowhere"}, DataError, "resume"),
        ({"optim.name": "adamww"}, ConfigError, "did you mean 'adamw'"),
        ({"optim.momentum": 0.9}, ConfigError, "no momentum"),
        ({"optim.betas": (0.9,)}, ConfigError, "takes 2"),
        ({"augment.auto_augment": "nonsense"}, ConfigError, "auto_augment"),
        ({"data.interpolation": "cubic"}, ConfigError, "bicubic"),
    ],
)
def test_refused_before_anything_is_written(options, error, message, stripes, tmp_path):
    if "model.checkpoint" in options:
        options = {**dict.fromkeys(SLIM), **options}
    with pytest.raises(error, match=message):
        run(slim_recipe(stripes, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_one_class_and_contradicting_split(stripes, tmp_path):
    for name in ("train", "val"):
        make_stripes(tmp_path / "own" / name, count=2)
    with pytest.raises(ConfigError, match="own validation images"):
        prepare(slim_recipe(tmp_path / "own", tmp_path / "run", **{"data.val_fraction": 0.3}))
    single = tmp_path / "single"
    single.mkdir()
    (single / "along").symlink_to(stripes / "along")
    with pytest.raises(DataError, match="one class"):
        prepare(slim_recipe(single, tmp_path / "run"))


def test_damaged_checkpoint_is_refused(finished, stripes, tmp_path):
    whole = (finished[0] / "model.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    recipe = slim_recipe(stripes, tmp_path / "run", **{"model.checkpoint": str(tmp_path / "half.safetensors")})
    with pytest.raises(CheckpointError):
        run(recipe.with_options(**dict.fromkeys(SLIM)))


def test_output_folder_must_be_writable_and_free(finished, stripes, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write to the output folder"):
        run(slim_recipe(stripes, tmp_path / "file" / "run"))
    with pytest.raises(ConfigError, match="holds a run already"):
        run(slim_recipe(stripes, finished[0]))


def test_small_data_shrink_the_batch_aloud(tmp_path):
    make_stripes(tmp_path / "data", count=4)
    recipe = slim_recipe(tmp_path / "data", tmp_path / "run", **{"trainer.batch_size": 64, "trainer.epochs": 1})
    with pytest.warns(VanNotice, match="batch_size 64 becomes 6"):
        folder = run(recipe)
    assert read_recipe(folder / "recipe.yaml").trainer.batch_size == 6


def test_lightning_is_quiet(stripes, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 1}))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_lines_show_progress(stripes, tmp_path, capfd):
    run(slim_recipe(stripes, tmp_path / "run", **{"trainer.epochs": 2, "trainer.progress": "auto"}))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    for part in ("epoch 1/2", "loss", "top1", "images/s", "ETA"):
        assert part in lines[0]


def test_short_runs_get_a_short_warmup_aloud(stripes, tmp_path):
    options = {"schedule.warmup_epochs": 5.0, "trainer.epochs": 1}
    with pytest.warns(VanNotice, match=r"warmup_epochs 5 becomes 0\.5"):
        assert prepare(slim_recipe(stripes, tmp_path, **options)).recipe.schedule.warmup_epochs == 0.5
    with pytest.warns(VanNotice, match="warmup_epochs 5 becomes 0:"):
        assert prepare(slim_recipe(stripes, tmp_path, **options, **{"schedule.per": "epoch"})).recipe.global_batch == 4


def test_interrupting_is_an_interrupt(stripes, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingModule, "validation_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(slim_recipe(stripes, tmp_path / "run"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_bar_on_a_terminal(stripes, tmp_path):
    screen = io.StringIO()
    job = prepare(slim_recipe(stripes, tmp_path, **{"trainer.epochs": 2}))
    state = ProcessState()
    epochs = EpochTable(tmp_path, state, images_per_epoch=12, scores=job.training.columns)
    sight = ProgressCallback(epochs, job.training.shown, console=Console(file=screen, force_terminal=True, width=100))
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[state, epochs, sight], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(job.module, datamodule=job.data)
    for part in ("epoch 2/2", "ETA", "loss", "top1", "100%"):
        assert part in screen.getvalue()


def test_memory_settings_reach_the_network(stripes, tmp_path):
    for on in (False, True):
        options = {"trainer.channels_last": on, "model.grad_checkpointing": on}
        module = prepare(slim_recipe(stripes, tmp_path, **options)).module
        assert all(stage.grad_checkpointing is on for stage in module.model.backbone.stages)
        assert (
            module.objective.in_layout(torch.zeros(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last) is on
        )
        weight = module.model.backbone.stages[0].patch_embed.conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is on
