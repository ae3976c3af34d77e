"""The command line and the calls from Python as newcomers use them: names, formats, help, images of every kind."""

import dataclasses
import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import classifier, picture, segmenter
from tiny_training import SLIM, make_stripes

import van
from van.cli import main
from van.cli.train_help import field_texts
from van.cli.train_names import SHORT
from van.data.scenes import Scenes
from van.errors import ConfigError, DataError, UnknownNameError
from van.inference.evaluate import Evaluation, evaluate
from van.recipes import RECIPES, Recipe, SegmentationRecipe, configured
from van.tasks.segmentation.evaluation import MaskEvaluation

pytestmark = pytest.mark.promise("20")


def printed_recipe(capsys, *arguments):
    """What `van train … --print_config` prints."""
    import yaml

    with pytest.raises(SystemExit):
        main(["train", *arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def error(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


class TestTrain:
    def test_short_options_are_settings(self, capsys):
        short = ["--data", "digits", "--lr", "1e-3", "--epochs", "2", "--batch-size=8", "--out", "o", "--seed", "3"]
        short += ["--weight-decay", "0.1", "--size", "32", "--device", "cpu", "--workers", "0", "--precision", "bf16"]
        recipe = printed_recipe(capsys, "finetune", *short)
        assert recipe["data"]["path"] == "digits"
        assert recipe["data"]["size"] == 32
        assert recipe["optim"]["lr"] == 1e-3
        assert recipe["optim"]["weight_decay"] == 0.1
        wanted = {
            "epochs": 2,
            "batch_size": 8,
            "out": "o",
            "seed": 3,
            "device": "cpu",
            "workers": 0,
            "precision": "bf16",
        }
        assert {name: recipe["trainer"][name] for name in wanted} == wanted

    def test_both_spellings_are_one(self, capsys):
        long = printed_recipe(capsys, "finetune", "--data.path", "x", "--trainer.batch_size", "4")
        assert printed_recipe(capsys, "finetune", "--data=x", "--batch_size", "4") == long

    def test_segmentation_too(self, capsys):
        recipe = printed_recipe(capsys, "light_ham_digits", "--data", "x", "--steps", "5", "--checkpoint", "c.pth")
        assert (recipe["data"]["path"], recipe["trainer"]["steps"]) == ("x", 5)
        assert recipe["model"]["checkpoint"] == "c.pth"

    @pytest.mark.promise("20")
    def test_data_is_the_data_set_and_no_file_of_settings(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("mine").mkdir()
        assert printed_recipe(capsys, "finetune", "--data", "mine")["data"]["path"] == "mine"

    @pytest.mark.promise("20")
    def test_missing_data_names_the_option(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for recipe in ("finetune", "light_ham_van_b0"):
            assert "no data: give --data" in error(capsys, "train", recipe, "--device", "cpu")

    def test_what_contradicts_itself_is_refused(self, capsys):
        assert "--data A and --data.path B set the same; give one" in error(
            capsys, "train", "finetune", "--data", "A", "--data.path", "B"
        )

    @pytest.mark.parametrize(
        ("option", "meant"),
        [
            ("--model", "--model.name or --model.checkpoint"),
            ("--batch", "--trainer.batch_size"),
            ("--learning-rate", "--optim.lr"),
            ("--learning_rate=3", "--optim.lr"),
            ("--freeze", "--model.frozen_stages"),
            ("--imgsz", "--data.size"),
            ("--patience", "--trainer.early_stopping"),
            ("--mixup", "--augment.mixup"),
            ("--min-lr", "--schedule.min_lr"),
            ("--num-workers", "--trainer.workers"),
            ("--epocs", "--trainer.epochs"),
            ("--optimizer", "--optim.name"),
        ],
    )
    def test_other_tools_options_are_hinted_at(self, capsys, option, meant):
        name = option.partition("=")[0]
        found = error(capsys, "train", "finetune", option, "3")
        assert f"van train: there is no {name}; did you mean {meant}?" in found

    def test_hints_fit_the_recipe(self, capsys):
        assert "did you mean --trainer.steps?" in error(capsys, "train", "light_ham_digits", "--epochs", "3")
        assert "did you mean --augment.crop?" in error(capsys, "train", "light_ham_digits", "--size", "3")

    def test_every_short_and_foreign_name_leads_to_a_setting(self):
        from van.cli.train_names import _ELSEWHERE

        fields = {
            f"{section}.{name}"
            for kind in (Recipe, SegmentationRecipe)
            for section, spec in kind.sections().items()
            for name in spec.__dataclass_fields__
        }
        assert {*SHORT.values()} <= fields
        assert {setting for settings in _ELSEWHERE.values() for setting in settings} <= fields

    @pytest.mark.parametrize("recipe", ["finetune", "light_ham_digits"])
    def test_help_is_short_and_says_where_the_rest_is(self, capsys, recipe):
        with pytest.raises(SystemExit) as stop:
            main(["train", recipe, "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0
        assert len(text.splitlines()) < 80
        assert (RECIPES[recipe].__doc__ or "").splitlines()[0] in text
        assert re.search(r"--lr +--optim\.lr", text)
        assert "--help all" in text

    @pytest.mark.parametrize("recipe", ["finetune", "light_ham_digits"])
    def test_help_all_has_every_setting_and_no_text_twice(self, capsys, recipe):
        with pytest.raises(SystemExit):
            main(["train", recipe, "--help", "all"])
        text = capsys.readouterr().out
        kind = type(RECIPES[recipe]())
        for section, spec in kind.sections().items():
            for item in dataclasses.fields(spec):
                assert f"  --{section}.{item.name} [" in text
        paragraphs = re.findall(r"(?:^        .*\n)+", text, re.MULTILINE)
        assert len({*paragraphs}) == len(paragraphs)

    def test_help_of_a_section(self, capsys):
        with pytest.raises(SystemExit):
            main(["train", "finetune", "--help", "optim"])
        text = capsys.readouterr().out
        assert "--optim.lr [0.0001]" in text
        assert "--trainer.epochs" not in text
        assert "unknown topic of --help 'optm'; did you mean 'optim'?" in error(
            capsys, "train", "finetune", "--help", "optm"
        )

    def test_texts_may_speak_of_none(self):
        text = field_texts(SegmentationRecipe.sections()["model"])["checkpoint"]
        assert "None:" in text or "everything" in text
        assert not text.endswith(";")


class TestFiles:
    @pytest.fixture
    def desk(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("files")
        van.save(classifier(), folder / "classifier.safetensors")
        picture().save(folder / "a.png")
        return folder

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["predict", "C", "I", "--out", "x.xls"], ".txt, .json, .jsonl, .ndjson, .csv, or --format"),
            (["predict", "C", "I", "--out", "x"], "a name without a suffix is no format"),
            (["predict", "C", "I", "--format", "xls"], "known: table, json, jsonl, csv"),
            (["eval", "C", "--data", "digits", "--json", "x.parquet"], "name it *.json"),
            (["eval", "C", "--data", "digits", "--csv", "x.parquet"], "name it *.csv"),
            (["eval", "C", "--data", "digits", "--confusion", "x.jpg"], "name it *.png"),
            (["report", ".", "--out", "x.pdf"], "name it *.html"),
            (["export", "C", "x.parquet"], "expected .onnx, .xml, .pt2"),
            (["export", "C", "x.onnx", "--json", "x.csv"], "name it *.json"),
            (["convert", "C", "x.parquet", "--to", "van"], "expected .safetensors, .pth"),
            (["doctor", "scenes", "--sheet", "x.gif"], "name it *.png"),
            (["bench", "C", "--json", "x.xml"], "name it *.json"),
        ],
    )
    def test_a_suffix_that_is_not_written_is_refused(self, desk, tmp_path, monkeypatch, capsys, arguments, says):
        monkeypatch.chdir(tmp_path)
        known = {"C": desk / "classifier.safetensors", "I": desk / "a.png"}
        assert says in error(capsys, *[known.get(word, word) for word in arguments])
        assert not list(tmp_path.iterdir())

    def test_addresses_are_no_files(self, desk, capsys):
        found = error(capsys, "predict", desk / "classifier.safetensors", "https://example.org/cat.jpg")
        assert "https://example.org/cat.jpg: is an address; download it first" in found


class TestImages:
    @pytest.fixture
    def predict(self):
        return van.Predictor(classifier())

    def test_every_kind(self, predict, tmp_path):
        image = picture()
        image.save(tmp_path / "a.png")
        data, pixels = (tmp_path / "a.png").read_bytes(), np.asarray(image)
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        with (tmp_path / "a.png").open("rb") as file:
            kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), memoryview(data), file]
            kinds += [io.BytesIO(data), image, pixels, tensor]
            results = [predict(each) for each in kinds]
        assert {result.top for result in results} == {predict(image).top}
        several = predict([image, tmp_path / "a.png", tensor])
        assert [each.label for each in several] == [predict(image).label] * 3
        assert several[0].probability == pytest.approx(predict(image).probability, abs=1e-6)
        assert [each.top for each in predict((data,))] == [predict(image).top]
        assert predict([]) == []
        gray = np.full((9, 9), 7, np.uint8)
        assert predict(torch.from_numpy(gray)).top == predict(torch.from_numpy(gray)[None]).top == predict(gray).top

    @pytest.mark.parametrize(
        ("image", "says"),
        [
            (np.zeros((3, 4, 3), np.float32), "expected uint8 pixels, 0 … 255, as (255 * image).round() where"),
            (torch.zeros(3, 4, 4), "got a tensor of float32 with shape (3, 4, 4); expected uint8 pixels"),
            (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "give several as a list: list(images)"),
            (np.zeros((3, 40, 50), np.uint8), "expected uint8 pixels (H, W), (H, W, 1), (H, W, 3), (H, W, 4)"),
            (torch.zeros(40, 50, 3, dtype=torch.uint8), "expected uint8 pixels (H, W), (1, H, W), (3, H, W)"),
            (np.zeros((0, 3, 3), np.uint8), "with shape (0, 3, 3)"),
            (np.zeros((4, 4), np.int64), "an array of int64"),
            ("https://example.org/cat.jpg", "is an address (https://…); download it first"),
            ("s3://bucket/cat.jpg", "is an address"),
            ("data:image/png;base64,AAAA", "is an address"),
            (b"no image", "cannot be read as an image"),
            (3, "got an image of type int; expected a path, the bytes of an image file, an open file, a PIL image"),
            (None, "got an image of type NoneType"),
            ({"image": 1}, "got an image of type dict"),
        ],
    )
    def test_what_is_none_is_told_with_what_is(self, predict, image, says):
        with pytest.raises(DataError, match=re.escape(says)):
            predict(image)
        with pytest.raises(DataError, match=re.escape(says)):
            predict([picture(), image])
        good, bad = predict.predict_many([picture(), image])
        assert good.top
        assert says in bad.reason

    def test_results_are_json(self, predict):
        result = predict(picture())
        told = json.loads(json.dumps(result.to_dict()))
        assert (told["image"], told["label"], told["index"]) == ("image 0", result.label, result.index)
        assert [(each["label"], each["index"], each["probability"]) for each in told["top"]] == [*result.top]
        mask = van.Predictor(segmenter())(picture(30, 40))
        told = json.loads(json.dumps(mask.to_dict()))
        assert told["size"] == [30, 40]
        assert sum(each["share"] for each in told["classes"]) == pytest.approx(1)
        assert repr(mask).startswith("MaskPrediction(image='image 0', 30 x 40: ")
        assert "_" not in repr(result) + repr(mask) + repr(predict)


class TestEvaluate:
    def test_a_classifier(self, tmp_path):
        model = classifier(num_classes=10)
        van.save(model, tmp_path / "m.safetensors")
        found = van.evaluate(tmp_path / "m.safetensors", "digits", batch_size=64)
        assert isinstance(found, Evaluation)
        assert found["top1"] == found.top1 == dict(found)["top1"] == evaluate(model, "digits", batch_size=64).top1
        with pytest.raises(UnknownNameError, match="unknown figure 'tp1'; did you mean 'top1'"):
            found["tp1"]
        with pytest.raises(UnknownNameError, match="did you mean 'batch_size'"):
            van.evaluate(model, "digits", batchsize=3)

    def test_a_segmenter(self, tmp_path):
        model = segmenter(num_classes=11)
        van.save(model, tmp_path / "m.safetensors")
        data = Scenes("val", count=2, size=32)
        looks = {"scales": (0.5, 1.0), "flip": True, "resize": None}
        found = van.evaluate(tmp_path / "m.safetensors", data, **looks)
        assert isinstance(found, MaskEvaluation)
        assert 0 <= found["mIoU"] <= 1
        assert (found.inference.scales, found.inference.flip, found.count) == ((0.5, 1.0), True, 2)
        with pytest.raises(ConfigError, match="batch_size would do nothing: segmenters take one image at a time"):
            van.evaluate(model, data, batch_size=3)
        with pytest.raises(UnknownNameError, match="unknown option of a segmenter 'scale'; did you mean 'scales'"):
            van.evaluate(model, data, scale=3)

    def test_the_module_stays_a_module(self):
        import van.evaluate as module

        from van.inference.evaluate import evaluate_many

        assert van.evaluate is module
        assert module.evaluate is evaluate
        assert module.evaluate_many is evaluate_many


class TestTraining:
    def test_from_python(self, tmp_path):
        data = make_stripes(tmp_path / "data", count=4)
        settings = {"data.path": data, "data.size": 32, **SLIM, "trainer.workers": 0, "trainer.progress": "none"}
        settings |= {"schedule.warmup_epochs": 0, "optim.lr_batch": None}
        trainer = {"epochs": 1, "batch_size": 4, "device": "cpu", "out": str(tmp_path / "run")}
        folder = van.train("finetune", {**settings, **{f"trainer.{name}": value for name, value in trainer.items()}})
        assert folder == tmp_path / "run"
        assert van.evaluate(folder / "model.safetensors", data, split="all")["count"] == 8
        assert json.loads((folder / "summary.json").read_text())

    def test_settings_by_name_and_by_section(self):
        one = configured("finetune", {"optim.lr": 1e-3, "trainer.epochs": 2, "name": "mine"})
        two = configured(RECIPES["finetune"](), {"optim": {"lr": 1e-3}, "trainer": {"epochs": 2}, "name": "mine"})
        assert one == two
        assert one.optim.lr == 1e-3
        assert configured("light_ham_digits", {"trainer.seed": 5}).trainer.seed == 5
        for wrong in ({"lr": 1}, {"optim.lrr": 1}, {"optm": {"lr": 1}}, {"optim": 3}):
            with pytest.raises(UnknownNameError, match="unknown"):
                configured("finetune", wrong)
        with pytest.raises(ConfigError, match="expected a name, as 'finetune', or a Recipe"):
            configured(3, {})  # type: ignore[arg-type]
        with pytest.raises(UnknownNameError, match="did you mean 'finetune'"):
            van.train("finetun")

    def test_the_module_stays_a_module(self):
        import van.train as module
        from van.train import run

        assert van.train is module
        assert callable(run)

    def test_import_stays_light(self):
        code = "import sys, van; assert 'evaluate' in dir(van); print('torch' in sys.modules)"
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
        )


def test_help_and_errors_name_options_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        main(["help", "predict"])
    text = capsys.readouterr().out
    assert "--resume" in text
    assert "default: null" not in text
    assert "default: False" not in text
    assert "arguments are required: --data; van eval --help lists them all" in error(capsys, "eval", "x")
    assert "required: destination, --to;" in error(capsys, "convert", "x")
    assert "unknown command 'predic'; did you mean 'predict'?" in error(capsys, "help", "predic")


def test_python_m_van_is_van():
    import importlib.metadata

    (entry,) = [each for each in importlib.metadata.entry_points(group="console_scripts") if each.name == "van"]
    assert entry.load() is main
    done = subprocess.run([sys.executable, "-m", "van", "evl"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("van: error: unknown command 'evl'; did you mean 'eval'?")


@pytest.mark.promise("13")
@pytest.mark.parametrize("form", ["csv", "table", "jsonl"])
def test_predictions_are_printed_in_a_notebook(tmp_path, form):
    model, image = tmp_path / "m.safetensors", tmp_path / "a.png"
    van.save(classifier(), model)
    picture().save(image)
    with redirect_stdout(io.StringIO()) as printed:  # has no buffer for bytes, as a notebook's has not
        assert main(["predict", str(model), str(image), "--format", form]) == 0
    assert str(image) in printed.getvalue().replace("\n", "")


@pytest.mark.promise("20")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "1.5"), "trainer.epochs is 1.5; expected a whole number"),
        (("--lr", "nan"), "optim.lr is nan; expected a number"),
        (("--workers", "x"), "trainer.workers is x; expected a whole number, null"),
        (("--size", "abc"), "data.size is abc; expected a whole number, tuple[int, int], null"),
        (("--out", ""), "trainer.out '' is an empty path"),
    ],
)
def test_values_of_the_wrong_kind_are_said_in_words(capsys, words, message):
    assert message in error(capsys, "train", "finetune", "--data", "digits", *words)
