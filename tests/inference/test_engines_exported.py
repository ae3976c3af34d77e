"""Exported files run like checkpoints: Predictor, van predict, van eval, van info; wrong files are told."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from exported import CLASSES, PALETTE, PICTURES, SUFFIX, classifier, segmenter

import van
from van.checkpoints.find import find_checkpoints
from van.cli import main
from van.data.scenes import Scenes
from van.errors import CheckpointError, ConfigError, MissingExtraError
from van.inference.engines.exported import open_exported
from van.inference.engines.openvino_engine import the_core
from van.inference.evaluate import evaluate
from van.inference.session import open_classifier, open_segmenter

pytestmark = pytest.mark.long

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch.export"}


@pytest.fixture(scope="module")
def models():
    return {"classifier": classifier(), "segmenter": segmenter()}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, models):
    """classifier and segmenter in every format, and an image."""
    folder = tmp_path_factory.mktemp("exported")
    for name, model in models.items():
        van.save(model, folder / f"{name}.safetensors")
        for suffix in SUFFIX.values():
            van.export(model, folder / f"{name}{suffix}", images=PICTURES[:1])
    PICTURES[0].save(folder / "photo.png")
    return folder


@pytest.fixture(params=SUFFIX)
def kind(request):
    return request.param


def test_a_file_carries_all_that_belongs_to_a_classifier(kind, desk, models):
    told = open_exported(desk / f"classifier{SUFFIX[kind]}").description
    model = models["classifier"]
    assert (told.task, told.num_classes, told.in_chans) == ("classification", 5, 3)
    assert (told.classes, told.preprocess, told.provenance) == (CLASSES, model.preprocess, model.provenance)
    assert told.config == model.config
    assert told.to_dict()["config"] == model.config.to_dict()
    assert told.version == van.__version__


def test_a_file_carries_all_that_belongs_to_a_segmenter(kind, desk, models):
    told = open_exported(desk / f"segmenter{SUFFIX[kind]}").description
    assert (told.task, told.classes, told.palette, told.ignore_index) == ("segmentation", CLASSES, PALETTE, 255)
    assert told.inference == {"resize": None, "window": 48, "stride": 32}
    assert told.config == models["segmenter"].config
    assert told.to_dict()["segmenter"]["ham_rank"] == 4


def test_a_signal_finds_its_stack_after_openvino_was_used_twice(desk):
    script = """
import gc, os, signal, sys
from van.engines import open_exported
engines = [open_exported(sys.argv[1]), open_exported(sys.argv[1])]
while engines:
    engines.pop(0)
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGTERM)
"""
    command = [sys.executable, "-c", script, desk / "classifier.xml"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "heard\n"


def test_predictor_labels_like_the_network(kind, desk, models):
    alone = desk.parent / f"alone_{kind}"  # no side file is needed
    alone.mkdir()
    for file in desk.glob("classifier.*"):
        if file.suffix in (SUFFIX[kind], ".bin"):
            shutil.copy(file, alone)
    predict = van.Predictor(alone / f"classifier{SUFFIX[kind]}")
    want = van.Predictor(models["classifier"])
    for image in PICTURES:
        got, expected = predict(image), want(image)
        assert got.label in CLASSES
        assert [index for _, index, _ in got.top] == [index for _, index, _ in expected.top]
        assert got.probability == pytest.approx(expected.probability, abs=1e-5)
    assert len(list(predict.predict_many(PICTURES))) == 3


def test_predictor_paints_like_the_network(kind, desk, models):
    predict = van.Predictor(desk / f"segmenter{SUFFIX[kind]}")
    opened = open_segmenter(models["segmenter"])
    assert predict.processor.inference == opened.processor().inference
    assert predict.processor.inference.window == 48
    got = predict(PICTURES[0])
    assert (got.classes, got.palette) == (CLASSES, PALETTE)
    assert (got.mask == van.Predictor(opened)(PICTURES[0]).mask).mean() > 0.999
    whole = van.Predictor(desk / f"segmenter{SUFFIX[kind]}", inference={"window": None, "flip": True})
    assert whole(PICTURES[0]).mask.shape == (50, 70)


def test_evaluation_scores_like_the_network(kind, desk, models):
    pytest.importorskip("sklearn")
    many = classifier(num_classes=10)
    path = desk / f"digits{SUFFIX[kind]}"
    van.export(many, path, images=PICTURES[:1])
    got, want = evaluate(path, "digits"), evaluate(many, "digits")
    assert (got.engine, want.engine) == (RUNTIMES[kind], "torch")
    assert got.count == want.count > 300
    assert np.array_equal(got.confusion, want.confusion)
    assert got.loss == pytest.approx(want.loss, abs=1e-4)


def test_segmentation_scores_like_the_network(desk):
    options = {"split": "val", "overrides": {"window": None, "stride": None}}
    data = Scenes("val", size=64, count=3)
    many = segmenter(num_classes=len(data.classes))
    van.export(many, desk / "scenes.onnx", images=PICTURES[:1])
    got = evaluate(desk / "scenes.onnx", data, **options)
    want = evaluate(many, data, **options)
    assert np.abs(got.matrix.counts - want.matrix.counts).sum() < 0.001 * want.matrix.counts.sum()
    with pytest.raises(ConfigError, match="seeds draws the bases of a Hamburger, which this segmenter does not have"):
        evaluate(desk / "scenes.onnx", data, seeds=2)
    with pytest.raises(ConfigError, match="device 'cuda' is for checkpoints"):
        evaluate(desk / "scenes.onnx", data, devices=("cuda",))


def test_the_commands_take_exported_files(kind, desk, capsys, tmp_path):
    path = str(desk / f"classifier{SUFFIX[kind]}")
    assert main(["predict", path, str(desk / "photo.png"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] in CLASSES
    assert main(["info", path]) == 0
    out = capsys.readouterr().out
    assert RUNTIMES[kind] in out
    assert "5: ant, bee, cat, dog, élan" in out
    assert "48 x 40" in out
    assert main(["info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == list(CLASSES)


def test_the_commands_take_exported_segmenters(desk, capsys, tmp_path):
    arguments = ["predict", str(desk / "segmenter.onnx"), str(desk / "photo.png"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert (tmp_path / "out" / "photo-mask.png").exists()
    assert main([*arguments, "--precision", "bf16"]) == 2
    assert "precision 'bf16' is for checkpoints" in capsys.readouterr().err


def test_van_eval_mixes_files_and_checkpoints(desk, capsys, tmp_path):
    pytest.importorskip("sklearn")
    many = classifier(num_classes=10)
    van.save(many, tmp_path / "m.safetensors")
    van.export(many, tmp_path / "m.pt2", images=PICTURES[:1])
    files = [str(tmp_path / "m.safetensors"), str(tmp_path / "m.pt2")]
    assert main(["eval", *files, "--data", "digits", "--json", str(tmp_path / "out.json")]) == 0
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert {each["engine"] for each in results} == {"torch", "torch.export"}
    assert results[0]["top1"] == results[1]["top1"]
    assert "difference" not in capsys.readouterr().out


# --- what does not apply is refused, never ignored


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda"}, "device 'cuda' is for checkpoints; exported files run on the cpu here"),
        ({"precision": "bf16"}, "precision 'bf16' is for checkpoints"),
        ({"ema": True}, "ema is for checkpoints"),
        ({"test_time_pool": True}, "test_time_pool is for checkpoints"),
        ({"optimize": True}, "optimize is for checkpoints"),
        ({"mean": (0.5,), "std": (0.5,)}, "takes images of 3 channel"),
        ({"inference": {"flip": True}}, "inference belongs to segmenters"),
    ],
)
def test_options_of_checkpoints_are_refused(options, reason, desk):
    with pytest.raises(ConfigError, match=reason):
        van.Predictor(desk / "classifier.pt2", **options)


def test_options_of_the_other_task_and_engine_are_refused(desk):
    with pytest.raises(ConfigError, match="optimize is for checkpoints"):
        van.Predictor(desk / "segmenter.pt2", optimize=True)
    with pytest.raises(ConfigError, match="size belongs to classifiers"):
        van.Predictor(desk / "segmenter.pt2", size=32)
    with pytest.raises(ConfigError, match="engine 'keras' takes checkpoints"):
        evaluate(desk / "classifier.pt2", "digits", engine="keras")
    with pytest.raises(ConfigError, match="is a segmenter; expected a classifier"):
        open_classifier(desk / "segmenter.pt2")
    with pytest.raises(ConfigError, match="is a classifier; expected a segmenter"):
        open_segmenter(desk / "classifier.pt2")


def test_preprocessing_can_be_overridden(desk):
    predict = van.Predictor(desk / "classifier.pt2", size=64)
    assert predict.opened.preprocess.size == (64, 64)
    assert predict(PICTURES[0]).label in CLASSES


# --- files


def test_wrong_arrays_are_told(kind, desk):
    engine = open_exported(desk / f"classifier{SUFFIX[kind]}")
    for shape in ((1, 4, 32, 32), (3, 32, 32)):
        with pytest.raises(ConfigError, match=r"expects \(N, 3, H, W\)"):
            engine.run(np.zeros(shape, np.float32))
    twice = engine.run(np.zeros((2, 32, 32, 3), np.float64).transpose(0, 3, 1, 2))["logits"]
    assert twice.dtype == np.float32
    assert twice.shape == (2, 5)


def test_results_are_the_callers_own(kind, desk):
    engine = open_exported(desk / f"classifier{SUFFIX[kind]}")
    first = engine.run(np.zeros((1, 3, 32, 32), np.float32))["logits"]
    kept = first.copy()
    engine.run(np.ones((1, 3, 32, 32), np.float32))
    assert np.array_equal(first, kept)


def test_threads(kind, desk):
    path = desk / f"classifier{SUFFIX[kind]}"
    assert open_exported(path).threads == torch.get_num_threads()
    with pytest.raises(ConfigError, match="threads is 0"):
        open_exported(path, threads=0)


def test_broken_and_missing_files_are_told(kind, desk, tmp_path):
    suffix = SUFFIX[kind]
    broken = tmp_path / f"broken{suffix}"
    with pytest.raises(CheckpointError, match="does not exist"):
        open_exported(broken)
    whole = (desk / f"classifier{suffix}").read_bytes()
    shutil.copy(desk / "classifier.bin", tmp_path / "broken.bin")
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        broken.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cannot be read as .*export it again|holds no description"):
            open_exported(broken)


def test_foreign_files_are_refused(tmp_path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, str(tmp_path / "foreign.pt2"))
    import openvino

    openvino.save_model(openvino.convert_model(program), tmp_path / "foreign.xml")
    torch.onnx.export(program, dynamo=True, verbose=False).save(str(tmp_path / "foreign.onnx"))
    for suffix in SUFFIX.values():
        with pytest.raises(CheckpointError, match="holds no description of its network"):
            open_exported(tmp_path / f"foreign{suffix}")


def test_weights_of_another_file_are_refused(desk, tmp_path):
    shutil.copy(desk / "classifier.xml", tmp_path / "m.xml")
    with pytest.raises(CheckpointError, match=r"m\.bin does not exist"):
        open_exported(tmp_path / "m.xml")
    weights = bytearray((desk / "classifier.bin").read_bytes())
    weights[100] ^= 1
    (tmp_path / "m.bin").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"m\.bin is not the file that m\.xml was written with"):
        open_exported(tmp_path / "m.xml")


def test_a_description_shows_each_fact_once():
    from van.configs.metadata import ModelMetadata
    from van.inference.description import Description

    inference = {"resize": None, "window": 48, "stride": 32}
    metadata = ModelMetadata(provenance={"source": "x", "inference": inference})
    description = Description(config=segmenter().config, metadata=metadata, inference=inference)
    shown = [what for what, _ in description.rows()]
    assert shown.count("inference") == 1


def test_a_description_from_another_world_is_told(desk):
    from van.inference.description import Description

    text = open_exported(desk / "classifier.pt2").description.to_json()
    for spoilt in ("[]", text.replace('"task"', '"tsk"'), text.replace("classification", "detection")):
        with pytest.raises(CheckpointError, match=r"m\.onnx"):
            Description.from_json(spoilt, "m.onnx")


def test_a_missing_runtime_names_its_extra(desk, monkeypatch):
    monkeypatch.setattr(
        "van.inference.engines.openvino_engine.the_core", the_core.__wrapped__
    )  # not the one that is kept
    for package, suffix in (("onnxruntime", ".onnx"), ("openvino", ".xml")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"{package} is needed.*\[export\]"):
            open_exported(desk / f"classifier{suffix}")


def test_engines_go_to_other_processes_by_their_path(kind, desk):
    engine = open_exported(desk / f"classifier{SUFFIX[kind]}", threads=1)
    again = pickle.loads(pickle.dumps(engine))
    x = np.ones((1, 3, 32, 32), np.float32)
    assert again.threads == 1
    assert np.array_equal(again.run(x)["logits"], engine.run(x)["logits"])


def test_an_exported_file_is_no_checkpoint(desk):
    for suffix in SUFFIX.values():
        with pytest.raises(CheckpointError, match="is an exported network, not a checkpoint"):
            van.load(desk / f"classifier{suffix}")


def test_the_weights_beside_an_xml_file_are_no_checkpoint(desk, tmp_path):
    for name in ("classifier.xml", "classifier.bin", "classifier.safetensors"):
        shutil.copy(desk / name, tmp_path)
    assert find_checkpoints([tmp_path]) == [str(tmp_path / "classifier.safetensors")]
    assert van.load(tmp_path).num_classes == 5
