"""`van eval` and `van predict` as a user meets them: output, files, exit codes, errors on one line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from metadata import set_metadata
from PIL import Image

import van
from van.cli import main
from van.cli.output import to_json, write_file
from van.data import open_classification
from van.errors import ConfigError

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save(path, *, seed=0, classes=tuple("0123456789"), **config):
    model = van.create_model("van_b0", seed=seed, num_classes=len(classes), **TINY, **config)
    set_metadata(model, classes=classes, preprocess=model.preprocess.with_overrides(size=16))
    van.save(model, path)
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("checkpoint") / "digits.safetensors")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root, data = tmp_path_factory.mktemp("images"), open_classification("digits", "val")
    (root / "sub").mkdir()
    for name in ("0.png", "1.png", "sub/2.png"):
        data.load(int(name[-5]))[0].save(root / name)
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def one_line(code, out, err):
    """The message of a user's error."""
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("van: error: ")]
    assert len(lines) == 1
    assert err.endswith(lines[0] + "\n")
    assert "Traceback" not in err
    return lines[0].removeprefix("van: error: ")


class TestPredict:
    def test_table(self, run, checkpoint, images):
        code, out, err = run("predict", checkpoint, images, "--top", 2)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].split() == ["image", "label", "probability", "then"]
        assert [line.split()[0] for line in lines[1:]] == [str(images / n) for n in ("0.png", "1.png", "sub/2.png")]
        assert all(line.split()[2].endswith("%") for line in lines[1:])

    def test_json_agrees_with_the_predictor(self, run, checkpoint, images):
        code, out, _ = run("predict", checkpoint, images / "1.png", "--format", "json", "--top", "3")
        content = json.loads(out)
        assert code == 0
        assert content["preprocess"]["size"] == [16, 16]
        assert content["command"] == f"van predict {checkpoint} {images}/1.png --top 3 --format json"
        (entry,) = content["predictions"]
        expected = van.Predictor(checkpoint, top=3, optimize=False)(images / "1.png")  # as a single image is run
        assert [(e["label"], e["index"], e["probability"]) for e in entry["top"]] == list(expected.top)
        assert (entry["label"], entry["index"], entry["image"]) == (expected.label, expected.index, expected.image)

    def test_names_of_the_classes_from_outside(self, run, checkpoint, images, tmp_path):
        names = [f"digit {i}" for i in range(10)]
        (tmp_path / "names.txt").write_text("\n".join(names))
        (tmp_path / "names.json").write_text(json.dumps(names))
        expected = names[van.Predictor(checkpoint)(images / "1.png").index]
        for file in ("names.txt", "names.json"):
            code, out, _ = run(
                "predict", checkpoint, images / "1.png", "--classes", tmp_path / file, "--format", "json"
            )
            assert (code, json.loads(out)["predictions"][0]["label"]) == (0, expected)
        (tmp_path / "bad.json").write_text("{}")
        for source, message in (
            ("imagenet-1k", "1000 class names for 10 classes"),
            (tmp_path / "gone.txt", "gone.txt: it does not exist"),
            (tmp_path / "bad.json", "holds no list of names"),
        ):
            assert message in one_line(*run("predict", checkpoint, images, "--classes", source))

    def test_the_names_of_imagenet(self):
        model = van.create_model("van_b0", embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))
        predictor = van.Predictor(model, classes="imagenet-1k", size=32)
        assert predictor.classes[281] == "tabby, tabby cat"

    def test_csv_into_a_file_by_its_suffix(self, run, checkpoint, images, tmp_path):
        code, out, err = run("predict", checkpoint, images, "--top", 2, "--out", tmp_path / "p.csv")
        assert (code, out, err) == (0, "", "")
        rows = list(csv.DictReader((tmp_path / "p.csv").open()))
        assert [row["rank"] for row in rows] == ["1", "2"] * 3
        assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
        assert [each.name for each in tmp_path.iterdir()] == ["p.csv"]  # no temporary file stays

    def test_a_table_into_a_file(self, run, checkpoint, images, tmp_path):
        assert run("predict", checkpoint, images, "--out", tmp_path / "p.txt") == (0, "", "")
        assert (tmp_path / "p.txt").read_text() == run("predict", checkpoint, images)[1]

    def test_a_bad_image_is_reported_and_the_rest_is_done(self, run, checkpoint, images):
        code, out, err = run("predict", checkpoint, images / "*", images / "gone.png", "--format", "csv", "--top", 1)
        assert code == 1
        assert [line.split(",")[0] for line in out.splitlines()[1:]] == [
            str(images / name) for name in ("0.png", "1.png", "sub/2.png")
        ]
        assert err.splitlines() == [
            f"van: skipped: {images}/gone.png: no such file or folder, and nothing matches it as a pattern",
            f"van: skipped: {images}/notes.txt cannot be read as an image: cannot identify image file "
            f"'{images}/notes.txt'",
        ]

    def test_json_lists_the_failures(self, run, checkpoint, images):
        code, out, _ = run("predict", checkpoint, images / "0.png", images / "notes.txt", "--format", "json")
        assert code == 1
        assert [each["image"] for each in json.loads(out)["failures"]] == [f"{images}/notes.txt"]

    def test_overrides(self, run, checkpoint, images):
        options = ["--size", "24x32", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.2,0.2", "--crop-pct", "1"]
        _, out, _ = run("predict", checkpoint, images, "--format", "json", *options, "--interpolation", "nearest")
        assert json.loads(out)["preprocess"] == {
            "size": [24, 32],
            "crop_pct": 1.0,
            "interpolation": "nearest",
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.2, 0.2],
            "resize": "shortest",
        }

    def test_ema_weights(self, run, images, tmp_path):
        plain, averaged = (van.create_model("van_b0", seed=s, num_classes=3, **TINY) for s in (1, 2))
        van.save(plain, tmp_path / "plain.pth", format="official")
        van.save(averaged, tmp_path / "averaged.pth", format="official")
        read = lambda name: torch.load(tmp_path / name, weights_only=True)["state_dict"]  # noqa: E731
        both = {"state_dict": read("plain.pth"), "state_dict_ema": read("averaged.pth")}
        torch.save(both, tmp_path / "both.pth")
        options = (images / "0.png", "--format", "csv", "--size", "32")
        with_ema = run("predict", tmp_path / "both.pth", *options, "--ema")
        assert with_ema[:2] == run("predict", tmp_path / "averaged.pth", *options)[:2]
        assert run("predict", tmp_path / "both.pth", *options)[1] != with_ema[1]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["gone.pth", "{images}"], "no such file or folder: gone.pth"),
            (["{images}/notes.txt", "{images}"], "is not a checkpoint"),
            (["{checkpoint}", "{images}/*.gif"], "nothing matches"),
            (["{checkpoint}", "{images}/notes.txt"], "none of 1 image(s) could be predicted; the first: "),
            (["{checkpoint}", "{images}", "--format", "jsn"], "unknown format 'jsn'; did you mean 'json'?"),
            (["{checkpoint}", "{images}", "--out", "{images}/none/x.json"], "there is no folder"),
            (["{checkpoint}", "{images}", "--out", "{images}"], "a folder is there"),
            (["{checkpoint}", "{images}", "--top", "0"], "top is 0"),
            (["{checkpoint}", "{images}", "--batch-size", "0"], "batch_size is 0"),
            (["{checkpoint}", "{images}", "--size", "ten"], "--size is 'ten'; expected pixels as 224"),
            (["{checkpoint}", "{images}", "--mean", "a,b"], "--mean is 'a,b'; expected one number per channel"),
            (["{checkpoint}", "{images}", "--mean", "0.5", "--std", "0.5"], "takes images of 3 channel(s)"),
            (["{checkpoint}", "{images}", "--interpolation", "bicubi"], "did you mean 'bicubic'?"),
            (["{checkpoint}", "{images}", "--device", "gpu"], "device 'gpu' cannot be used"),
            (["{checkpoint}", "{images}", "--precision", "fp8"], "unknown precision 'fp8'"),
            (["{checkpoint}", "{images}", "--ema"], ""),
            (["{checkpoint}"], "paths"),
        ],
    )
    def test_errors(self, run, checkpoint, images, arguments, says):
        arguments = [argument.format(checkpoint=checkpoint, images=images) for argument in arguments]
        assert says in one_line(*_last(run("predict", *arguments)))

    def test_an_empty_folder(self, run, checkpoint, tmp_path):
        assert "no images in this folder" in one_line(*run("predict", checkpoint, tmp_path))


class TestOutput:
    def test_a_file_is_replaced_whole_or_not_at_all(self, tmp_path, monkeypatch):
        path = tmp_path / "a.json"
        write_file(path, "old")
        write_file(path, b"new")
        assert path.read_text() == "new"

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(ConfigError, match=r"cannot write .*a\.json: No space left on device"):
            write_file(path, "newer")
        assert path.read_text() == "new"
        assert [each.name for each in tmp_path.iterdir()] == ["a.json"]

    def test_links_and_devices_stay_what_they_are(self, tmp_path):
        (tmp_path / "real.txt").write_text("old")
        (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
        write_file(tmp_path / "link.txt", "new")
        assert (tmp_path / "link.txt").is_symlink()
        assert (tmp_path / "real.txt").read_text() == "new"
        write_file("/dev/null", "gone")
        assert not Path("/dev/null").is_file()

    def test_json_is_json_and_a_matrix_reads_as_one(self):
        value = {"a": [[1, 2], [3, 4]], "b": {"c": None, "d": "ä"}, "e": [], "f": [{"g": [1]}, {"g": []}], 'h"': True}
        text = to_json(value)
        assert json.loads(text) == value
        assert "    [1, 2],\n    [3, 4]\n" in text


class TestEval:
    def test_everything_it_writes(self, run, checkpoint, tmp_path):
        written = {name: tmp_path / f"e.{name}" for name in ("json", "csv")} | {"confusion": tmp_path / "c.png"}
        options = [word for name, path in written.items() for word in (f"--{name}", path)]
        code, out, err = run("eval", checkpoint, "--data", "digits", "--per-class", "--batch-size", 64, *options)
        assert (code, err) == (0, "")
        content = json.loads(written["json"].read_text())
        (result,) = content["results"]
        assert (result["count"], result["split"], result["preprocess"]["size"]) == (359, "val", [16, 16])
        assert np.sum(result["confusion"]) == 359
        assert result["top1"] == pytest.approx(100 * np.trace(result["confusion"]) / 359)
        assert result["classes"] == list("0123456789")
        assert content["command"].startswith(f"van eval {checkpoint} --data digits --batch-size 64 --per-class --json")
        assert content["failures"] == []
        (row,) = csv.DictReader(written["csv"].open())
        assert float(row["top1"]) == result["top1"]
        lines = out.splitlines()
        assert lines[0].split() == ["checkpoint", "top-1", "%", "top-5", "%", "loss", "images", "images/s"]
        assert lines[1].split()[1:5] == [
            f"{result['top1']:.2f}",
            f"{result['top5']:.2f}",
            f"{result['loss']:.4f}",
            "359",
        ]
        assert lines[2:4] == ["", checkpoint]
        assert len(lines[5:]) == len(result["per_class"]) == 10
        assert Image.open(written["confusion"]).format == "PNG"
        assert len(list(tmp_path.iterdir())) == 3

    def test_several_in_one_sorted_table(self, run, tmp_path):
        names = [save(tmp_path / f"{seed}.safetensors", seed=seed) for seed in range(2)]
        (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04")
        code, out, err = run("eval", tmp_path, "--data", "digits", "--csv", tmp_path / "all.csv")
        assert code == 1
        rows = list(csv.DictReader((tmp_path / "all.csv").open()))
        assert {row["checkpoint"] for row in rows} == set(names)
        assert float(rows[0]["top1"]) > float(rows[1]["top1"])
        assert [line.split()[0] for line in out.splitlines()[1:]] == [row["checkpoint"] for row in rows]
        assert err.startswith(f"van: failed: {tmp_path}/broken.pth: ")
        assert err.count("\n") == 1

    def test_real_labels_subset_and_map(self, run, tmp_path):
        checkpoint = save(tmp_path / "m.safetensors", classes=("cat", "dog", "owl"))
        for number, name in enumerate(["c", "c", "d", "d"], start=1):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "photos" / name / f"ILSVRC2012_val_{number:08d}.png"
            Image.new("RGB", (9, 9), (number * 40, 0, 0)).save(path)
        (tmp_path / "map.txt").write_text("c cat\nd dog\n")
        (tmp_path / "subset.txt").write_text("cat\ndog\n")
        (tmp_path / "real.json").write_text("[[0, 1], [0, 1], [], [0, 1]]")
        options = ("--class-map", "--classes-subset", "--real-labels")
        files = (tmp_path / "map.txt", tmp_path / "subset.txt", tmp_path / "real.json")
        arguments = [word for pair in zip(options, files, strict=True) for word in pair]
        code, out, err = run(
            "eval", checkpoint, "--data", tmp_path / "photos", *arguments, "--json", tmp_path / "e.json"
        )
        assert (code, err) == (0, "")
        (result,) = json.loads((tmp_path / "e.json").read_text())["results"]
        assert (result["count"], result["original_count"], result["top1"]) == (3, 4, 100.0)
        assert result["classes"] == ["cat", "dog"]
        assert "own top-1 %" in out

    def test_a_partial_split_is_said_aloud(self, run, checkpoint, tmp_path):
        for name in "0123456789":
            (tmp_path / name).mkdir()
            for i in range(2):
                Image.new("RGB", (4, 4), (i * 9, 0, 0)).save(tmp_path / name / f"{i}.png")
        code, _, err = run("eval", checkpoint, "--data", tmp_path)
        assert code == 0
        assert err.startswith("van: note: ")
        assert "evaluating the 10 image(s)" in err
        code, out, err = run("eval", checkpoint, "--data", tmp_path, "--split", "all")
        assert (code, err) == (0, "")
        assert out.splitlines()[1].split()[4] == "20"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["gone.pth", "--data", "digits"], "no such file or folder: gone.pth"),
            (["{images}/notes.txt", "--data", "digits"], "is not a checkpoint"),
            (["{images}/notes.txt", "{images}/0.png", "--data", "digits"], "none of 2 checkpoints could be evaluated"),
            (["{images}/*.pth", "--data", "digits"], "nothing matches the pattern"),
            (["{images}/sub", "--data", "digits"], "the folder holds no checkpoint"),
            (["{checkpoint}", "--data", "{images}/gone"], "does not exist"),
            (["{checkpoint}", "--data", "{images}/0.png"], "is a file"),
            (["{checkpoint}", "--data", "{images}/sub"], "no class folders"),
            (
                ["{checkpoint}", "--data", "{images}", "--split", "all"],
                "the data set has 1 classes (sub), the model has 10",
            ),
            (["{checkpoint}"], "data"),
            (["{checkpoint}", "--dta", "digits"], "did you mean --data?"),
            (["{checkpoint}", "--data", "digits", "--split", "tset"], "split is 'tset'"),
            (["{checkpoint}", "--data", "digits", "--json", "{images}/none/x.json"], "there is no folder"),
            (["{checkpoint}", "--data", "digits", "--confusion", "{images}"], "a folder is there"),
            (
                ["{checkpoint}", "{checkpoint}2", "--data", "digits", "--confusion", "c.png"],
                "shows one checkpoint, got 2",
            ),
            (["{checkpoint}", "--data", "digits", "--real-labels", "gone.json"], "cannot read gone.json"),
            (["{checkpoint}", "--data", "digits", "--classes-subset", "{images}/notes.txt"], "unknown class"),
            (["{checkpoint}", "--data", "digits", "--class-map", "{images}/notes.txt"], "the class map lacks 10 of 10"),
            (["{checkpoint}", "--data", "digits", "--mean", "0.5", "--std", "0.5"], "takes images of 3 channel(s)"),
            (["{checkpoint}", "--data", "digits", "--interpolation", "lancsoz"], "did you mean 'lanczos'?"),
            (["{checkpoint}", "--data", "digits", "--crop-pct", "2"], "crop_pct is 2.0"),
        ],
    )
    def test_errors(self, run, checkpoint, images, arguments, says):
        arguments = [argument.format(checkpoint=checkpoint, images=images) for argument in arguments]
        assert says in one_line(*_last(run("eval", *arguments)))

    def test_an_empty_folder_and_files_that_are_no_images(self, run, checkpoint, tmp_path):
        assert "is empty" in one_line(*run("eval", checkpoint, "--data", tmp_path))
        (tmp_path / "0").mkdir()
        (tmp_path / "0" / "x.txt").touch()
        assert "holds no images" in one_line(*run("eval", checkpoint, "--data", tmp_path, "--split", "all"))

    def test_a_gray_model_takes_the_digits_as_they_are(self, run, tmp_path):
        model = van.create_model("van_b0", seed=0, num_classes=10, in_chans=1, **TINY)
        van.save(model, tmp_path / "gray.safetensors")
        options = ("--mean", "0.5", "--std", "0.5", "--size", "16")
        code, out, _ = run("eval", tmp_path / "gray.safetensors", "--data", "digits", *options)
        assert code == 0
        assert out.splitlines()[1].split()[4] == "359"


def _last(result):
    """Without the notes and single failures that may precede the error."""
    code, out, err = result
    kept = [line for line in err.splitlines() if not line.startswith(("van: note:", "van: skipped:", "van: failed:"))]
    return code, out, "\n".join(kept) + "\n"
