"""`van train`, `van eval` and `van predict` on a segmenter as a user meets them: output, files, one-line errors."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from metadata import set_metadata
from PIL import Image
from tiny_segmentation import SLIM_NETWORK

import van
from van.cli import main
from van.data.segmentation import open_segmentation
from van.errors import ConfigError, VanError
from van.inference.evaluate import evaluate
from van.inference.predictor import MaskPrediction
from van.tasks.segmentation.mask_files import stems_of

NETWORK = [f"--model.{name}={list(v) if isinstance(v, tuple) else v}" for name, v in SLIM_NETWORK.items()]
TRAIN = [
    "light_ham_digits", *NETWORK, "--data.val_images=2", "--data.scene_size=32", "--augment.crop=[32,32]",
    "--schedule.warmup_steps=0", "--trainer.steps=2", "--trainer.val_every=1", "--trainer.batch_size=2",
    "--trainer.threads=1", "--trainer.progress=none",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four 32-pixel scenes as a described data set: images, index masks, dataset.yaml."""
    root = tmp_path_factory.mktemp("pictures")
    for split in ("train", "val"):
        data = open_segmentation("scenes", split, scene_size=32)
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(4):
            image, labels = data.load(i)
            image.save(root / "images" / split / f"s{i}.png")
            Image.fromarray(labels).save(root / "masks" / split / f"s{i}.png")
    description = {
        "names": list(data.classes), "palette": [list(color) for color in data.palette],
        "images": "images", "masks": "masks",
    }  # fmt: skip
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A segmenter that predicts several classes, with what training writes down about its test."""
    data = open_segmentation("scenes", "val", scene_size=32)
    model = van.create_model("light_ham_van_b0_d256", seed=3, num_classes=11, strides=(4, 1, 2, 2), **SLIM_NETWORK)
    with torch.no_grad():
        model.head.classify.conv.weight.mul_(30)
    facts = {"inference": {"resize": None}, "split": {"scene_size": 32}}
    set_metadata(model, classes=data.classes, palette=data.palette, provenance=facts)
    path = tmp_path_factory.mktemp("checkpoint") / "segmenter.safetensors"
    van.save(model, path)
    return str(path)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    sizes = {name: SLIM_NETWORK[name] for name in ("embed_dims", "depths", "mlp_ratios")}
    path = tmp_path_factory.mktemp("classifier") / "digits.safetensors"
    van.save(van.create_model("van_b0", num_classes=10, **sizes), path)
    return str(path)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def _die(*_):
    os._exit(1)


def one_line(code, out, err):
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("van: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


class TestTrain:
    def test_trains_and_says_where_and_the_result_predicts(self, run, pictures, tmp_path):
        code, out, _ = run("train", *TRAIN, "--trainer.out", tmp_path / "run")
        assert code == 0
        assert f"{tmp_path / 'run'}: mIoU " in out
        result = tmp_path / "run" / "model.safetensors"
        assert run("predict", result, pictures / "images" / "val" / "s0.png", "--out", tmp_path / "p")[0] == 0
        assert {path.name for path in (tmp_path / "p").iterdir()} == {"s0-overlay.png", "s0-mask.png"}

    def test_presets(self, run, capsys):
        with pytest.raises(SystemExit):
            main(["train", "hamnet_van_b0", "--preset", "small_gpu", "--print_config"])
        shown = yaml.safe_load(capsys.readouterr().out)
        assert (shown["task"], shown["trainer"]["batch_size"], shown["trainer"]["accumulate"]) == (
            "segmentation",
            2,
            16,
        )
        assert "one_gpu" in one_line(*run("train", "hamnet_van_b0", "--preset", "one_gp"))
        assert "belongs to segmentation" in one_line(*run("train", "finetune", "--preset", "one_gpu"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["light_ham_van_b0"], "data.path"),
            (["light_ham_van_b0", "--optim.lrr", "1"], "did you mean --optim.lr?"),
            (["light_ham_van_b0", "--data.path", "nowhere"], "nowhere"),
            (["light_ham_van_b0", "--trainer.epochs", "3"], "trainer.epochs"),
            (["light_ham_digits", "--loss.class_weights", "[1,2]"], "11 classes"),
        ],
    )
    def test_errors_are_one_line(self, run, arguments, message):
        assert message in one_line(*run("train", *arguments, "--trainer.devices=1"))


class TestEval:
    def test_tables_json_csv_and_twice_the_same(self, run, checkpoint, pictures, tmp_path):
        runs = []
        for name in ("a", "b"):
            files = ["--json", tmp_path / f"{name}.json", "--csv", tmp_path / f"{name}.csv"]
            code, out, err = run("eval", checkpoint, "--data", pictures, *files)
            assert (code, err) == (0, "")
            content = json.loads((tmp_path / f"{name}.json").read_text())["results"][0]
            runs.append({k: v for k, v in content.items() if k not in ("seconds", "images_per_second")})
        assert "mIoU %" in out
        assert "background" in out
        assert runs[0] == runs[1]
        assert runs[0]["count"] == 4
        assert np.sum(runs[0]["confusion_matrix"]) == 4 * 32 * 32
        known = [value for key, value in runs[0].items() if key.startswith("IoU.") and value is not None]
        assert runs[0]["mIoU"] == pytest.approx(np.mean(known))
        assert runs[0]["mIoU"] == evaluate(checkpoint, pictures)["mIoU"]
        row = next(csv.DictReader((tmp_path / "a.csv").open()))
        assert float(row["aAcc"]) == runs[0]["aAcc"]
        assert row["IoU.3"] == ("" if runs[0]["IoU.3"] is None else str(runs[0]["IoU.3"]))

    def test_label_maps_overlays_and_submissions(self, run, checkpoint, pictures, tmp_path):
        folders = {name: tmp_path / name for name in ("out", "overlays", "submission")}
        arguments = [word for name, folder in folders.items() for word in (f"--{name}", folder)]
        assert (
            run(
                "eval", checkpoint, "--data", pictures, *arguments, "--opacity", "1", "--confusion", tmp_path / "c.png"
            )[0]
            == 0
        )
        raw = np.load(folders["out"] / "s1.npy")
        index = Image.open(folders["out"] / "s1.png")
        assert raw.shape == (32, 32)
        assert np.array_equal(np.asarray(index), raw)
        assert np.array_equal(np.asarray(Image.open(folders["submission"] / "s1.png")), raw)
        assert len(np.unique(raw)) > 1
        palette = np.asarray(open_segmentation(pictures, "val").palette, np.uint8)
        painted = np.asarray(Image.open(folders["overlays"] / "s1.png").convert("RGB"))[:, :32]
        assert np.array_equal(painted, palette[raw])
        assert len(list(folders["overlays"].iterdir())) == 4
        assert Image.open(tmp_path / "c.png").size[0] > 100

    def test_options_change_how_it_looks(self, run, checkpoint, pictures, tmp_path):
        scores = {}
        for name, options in {
            "plain": [], "flip": ["--flip"], "scales": ["--scales", "0.5,1.5"], "fit": ["--fit", "64x64"],
            "window": ["--window", 16, "--stride", 8], "mean": ["--mean", "0.1,0.1,0.1"],
        }.items():  # fmt: skip
            assert run("eval", checkpoint, "--data", pictures, "--json", tmp_path / "x.json", *options)[0] == 0
            scores[name] = json.loads((tmp_path / "x.json").read_text())["results"][0]["confusion_matrix"]
        assert all(scores[name] != scores["plain"] for name in scores if name != "plain")

    def test_seeds(self, run, checkpoint, pictures, tmp_path):
        code, out, _ = run("eval", checkpoint, "--data", pictures, "--seeds", 3, "--json", tmp_path / "x.json")
        seeds = json.loads((tmp_path / "x.json").read_text())["results"][0]["seeds"]
        values = [seeds[f"mIoU.seed{i}"] for i in range(3)]
        assert code == 0
        assert seeds["mIoU"] == pytest.approx(np.mean(values))
        assert seeds["mIoU.std"] == pytest.approx(np.std(values, ddof=1))
        assert "over 3 draws of the bases" in out

    @pytest.mark.long
    def test_several_devices_give_exactly_what_one_gives(self, run, checkpoint, pictures, tmp_path):
        found = {}
        for device in ("cpu", "cpu,cpu"):
            folder = tmp_path / device.replace(",", "-")
            arguments = ["--device", device, "--seeds", 2, "--out", folder, "--json", tmp_path / "x.json"]
            assert run("eval", checkpoint, "--data", pictures, *arguments)[0] == 0
            result = json.loads((tmp_path / "x.json").read_text())["results"][0]
            maps = {path.name: path.read_bytes() for path in folder.iterdir()}
            found[device] = [result["confusion_matrix"], result["seeds"], result["count"], maps]
        assert found["cpu"] == found["cpu,cpu"]
        assert found["cpu"][2] == 4

    @pytest.mark.long
    def test_what_goes_wrong_in_a_device_process_is_told_as_ever(self, run, checkpoint, pictures, tmp_path):
        for name in ("images", "dataset.yaml"):
            (tmp_path / name).symlink_to(pictures / name)
        shutil.copytree(pictures / "masks", tmp_path / "masks")
        Image.fromarray(np.full((32, 32), 77, np.uint8)).save(tmp_path / "masks" / "val" / "s2.png")
        message = one_line(*run("eval", checkpoint, "--data", tmp_path, "--device", "cpu,cpu"))
        assert "s2.png" in message
        assert "77" in message
        with pytest.raises(VanError, match="a process on one of cpu died"):
            evaluate(checkpoint, str(pictures), devices=["cpu"], on_mask=_die)

    @pytest.mark.long
    def test_several_devices_share_a_classifiers_images(self, run, classifier, tmp_path):
        found = {}
        for device in ("cpu", "cpu,cpu"):
            arguments = ["--device", device, "--json", tmp_path / "x.json", "--batch-size", 40]
            assert run("eval", classifier, "--data", "digits", *arguments)[0] == 0
            result = json.loads((tmp_path / "x.json").read_text())["results"][0]
            found[device] = [result[name] for name in ("confusion", "loss", "top5", "count")]
        assert found["cpu"] == found["cpu,cpu"]

    def test_prediction_takes_one_device(self, run, checkpoint, pictures):
        assert "'cpu,cpu'" in one_line(*run("predict", checkpoint, pictures / "images", "--device", "cpu,cpu"))

    def test_the_split_of_the_training_is_taken(self, checkpoint):
        assert evaluate(checkpoint, "scenes").matrix.pixels == 400 * 32 * 32

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--real-labels", "x"], "--real-labels belongs to classifiers"),
            (["--class-map", "x"], "--class-map belongs to classifiers"),
            (["--test-time-pool"], "--test-time-pool belongs to classifiers"),
            (["--crop-pct", "0.9"], "--crop-pct belongs to classifiers"),
            (["--opacity", "2"], "--opacity is 2"),
            (["--stride", "8"], "window"),
            (["--scales", "big"], "--scales is 'big'"),
            (["--fit", "64"], "2048x512"),
            (["--seeds", "1"], "at least 2"),
            (["--split", "all"], "split"),
        ],
    )
    def test_errors_are_one_line(self, run, checkpoint, pictures, options, message):
        assert message in one_line(*run("eval", checkpoint, "--data", pictures, *options))

    def test_classifiers_refuse_what_is_a_segmenters(self, run, classifier, checkpoint):
        for options in (["--flip"], ["--seeds", "3"], ["--overlays", "x"], ["--window", "64"], ["--opacity", "0.3"]):
            message = one_line(*run("eval", classifier, "--data", "digits", *options))
            assert f"{options[0]} belongs to segmenters" in message
        assert "one kind at a time" in one_line(*run("eval", classifier, checkpoint, "--data", "digits"))

    def test_another_number_of_classes(self, run, checkpoint, pictures, tmp_path):
        for kind in ("images", "masks"):
            (tmp_path / kind).symlink_to(pictures / kind)
        values = yaml.safe_load((pictures / "dataset.yaml").read_text())
        values["names"].append("more")
        values["palette"].append([1, 2, 3])
        (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(values))
        assert "has 11 classes" in one_line(*run("eval", checkpoint, "--data", tmp_path))


class TestPredict:
    def test_writes_overlay_and_mask(self, run, checkpoint, pictures, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, out, _ = run("predict", checkpoint, pictures / "images" / "val", "--format", "json")
        predictions = json.loads(out)["predictions"]
        assert code == 0
        assert len(predictions) == 4
        mask = np.asarray(Image.open(predictions[2]["mask"]))
        assert predictions[2]["overlay"].startswith("segmentation/")
        expected = van.Predictor(checkpoint)(pictures / "images" / "val" / "s2.png")
        assert np.array_equal(mask, expected.mask)
        assert sum(each["share"] for each in predictions[2]["classes"]) == pytest.approx(1)
        assert Image.open(predictions[2]["overlay"]).width > 32  # the legend

    def test_the_predictor(self, checkpoint, pictures):
        predictor = van.Predictor(checkpoint)
        prediction = predictor(np.asarray(Image.open(pictures / "images" / "val" / "s0.png")))
        assert isinstance(prediction, MaskPrediction)
        assert prediction.mask.shape == (32, 32)
        assert prediction.classes == predictor.classes == open_segmentation("scenes").classes
        assert prediction.overlay(legend=False).size == (32, 32)
        assert np.array_equal(np.asarray(prediction.overlay(0, legend=False)), np.asarray(prediction.picture))
        with pytest.raises(ConfigError, match="crop_pct belongs to classifiers"):
            van.Predictor(checkpoint, crop_pct=0.9)
        flipped = van.Predictor(checkpoint, inference={"flip": True})
        assert not np.array_equal(flipped(prediction.picture).mask, prediction.mask)

    def test_same_names_stay_apart(self, run, checkpoint, pictures, tmp_path):
        assert run("predict", checkpoint, pictures / "images", "--out", tmp_path)[0] == 0
        assert len(list(tmp_path.glob("*-mask.png"))) == 8

    def test_errors(self, run, checkpoint, classifier, pictures, tmp_path):
        image = pictures / "images" / "val" / "s0.png"
        assert "--top belongs to classifiers" in one_line(*run("predict", checkpoint, image, "--top", 2))
        assert "--flip belongs to segmenters" in one_line(*run("predict", classifier, image, "--flip"))
        (tmp_path / "bad.png").write_text("no image")
        code, _, err = run("predict", checkpoint, image, tmp_path / "bad.png", "--out", tmp_path / "o")
        assert code == 1
        assert "bad.png cannot be read" in err


def test_doctor_is_a_verb(run):
    code, out, _ = run("doctor", "scenes", "--limit", "2")
    assert code in (0, 1)
    assert "11 classes" in out


def test_label_maps_of_pictures_with_one_name_do_not_replace_each_other():
    stems = stems_of([Path(name) for name in ("a/x/1.png", "b/x/1.png", "c/x/1.png", "x_1.png", "a/2.png")])
    assert stems == ("1", "x_1", "x_1_2", "_x_1", "2")
