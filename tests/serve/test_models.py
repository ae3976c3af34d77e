"""How models are opened for an engine: exported at the start, or as the files that they are."""

import numpy as np
import pytest
from exported import classifier
from served import picture

import van
from van.errors import ConfigError
from van.serve.http.models import ModelOptions, exported, open_models, workspace
from van.tasks.comparison import Comparison

pytestmark = pytest.mark.long  # every test exports


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint and exported files of the same network."""
    folder = tmp_path_factory.mktemp("engines")
    van.save(classifier(), folder / "tiny.safetensors")
    van.export(classifier(), folder / "tiny.onnx")
    return folder


def opened(source, **options):
    chosen = ModelOptions(**options)
    with workspace([str(source)], chosen) as folder:
        made = exported(["tiny"], [str(source)], chosen, folder)
        found = open_models(["tiny"], made, chosen)["tiny"]
        yield found, folder
    assert folder is None or not folder.exists()


@pytest.mark.parametrize(("engine", "runtime"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_checkpoint_is_exported_into_a_folder_that_is_removed(files, engine, runtime):
    for predict, folder in opened(files / "tiny.safetensors", engine=engine):
        assert predict.opened.runtime == runtime
        assert list(folder.iterdir())
        wanted = van.Predictor(files / "tiny.safetensors")(picture())
        found = predict(picture())
        assert found.label == wanted.label
        assert np.isclose(found.probability, wanted.probability, atol=1e-4)


def test_a_checkpoint_is_quantised_after_calibration(files, monkeypatch):
    monkeypatch.setattr(Comparison, "agreement", lambda *_: 1.0)  # of a network that nobody trained
    for predict, _ in opened(files / "tiny.safetensors", engine="int8", calibration="digits"):
        assert predict.opened.engine.description.options["precision"] == "int8"


@pytest.mark.parametrize("engine", [None, "onnx"])
def test_an_exported_file_is_opened_as_it_is(files, engine):
    for predict, folder in opened(files / "tiny.onnx", engine=engine):
        assert (predict.opened.runtime, folder) == ("onnxruntime", None)


@pytest.mark.parametrize(("engine", "more"), [("torch", {}), ("openvino", {}), ("int8", {"calibration": "digits"})])
def test_an_exported_file_for_another_engine_is_refused(files, engine, more):
    with pytest.raises(ConfigError, match="onnxruntime"):
        next(opened(files / "tiny.onnx", engine=engine, **more))


@pytest.mark.parametrize("optimize", [True, False])
def test_torch_is_optimised_unless_that_is_refused(files, optimize):
    for predict, folder in opened(files / "tiny.safetensors", optimize=optimize):
        assert folder is None
        stage = type(predict.opened.engine.model.backbone.stages[0])
        assert (stage is type(van.load(files / "tiny.safetensors").backbone.stages[0])) is not optimize
