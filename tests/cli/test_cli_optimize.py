"""`--optimize`, `--no-optimize` and what happens without either."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from metadata import set_metadata
from PIL import Image
from tiny_segmentation import SLIM_NETWORK

import van
from van import models, ops
from van.cli import main
from van.cli.batch import placed
from van.data import scenes
from van.errors import ConfigError
from van.inference.evaluate import evaluate
from van.inference.optimizing import FEW

SIZES = {name: SLIM_NETWORK[name] for name in ("embed_dims", "depths", "mlp_ratios")}
SLIM = {
    "van_b0": SIZES,
    "light_ham_van_b0_d256": {"strides": (4, 1, 2, 2), **SLIM_NETWORK},
    "retinanet_van_b0": {**SIZES, "channels": 16, "head_convs": 1, "min_size": 64, "max_size": 64},
}
CLASSES = {"van_b0": 10, "light_ham_van_b0_d256": 11, "retinanet_van_b0": 10}
DATA = {"van_b0": "digits"}


@pytest.fixture(autouse=True)
def _kernel_served(monkeypatch):
    """A processor whose kernel computes folded networks, whatever this one is; 12 scenes in place of 400."""
    monkeypatch.setattr(ops, "path_taken", lambda _: True)
    monkeypatch.setitem(scenes.COUNTS, "val", 12)


@pytest.fixture
def optimised(monkeypatch):
    """The networks that were optimised."""
    found = []
    optimize = models.optimize
    monkeypatch.setattr(models, "optimize", lambda model, **options: found.append(model) or optimize(model, **options))
    return found


@pytest.fixture(params=SLIM)
def checkpoint(request, tmp_path):
    return saved(request.param, tmp_path)


@pytest.fixture
def classifier(tmp_path):
    return saved("van_b0", tmp_path)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for number in range(FEW):
        pixels = draw.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


def saved(name, folder):
    """A checkpoint that answers several classes."""
    model = van.create_model(name, seed=1, num_classes=CLASSES[name], **SLIM[name])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 and parameter.numel() == CLASSES[name]:
                parameter.zero_()
    if name == "van_b0":
        set_metadata(model, classes=tuple("0123456789"), preprocess=model.preprocess.with_overrides(size=16))
    else:
        set_metadata(model, provenance={"inference": {"resize": None}, "split": {"scene_size": 32}})
    van.save(model, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def shown(evaluation):
    return {heading: text for heading, text in evaluation.columns().items() if heading != "images/s"}


def test_figures_are_the_same_to_the_last_printed_digit(checkpoint):
    data = DATA.get(checkpoint.stem, "scenes")
    plain, fast = (evaluate(checkpoint, data, optimize=optimize) for optimize in (False, "auto"))
    assert (plain.optimized, fast.optimized) == (False, True)
    assert (plain.to_dict()["optimized"], fast.to_dict()["optimized"]) == (False, True)
    assert shown(fast) == shown(plain)


@pytest.mark.parametrize(("option", "ran"), [([], True), (["--optimize"], True), (["--no-optimize"], False)])
def test_eval_says_which_network_ran(classifier, tmp_path, option, ran):
    assert main(["eval", str(classifier), "--data", "digits", "--json", str(tmp_path / "e.json"), *option]) == 0
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["results"][0]["optimized"] is ran
    assert content["command"].endswith(" ".join(["e.json", *option])) or option[0] in content["command"]


@pytest.mark.long
def test_devices_of_one_evaluation_share_the_optimised_network(classifier, optimised):
    assert evaluate(classifier, "digits", device="cpu,cpu").optimized
    assert len(optimised) == 1


def test_networks_for_other_devices_are_left_as_they_are(classifier, optimised):
    with pytest.raises(ConfigError, match="cannot be used"):
        evaluate(classifier, "digits", devices=("cpu", "meta"))
    assert not optimised


@pytest.mark.parametrize(
    ("ray", "device", "option", "wanted"),
    [
        (None, "cuda", None, {"device": "cuda", "optimize": "auto"}),
        ("", "cpu", None, {"device": "cpu", "optimize": "auto"}),
        ("", "cuda", None, {"device": "cpu", "optimize": False}),
        ("", "cuda", "optimize", {"device": "cpu", "optimize": True}),
    ],
)
def test_actors_on_gpus_get_the_network_as_it_is(ray, device, option, wanted):
    given = {"optimize": option == "optimize", "no_optimize": False}
    assert placed(SimpleNamespace(ray=ray, device=device, **given)) == wanted


@pytest.mark.parametrize(
    ("count", "option", "wanted"),
    [
        (1, [], 0),
        (FEW, [], 1),
        (1, ["--optimize"], 1),
        (FEW, ["--no-optimize"], 0),
        (FEW, ["--precision", "bf16"], 1),
    ],
)
def test_predict_optimises_for_more_than_a_few_images(classifier, pictures, optimised, count, option, wanted):
    images = [str(pictures / f"{number}.png") for number in range(count)]
    assert main(["predict", str(classifier), *images, *option]) == 0
    assert len(optimised) == wanted


def test_images_in_a_folder_are_counted(classifier, pictures, optimised):
    assert main(["predict", str(classifier), str(pictures)]) == 0
    assert len(optimised) == 1


def test_features(classifier, pictures, optimised, tmp_path):
    for option in ([], ["--no-optimize"]):
        assert main(["embed", str(classifier), str(pictures), "--out", str(tmp_path / "f.npy"), *option]) == 0
    assert len(optimised) == 1


def test_explanations_are_of_the_network_as_it_is(classifier, pictures, optimised, tmp_path):
    assert main(["explain", str(classifier), str(pictures / "0.png"), "--out", str(tmp_path / "e"), "--erf"]) == 0
    assert not optimised


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "{checkpoint}", "x.png"],
        ["eval", "{checkpoint}", "--data", "digits"],
        ["embed", "{checkpoint}", "x.png", "--out", "x.npy"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_both_options_at_once_are_refused(classifier, capsys, arguments):
    words = [word.format(checkpoint=classifier) for word in arguments]
    assert main([*words, "--optimize", "--no-optimize"]) == 2
    assert "--optimize and --no-optimize exclude each other" in capsys.readouterr().err
