"""Models that find objects in training: what a run leaves, scores as `van eval` has them, resuming, tolerance."""

import json

import pytest
import torch
import yaml
from chaos import Victim, assert_same, numbers
from interrupted_runs import cut_off
from safetensors.torch import load_file
from tiny_objects import HEADS, make_objects, slim_objects

import van
from van.cli import main
from van.errors import ConfigError, DataError, VanNotice
from van.recipes import RECIPES, get_recipe
from van.tools.report.page import write_report
from van.train import run

NAMES = list(HEADS)
STEPWISE = {"trainer.checkpoint_every_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_objects(tmp_path_factory.mktemp("data") / "digits", train=8, val=3)


@pytest.fixture(scope="module", params=NAMES)
def finished(request, data, tmp_path_factory):
    return run(slim_objects(request.param, data, tmp_path_factory.mktemp("runs") / request.param))


def test_a_run_leaves_what_van_eval_finds(finished, data):
    summary, rows = json.loads((finished / "summary.json").read_text()), numbers(finished)
    assert len(rows) == 2
    assert (summary["steps"], summary["val_images"], summary["val_images_there"]) == (8, 3, 3)
    scores = van.evaluate(finished / "model.safetensors", data)
    compared = [name for name in dict(scores) if f"val/{name}" in summary]
    assert "AP50" in compared or "PQ" in compared
    for name in compared:
        assert scores[name] == pytest.approx(summary[f"val/{name}"], abs=1e-6), name
    model = van.load(finished / "model.safetensors")
    assert model.provenance["averaged"] is True
    assert (finished / "model-without-ema.safetensors").is_file()
    page = write_report(finished).read_text()
    assert "AP50" in page or "PQ" in page


@pytest.mark.parametrize(
    "name", ["retinanet_digits", *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[1:])]
)
@pytest.mark.parametrize("at_step", [pytest.param(1, marks=pytest.mark.long), 6])
def test_a_resumed_run_is_the_same(name, at_step, data, tmp_path, monkeypatch):
    whole = run(slim_objects(name, data, tmp_path / "whole", **STEPWISE))
    cut_off(monkeypatch, slim_objects(name, data, tmp_path / "cut", **STEPWISE), at_step=at_step)
    resumed = run(slim_objects(name, data, tmp_path / "cut", **STEPWISE, **{"trainer.resume": str(tmp_path / "cut")}))
    assert_same(whole, resumed)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(name, data, tmp_path):
    whole, cut = (Victim(slim_objects(name, data, tmp_path / each, **STEPWISE), tmp_path / each) for each in "ab")
    assert whole.live() == [0], whole.said()
    assert cut.live(("kill", "step", 3)) == [-9], cut.said()
    assert cut.live(("kill", "validation", 2)) == [-9], cut.said()
    assert cut.live() == [0], cut.said()
    assert_same(whole.folder, cut.folder)


def test_options_of_every_task_work_here_too(data, tmp_path):
    options = {
        "trainer.accumulate": 2, "trainer.history": 1, "trainer.early_stopping": 5,
        "trainer.batch_norm": "recalibrate", "data.sampling": "balanced", "optim.layer_decay": 0.9,
        "optim.clip_norm": None, "optim.clip_agc": 0.1, "data.val_images": 2, "trainer.keep": "best",
    }  # fmt: skip
    folder = run(slim_objects("retinanet_digits", data, tmp_path / "run", **options))
    assert len(list((folder / "history").iterdir())) == 1
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["steps"], summary["val_images"]) == (4, 2)


def test_mixed_precision(data, tmp_path):
    folder = run(slim_objects("mask_rcnn_digits", data, tmp_path / "run", **{"trainer.precision": "bf16"}))
    assert load_file(folder / "model.safetensors")["rpn.head.cls_logits.weight"].dtype == torch.float32


@pytest.mark.long
def test_frozen_statistics_stay(data, tmp_path):
    start = run(slim_objects("retinanet_digits", data, tmp_path / "start"))
    options = {"model.checkpoint": str(start / "model.safetensors"), "model.layer_scale_init": None}
    frozen, trained = (
        run(slim_objects("retinanet_digits", data, tmp_path / policy, **options, **{"trainer.batch_norm": policy}))
        for policy in ("frozen", "reduce")
    )
    name = "backbone.stages.0.patch_embed.norm.running_mean"
    before, same, other = (load_file(folder / "model.safetensors")[name] for folder in (start, frozen, trained))
    assert torch.equal(before, same)
    assert not torch.equal(before, other)


def test_unreadable_images_are_replaced(tmp_path):
    data = make_objects(tmp_path / "data", train=6, val=2)
    (data / "train2017" / f"{3:012}.png").write_bytes(b"nonsense")
    with pytest.warns(VanNotice, match="stands in for it"):
        run(slim_objects("retinanet_digits", data, tmp_path / "run", **{"trainer.epochs": 1}))
    with pytest.raises(DataError, match=r"1 training images cannot be read, trainer\.max_unreadable is 0"):
        run(slim_objects("retinanet_digits", data, tmp_path / "other", **{"trainer.max_unreadable": 0}))


@pytest.mark.parametrize("name", ["retinanet_digits", "mask2former_digits"])
def test_the_command_line(name, data, tmp_path, capsys):
    recipe = tmp_path / "slim.yaml"
    recipe.write_text(yaml.safe_dump(slim_objects(name, data, tmp_path / "run", **{"trainer.epochs": 1}).to_dict()))
    assert main(["train", name, "--config", str(recipe)]) == 0
    assert "on 3 held-out images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (
            ["--model.name", "van_b0"],
            "model.name is 'van_b0', a classifier; expected a detector",
        ),
        (["--model.name", "mask_rcnn_van_b0"], "an? instance segmenter; expected a detector"),
        (["--model.queries", "9"], r"model\.queries"),
        (["--trainer.monitor", "val/top1"], r"trainer\.monitor"),
        (["--trainer.eval_batch_size", "4"], "validation takes images one by one"),
        (["--schedule.warmup_epochs", "1"], "in two ways"),
        (["--data.reader", "wds"], r"data\.reader"),
        (["--data.classes", "names.txt"], r"data\.classes has no effect"),
        (["--data.scene_size", "64", "--data", "folder"], "belongs to the digit scenes"),
        (["--data.val_fraction", "0.5"], "the digit scenes have none"),
        (["--data.sampling", "even"], r"unknown value of data\.sampling: 'even'"),
        (["--augment.off_epoch", "99"], "use an earlier one"),
        (["--model.max_size", "32"], "below min_size 64"),
        (["--trainer.batch_norm", "frozen"], "give model.checkpoint"),
    ],
)
def test_what_is_set_wrongly_is_one_line(options, message, capsys):
    assert main(["train", "retinanet_digits", *options]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("van: error: ")
    assert "Traceback" not in err
    assert __import__("re").search(message, err), err


def test_published_recipes_have_their_stories():
    published = [name for name in RECIPES if getattr(get_recipe(name), "task", "") in ("detection", "instance")]
    for name in published:
        story = RECIPES[name].__doc__
        assert f"van train {name}" in story
        assert "Expected:" in story


def test_data_without_masks_are_no_data_for_masks(tmp_path):
    data = make_objects(tmp_path / "data", train=4, val=2)
    for split in ("train", "val"):
        file = data / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        for each in content["annotations"]:
            del each["segmentation"]
        file.write_text(json.dumps(content))
    run(slim_objects("retinanet_digits", data, tmp_path / "boxes", **{"trainer.epochs": 1}))
    with pytest.raises(DataError, match="mask"):
        run(slim_objects("mask_rcnn_digits", data, tmp_path / "masks"))


def test_a_preset_keeps_the_batch():
    from van.recipes import with_preset

    for name in ("retinanet_van_b0_1x", "mask_rcnn_van_b2_3x", "mask2former_van_b2", "dfine_van_b1"):
        recipe = get_recipe(name)
        for preset in ("one_gpu", "small_gpu"):
            assert with_preset(recipe, preset).global_batch == recipe.global_batch
    with pytest.raises(ConfigError, match="does not split into pairs"):
        with_preset(get_recipe(name).with_options(**{"trainer.devices": 1, "trainer.batch_size": 3}), "small_gpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "score", "least"),
    [
        ("retinanet_digits", "AP50", 0.60), ("dfine_digits", "AP50", 0.50), ("mask_rcnn_digits", "mask/AP50", 0.55),
        ("mask2former_digits", "PQ", 0.40),
    ],
)  # fmt: skip
def test_digits_recipes_learn(name, score, least, tmp_path):
    folder = run(get_recipe(name).with_options(**{"trainer.out": str(tmp_path / "run")}))
    assert van.evaluate(folder / "model.safetensors", "scenes")[score] >= least
