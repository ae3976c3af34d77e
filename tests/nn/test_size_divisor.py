"""Sides are rounded to a multiple as each method's published test does it: HamNet's are left alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_segmentation import make_pictures, slim_segmentation

import van
from van.cli import main
from van.configs.segmenter import METHODS, SIZE_DIVISORS
from van.errors import ConfigError, DataError
from van.exporting import describe
from van.inference.description import Description
from van.inference.session import open_segmenter
from van.recipes import get_recipe
from van.tasks.segmentation.processor import inference_for
from van.tasks.segmentation.training import inference_of_recipe
from van.tasks.segmentation.views import Inference
from van.train import run

SIZES = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2), "channels": 32}
NAMES = {method: f"{method}_van_b0" for method in METHODS}


def slim(method="hamnet", **record):
    options = dict(SIZES) | ({"ham_channels": 32, "ham_rank": 4} if "ham" in method else {})
    model = van.create_model(NAMES[method], seed=0, num_classes=11, **options).eval()
    if record:
        model.provenance = {"inference": record}
    return model


def seen_sizes(model, **overrides):
    """(height, width) that the network is shown of a picture of 50 x 70 pixels."""
    shapes = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[-2:])))
    van.Predictor(model, inference={"resize": None, **overrides})(Image.new("RGB", (70, 50)))
    return shapes


@pytest.mark.promise("11")
@pytest.mark.parametrize(
    ("method", "seen"), [("hamnet", (50, 70)), ("light_ham", (64, 96)), ("semantic_fpn", (64, 96))]
)
def test_each_method_as_published(method, seen):
    assert seen_sizes(slim(method)) == [seen]


@pytest.mark.promise("11")
def test_overridden():
    assert seen_sizes(slim(), size_divisor=32) == [(64, 96)]
    assert seen_sizes(slim("light_ham"), size_divisor=1) == [(50, 70)]
    assert seen_sizes(slim("light_ham"), size_divisor=20) == [(60, 80)]


@pytest.mark.promise("11")
def test_a_record_wins_and_one_without_a_divisor_means_that_of_its_time():
    assert inference_for(open_segmenter(slim(resize=None, size_divisor=16)).subject).size_divisor == 16
    assert inference_for(open_segmenter(slim(resize=None, window=None, stride=None)).subject).size_divisor == 32
    assert inference_for(open_segmenter(slim()).subject) == Inference(size_divisor=1)


@pytest.mark.promise("11")
def test_recipes():
    for name, method in (("hamnet_van_b2", "hamnet"), ("light_ham_van_b0", "light_ham"), ("upernet_van_b4", "upernet")):
        preprocess = van.create_model("van_b0").preprocess
        assert inference_of_recipe(get_recipe(name), preprocess, method=method).size_divisor == SIZE_DIVISORS[method]
    with pytest.raises(ConfigError, match="size_divisor is 0"):
        get_recipe("hamnet_van_b0").with_options(**{"data.size_divisor": 0})


@pytest.mark.promise("11")
def test_training_writes_down_what_its_validation_saw(tmp_path):
    folder = run(slim_segmentation(tmp_path / "run", **{"data.size_divisor": 4, "trainer.steps": 2}))
    assert van.load(folder / "model.safetensors").provenance["inference"]["size_divisor"] == 4
    assert inference_for(open_segmenter(folder / "model.safetensors").subject).size_divisor == 4


@pytest.fixture
def data(tmp_path):
    return make_pictures(tmp_path / "data", val=2)


@pytest.mark.promise("11")
def test_eval_and_predict(tmp_path, data, capsys):
    checkpoint = str(tmp_path / "s.safetensors")
    van.save(slim("light_ham", resize=None, size_divisor=32), checkpoint)
    for option, divisor in (([], 32), (["--size-divisor", "1"], 1)):
        assert main(["eval", checkpoint, "--data", str(data), *option, "--json", str(tmp_path / "r.json")]) == 0
        assert json.loads((tmp_path / "r.json").read_text())["results"][0]["inference"]["size_divisor"] == divisor
    image, masks = str(data / "images/val/0.png"), []
    for divisor in ("1", "32"):
        out = tmp_path / divisor
        assert main(["predict", checkpoint, image, "--out", str(out), "--size-divisor", divisor]) == 0
        masks.append(np.asarray(Image.open(out / "0-mask.png")))
    assert (masks[0] != masks[1]).any()
    assert main(["eval", checkpoint, "--data", str(data), "--size-divisor", "0"]) == 2
    assert "size_divisor is 0" in capsys.readouterr().err
    van.save(
        van.create_model("van_b0", num_classes=2, embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1)), tmp_path / "c.pth"
    )
    assert main(["predict", str(tmp_path / "c.pth"), image, "--size-divisor", "1"]) == 2
    assert "--size-divisor belongs to segmenters" in capsys.readouterr().err


@pytest.mark.promise("11")
@pytest.mark.parametrize(("method", "divisor"), [("hamnet", 1), ("light_ham", 32)])
def test_exported_files_carry_it(method, divisor):
    text = describe(slim(method), options={}).to_json()
    told = Description.from_json(text, "s.onnx")
    assert told.inference["size_divisor"] == divisor
    assert inference_for(told.subject) == Inference(size_divisor=divisor)
    of_before = replace(told, inference={})  # as files of published networks used to be
    assert inference_for(of_before.subject).size_divisor == divisor


@pytest.mark.promise("11")
@pytest.mark.parametrize(
    "inference", [{"size_divisor": 2**16}, {"resize": (2**16, 2**16)}, {"resize": (64, 64), "scales": (1.0, 1e4)}]
)
def test_sizes_that_no_memory_holds_are_an_error(inference):
    predictor = van.Predictor(slim(), inference={"resize": None, **inference})
    with pytest.raises(DataError, match="would be resized to"):
        predictor(Image.new("RGB", (40, 30)))
