"""What models that find objects cost, next to the paper's table."""

import json

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("transformers")

from torchvision_detectors import ALL_NAMES, tiny

from van.cli import main
from van.configs.catalog import OBJECT_MODELS
from van.errors import ConfigError
from van.tools.complexity import describe_segmenter
from van.tools.object_complexity import describe_objects


def told(capsys, *words):
    assert main(["info", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_mask_r_cnn_costs_what_the_paper_says(capsys):
    found = told(capsys, "mask_rcnn_van_b2", "--size", "1280x800")
    published = found["published"]
    assert f"{found['parameters'] / 1e6:.0f}" == published["parameters_m"] == "46"
    assert f"{found['mmcv'] / 1e9:.0f}" == published["giga"] == "273"
    assert found["parameters"] == sum(found["by_part"].values())
    assert main(["info", "mask_rcnn_van_b2", "--size", "640", "640"]) == 0
    text = capsys.readouterr().out
    assert "640 x 640 pixels" in text
    assert "273 G at 1280 x 800" in text
    assert "1,000 proposals and 100 masks" in text


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_kind_of_model_is_counted(name):
    model = tiny(name)
    cost = describe_objects(model.config, size=64)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.macs > 0
    assert (cost.matmul_macs > 0) == ("dfine" in name or "mask2former" in name)


def test_two_stages_count_their_heads_by_proposals_and_masks():
    config = OBJECT_MODELS["mask_rcnn_van_b0"]
    cost, without = describe_objects(config, size=320), describe_objects(OBJECT_MODELS["atss_van_b0"], size=320)
    assert cost.macs - without.macs > 1000 * (256 * 49 * 1024 + 1024 * 1024)
    wider = describe_objects(config.with_options(hidden_channels=1025), size=320)
    assert wider.macs - cost.macs == 1000 * (256 * 49 + 1025 + 1024 + 5 * 81)


def test_the_backbone_is_counted_as_in_segmenters():
    from van.configs.segmenter import SEGMENTERS

    config = OBJECT_MODELS["retinanet_van_b0"]
    one = describe_segmenter(SEGMENTERS["semantic_fpn_van_b0"], size=256)
    assert one.by_part["backbone"] == describe_objects(config, size=256).by_part["backbone"]


@pytest.mark.parametrize("size", ["axb", "1x2x3", "12.5"])
def test_sizes_that_are_none_are_refused(capsys, size):
    assert main(["info", "retinanet_van_b0", "--size", size]) == 2
    assert "size is " in capsys.readouterr().err


def test_sides_that_the_network_would_not_get_are_refused():
    with pytest.raises(ConfigError, match="size is 100 x 64; expected multiples of 32, as 128 x 64"):
        describe_objects(OBJECT_MODELS["retinanet_van_b0"], size=(100, 64))


@pytest.mark.parametrize("name", ["mask_rcn_van_b2", "retinanet_van_b9", "gfl-van-bo"])
def test_misspelt_models_get_a_suggestion(capsys, name):
    assert main(["info", name]) == 2
    assert "did you mean" in capsys.readouterr().err
