"""A session: a model that is opened once, whatever its task."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import van
from van import checkpoints, models
from van.cli import main
from van.errors import CheckpointError, ConfigError, DataError, VanNotice
from van.inference.engines import records
from van.inference.evaluate import evaluate_many
from van.inference.predictor import Predictor
from van.inference.session import Session, open_classifier, open_segmenter, open_session
from van.tasks.classification.output import Prediction

TINY = {"embed_dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "mlp_ratios": (1, 1, 1, 1)}


def classifier(seed=0):
    model = van.create_model("van_b0", seed=seed, num_classes=10, **TINY)
    model.preprocess = model.preprocess.with_overrides(size=16)
    return model


def segmenter():
    head = {"channels": 32, "ham_channels": 32, "ham_rank": 4}
    model = van.create_model("light_ham_van_b0_d256", seed=0, num_classes=11, **head, **TINY)
    model.provenance = {"inference": {"resize": None}}
    return model


MODELS = {"classifier": classifier, "segmenter": segmenter}


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def opens(monkeypatch):
    """Calls of what finds a checkpoint and of what reads one."""
    calls = []

    def counted(module, name):
        whole = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **more: calls.append(name) or whole(*args, **more))

    counted(models, "find")
    counted(checkpoints, "read")
    return calls


@pytest.mark.parametrize("kind", MODELS)
def test_a_command_reads_its_checkpoint_once(kind, opens, picture, tmp_path):
    van.save(MODELS[kind](), tmp_path / "m.safetensors")
    commands = {
        "predict": ["predict", tmp_path / "m.safetensors", picture, "--out", tmp_path / "out.csv"],
        "eval": ["eval", tmp_path / "m.safetensors", "--data", "digits", "--split", "all", "--size", "8"],
    }
    if kind == "segmenter":
        commands["predict"][-1] = tmp_path / "out"
        commands["eval"] = [*commands["eval"][:2], "--data", make_data(tmp_path)]
    for command in commands.values():
        opens.clear()
        assert main([*map(str, command)]) == 0
        assert sorted(opens) == ["find", "read"]


def make_data(tmp_path):
    """A labelled picture in either split."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        for name, mode in (("images", "RGB"), ("masks", "L")):
            (root / name / split).mkdir(parents=True)
            Image.new(mode, (30, 24), 3 if mode == "L" else (9, 9, 9)).save(root / name / split / f"{split}.png")
    names = ", ".join(f"c{number}" for number in range(11))
    (root / "dataset.yaml").write_text(f"names: [{names}]\nimages: images\nmasks: masks\n")
    return root


@pytest.mark.long
@pytest.mark.parametrize("kind", MODELS)
def test_an_exported_file_is_opened_once(kind, monkeypatch, picture, tmp_path):
    van.export(MODELS[kind](), tmp_path / "m.onnx", images=[Image.open(picture)])
    from van.inference.engines import exported_engine

    calls, whole = [], records.record_of
    monkeypatch.setattr(exported_engine, "record_of", lambda path: calls.append(path) or whole(path))
    assert main(["predict", str(tmp_path / "m.onnx"), str(picture), "--out", str(tmp_path / "out")]) in (0, 2)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", MODELS)
def test_a_session_runs_where_a_source_is_expected(kind, picture):
    session = open_session(MODELS[kind]())
    assert isinstance(session, Session)
    assert session.task.noun == kind
    assert open_session(session) is session
    one, two = Predictor(session)(picture), Predictor(MODELS[kind]())(picture)
    assert one.to_dict() == two.to_dict()


def test_what_is_not_given_stays_as_the_session_has_it(picture):
    session = open_classifier(classifier(), overrides={"size": 24})
    assert Predictor(session, top=2).processor.preprocess.size == (24, 24)
    assert Predictor(session, size=32).processor.preprocess.size == (32, 32)
    with pytest.raises(ConfigError, match="test_time_pool changes the network, and Classifier is open already"):
        Predictor(session, test_time_pool=True)


def test_a_model_of_the_other_task_is_refused():
    with pytest.raises(ConfigError, match="Segmenter is a segmenter; expected a classifier"):
        open_classifier(segmenter())
    with pytest.raises(ConfigError, match="Classifier is a classifier; expected a segmenter"):
        open_segmenter(classifier())
    with pytest.raises(ConfigError, match="no classification head"):
        open_session(torch.nn.Identity())


class Other(torch.nn.Module):
    """A classifier of another package."""

    num_classes = 3

    def forward(self, images):
        return images.mean((2, 3))


def test_a_network_of_another_package_classifies_by_its_number_of_classes(picture):
    assert len(Predictor(Other())(picture).top) == 3


def test_a_compiled_classifier_is_called_as_it_was_compiled(picture):
    calls = []

    def backend(graph, examples):
        calls.append(1)
        return graph.forward

    model = classifier().eval()
    want = Predictor(model)(picture)
    got = Predictor(torch.compile(model, backend=backend))(picture)
    assert calls
    assert got.label == want.label


class TestDrawing:
    @pytest.mark.parametrize("form", ["path", "bytes", "file", "pixels", "image"])
    def test_a_prediction_reads_its_image_again(self, picture, form):
        image = Image.open(picture)
        forms = {"path": picture, "bytes": picture.read_bytes(), "pixels": np.asarray(image), "image": image}
        with picture.open("rb") as file:
            drawn = Predictor(classifier())({**forms, "file": file}[form]).draw()
        assert drawn.mode == "RGB"
        assert drawn.width >= 30
        assert drawn.height > 24
        assert drawn.crop((0, 0, 30, 24)).tobytes() == image.convert("RGB").tobytes()

    def test_an_image_that_is_gone(self, picture):
        prediction = Predictor(classifier())(picture)
        picture.unlink()
        with pytest.raises(DataError, match="no such image"):
            prediction.draw()
        with pytest.raises(DataError, match="is not there to be drawn"):
            Prediction(image="a", top=(("cat", 0, 1.0),)).draw()

    def test_a_label_map_is_painted(self, picture):
        result = Predictor(segmenter(), opacity=1.0)(picture)
        assert result.draw().tobytes() == result.overlay(1.0).tobytes() != result.overlay(0.0).tobytes()


class TestNotices:
    def test_several_checkpoints_are_named(self, tmp_path):
        for number in range(2):
            model = classifier(number)
            model.classes = tuple("abcdefghij")
            van.save(model, tmp_path / f"{number}.safetensors")
        with pytest.warns(VanNotice) as notices:
            evaluate_many(tmp_path, "digits", size=8)
        texts = [str(each.message) for each in notices]
        for number in range(2):
            path = tmp_path / f"{number}.safetensors"
            assert any(text.startswith(f"{path}: ") and "matched by position" in text for text in texts)

    @pytest.mark.parametrize("verb", ["eval", "predict"])
    def test_a_run_without_a_model_yet(self, verb, tmp_path, picture, capsys):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "recipe.yaml").write_text("name: x\n")
        arguments = [str(picture)] if verb == "predict" else ["--data", "digits"]
        assert main([verb, str(tmp_path / "run"), *arguments]) == 2
        assert "has written no" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        open_session(tmp_path / "x.pth")


def test_classes_of_a_session_can_be_replaced():
    session = open_session(classifier())
    assert session.classes is None
    assert session.label(3) == "3"
    named = session.with_metadata(classes=tuple("abcdefghij"))
    assert (named.label(3), replace(named).classes[0], session.classes) == ("d", "a", None)
