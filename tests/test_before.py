"""Files that version 0.1 wrote load, compute what they computed, and go on where they stopped (support/before/)."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from before_facts import command_facts, model_facts, predictor_facts, resumed_facts

HERE = Path(__file__).parent / "support" / "before"
EXPECTED = json.loads((HERE / "expected.json").read_text())
CHECKPOINTS = [name for name, facts in EXPECTED.items() if "state" in facts]
EXPORTED = [name for name in EXPECTED if name.endswith(".onnx")]
INTERRUPTED = [name for name in EXPECTED if name.endswith("_interrupted")]
# Without the vector units of the processor that wrote expected.json the numbers differ by 1e-6, those of resumed runs
# by 7e-4; a run that forgets its momentum by 5e-3.
FORWARD = 1e-5
TRAINED = 2e-3

pytestmark = pytest.mark.filterwarnings("ignore::van.errors.VanNotice")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("before")
    with tarfile.open(HERE / "fixtures.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root


def assert_equal(got, want, tolerance, where=""):
    """Floating-point numbers to a tolerance (another processor adds in another order), everything else exactly."""
    assert type(got) is type(want), where
    if isinstance(want, dict):
        assert sorted(got) == sorted(want), where
        for key in want:
            assert_equal(got[key], want[key], tolerance, f"{where}/{key}")
    elif isinstance(want, list):
        assert len(got) == len(want), where
        for number, pair in enumerate(zip(got, want, strict=True)):
            assert_equal(*pair, tolerance, f"{where}/{number}")
    elif isinstance(want, float):
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance), where
    else:
        assert got == want, where


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_computes_what_it_did(name, files):
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    assert_equal(model_facts(files / name), EXPECTED[name], FORWARD)


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_file_computes_what_it_did(name, files):
    pytest.importorskip("onnxruntime")
    assert_equal(predictor_facts(files / name), EXPECTED[name], FORWARD)


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_goes_on_as_it_would_have(name, files, tmp_path):
    shutil.copytree(files / name, tmp_path / name)
    assert_equal(resumed_facts(tmp_path / name), EXPECTED[name], TRAINED)


def test_the_command_line_writes_the_same_keys_and_scores(files, tmp_path):
    pytest.importorskip("onnxruntime")
    assert_equal(command_facts(files, tmp_path), EXPECTED["commands"], FORWARD)
