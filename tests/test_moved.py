"""Import paths of earlier versions."""

import importlib
import subprocess
import sys

import pytest

from van.moved import MOVED


@pytest.mark.parametrize("before", sorted(MOVED))
def test_an_earlier_path_gives_the_module_that_took_its_place(before):
    sys.modules.pop(before, None)
    if before == "van.evaluate":  # still a public name
        module = importlib.import_module(before)
    else:
        with pytest.warns(DeprecationWarning, match=f"{before} is {MOVED[before]} now"):
            module = importlib.import_module(before)
    assert module is importlib.import_module(MOVED[before])
    assert module.__spec__.name == module.__name__ == MOVED[before]


def test_names_that_users_may_have_written():
    code = (
        "from van.engines import open_exported, find_checkpoints\n"
        "from van.variants import VARIANTS, VanConfig\n"
        "from van.preprocess import Preprocess\n"
        "from van.segmenters import SEGMENTERS\n"
        "from van.predict import Predictor, Prediction, MaskPrediction\n"
        "from van.segment import Inference, predict_mask\n"
        "import van; assert VanConfig is van.VanConfig and Predictor is van.Predictor\n"
        "from van.evaluate import evaluate, evaluate_many, Evaluation; assert callable(van.evaluate)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_quickstart_runs_by_its_earlier_name():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "van.quickstart", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--epochs" in done.stdout
