"""Every kind of network through the Predictor and an evaluation; torchvision's own give the same results."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision_detectors import ALL_NAMES, tiny

import van
from van.data.object_scenes import SceneObjects, ScenePanoptic
from van.data.scenes import Scenes


def picture(height=70, width=100):
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 256, (5, 7, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", ["retinanet_van_b0", "atss_van_b0", "mask_rcnn_van_b0", "cascade_mask_rcnn_van_b0"])
def test_a_predictor_gives_what_torchvisions_call_gives(name):
    model = tiny(name)
    pixels = torch.from_numpy(np.array(picture())).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        (theirs,) = model([pixels])
    ours = van.Predictor(model)(picture())
    assert len(ours) == len(theirs["boxes"]) > 0
    assert np.array_equal(ours.indices, theirs["labels"].numpy() - 1)
    np.testing.assert_allclose(ours.scores, theirs["scores"].numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.boxes, theirs["boxes"].numpy(), atol=1e-3)
    if "mask" in name:
        same = ours.masks == (theirs["masks"][:, 0] > 0.5).numpy()
        assert same.mean() > 0.999


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_network_is_evaluated_and_drawn(name):
    classes = {"num_classes": 11, "num_things": 10} if name == "mask2former_van_b0" else {"num_classes": 10}
    model = tiny(name, min_size=64, max_size=96, **classes)
    scenes = Scenes(count=2)
    data = ScenePanoptic(scenes) if name == "mask2former_van_b0" else SceneObjects(scenes)
    evaluation = van.evaluate(model, data)
    assert evaluation.count == 2
    assert 0 <= evaluation.score <= 1
    result = van.Predictor(model)(picture())
    assert result.draw().height == 70 * 3
    assert result.to_dict()["size"] == [70, 100]
