"""Detectors in files: every output by its name, the same boxes from every runtime, clear refusals."""

import numpy as np
import pytest
from exported import PICTURES
from networks import lived_in

import van
from van.errors import ConfigError

pytest.importorskip("torchvision")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytest.importorskip("faster_coco_eval")

SIZES = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2), "num_classes": 3}
SMALL = {
    "retinanet_van_b0": {"channels": 32, "head_convs": 1, "min_size": 64, "max_size": 96, "smallest_anchor": 8},
    "dfine_van_b0": {
        **{"min_size": 64, "encoder_channels": 32, "encoder_feed_forward": 32, "hidden_size": 32, "feed_forward": 32},
        **{"decoder_layers": 1, "heads": 4, "queries": 12, "bins": 8, "quality_hidden": 16, "denoising_queries": 0},
    },
}


def detector(name):
    if name.startswith("dfine"):
        pytest.importorskip("transformers")
    model = lived_in(van.create_model(name, seed=0, score_threshold=0.0, **SIZES, **SMALL[name])).eval()
    model.classes = ("ant", "bee", "cat")
    return model


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("name", SMALL)
def test_a_file_finds_what_its_network_finds(name, suffix, tmp_path):
    model = detector(name)
    done = van.export(model, tmp_path / f"detector{suffix}", images=PICTURES)
    assert done.max_error < 1e-4
    assert done.agreement == 1.0
    assert len(done.parity.cases) == 3 + len(PICTURES)
    want, got = (van.Predictor(source)(PICTURES[0]) for source in (model, tmp_path / f"detector{suffix}"))
    assert got.labels == want.labels
    assert len(got.boxes) > 0
    np.testing.assert_allclose(got.boxes, want.boxes, atol=1e-2)
    np.testing.assert_allclose(got.scores, want.scores, atol=1e-4)


@pytest.mark.long
def test_a_file_of_one_size_has_the_size_that_was_asked_for_and_refuses_others(tmp_path):
    done = van.export(detector("dfine_van_b0"), tmp_path / "d.onnx", size=96, images=PICTURES)
    assert {case.shape[2:] for case in done.parity.cases} == {(96, 96)}
    predictor = van.Predictor(tmp_path / "d.onnx")
    assert predictor.opened.config.graph_size == (96, 96)
    assert len(predictor(PICTURES[0]).boxes)
    with pytest.raises(ConfigError, match=r"exported for images of 96 x 96 pixels and got 64 x 64; leave the size out"):
        van.Predictor(tmp_path / "d.onnx", size=64)(PICTURES[0])


@pytest.mark.parametrize("name", ["mask_rcnn_van_b0", "cascade_mask_rcnn_van_b0", "mask2former_van_b0"])
def test_what_no_graph_can_hold_is_refused_before_any_work(name, tmp_path):
    things = {"num_things": 2} if name.startswith("mask2former") else {}
    with pytest.raises(ConfigError, match=r"cannot be exported: .*; run the checkpoint itself, or export a"):
        van.export(van.create_model(name, **SIZES, **things), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
