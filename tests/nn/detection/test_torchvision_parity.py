"""The models with torchvision's heads give what torchvision's own models give with the same weights."""

import pytest
import torch

pytest.importorskip("torchvision")

from torchvision_detectors import noise, older_state, state_of_version_0_1, tiny, torchvisions_own

from van.nn.object_model import detections

NAMES = ["retinanet_van_b0", "mask_rcnn_van_b0"]
SIZES = [(3, 50, 70), (3, 96, 64), (3, 64, 80)]


def pair(name, found=60):
    model = tiny(name, detections_per_image=found)
    theirs = torchvisions_own(model.config)
    theirs.load_state_dict(older_state(model.state_dict()))
    return model, theirs


@pytest.mark.parametrize("name", NAMES)
def test_called_like_torchvisions_own_it_gives_the_same_objects(name):
    model, theirs = pair(name)
    images = [noise(*size, seed=i) for i, size in enumerate(SIZES)]
    with torch.inference_mode():
        found, expected = model(images), theirs(images)
    offset = 1 if name.startswith("retinanet") else 0  # theirs was built with classes counted from 0
    for ours, other in zip(found, expected, strict=True):
        assert len(ours["boxes"]) > 20
        assert len(set(ours["labels"].tolist())) > 1
        assert torch.equal(ours["labels"], other["labels"] + offset)
        for key in ("boxes", "scores", *(["masks"] if "masks" in other else [])):
            torch.testing.assert_close(ours[key], other[key], rtol=0, atol=1e-5 * max(1, other[key].abs().max()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stated", [True, False], ids=["sizes stated", "sizes read off the padding"])
def test_raw_outputs_decoded_without_the_network_give_the_same_objects(name, stated):
    model, theirs = pair(name)
    images = [noise(*size, seed=i) for i, size in enumerate(SIZES)]
    batch, _ = theirs.transform(images)
    options = {"sizes": batch.image_sizes} if stated and name.startswith("mask") else {}
    with torch.inference_mode():
        features = theirs.backbone(batch.tensors)
        raw = model.raw(batch.tensors, **options)
        found = detections(model.config, raw, batch.image_sizes)
        expected = theirs(images)
    assert len(features) == 5
    assert all(values.dtype == torch.float32 for values in raw.values())
    for ours, other, image, size in zip(found, expected, images, batch.image_sizes, strict=True):
        factor = torch.tensor([image.shape[2] / size[1], image.shape[1] / size[0]] * 2)
        torch.testing.assert_close(ours.boxes * factor, other["boxes"], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(ours.scores, other["scores"], rtol=0, atol=1e-5)


def test_one_image_of_a_batch_decodes_as_in_the_batch():
    model, _ = pair("retinanet_van_b0")
    with torch.inference_mode():
        raw = model.raw(noise(2, 3, 64, 96) - 0.5)
    whole = detections(model.config, raw, [(64, 96), (50, 90)])[1]
    alone = detections(model.config, {name: x[1:] for name, x in raw.items()}, [(50, 90)])[0]
    assert torch.equal(whole.boxes, alone.boxes)
    assert alone.boxes[:, 2].max() <= 90


@pytest.mark.parametrize("name", NAMES)
def test_state_dicts_of_version_0_1_are_read(name):
    model, _ = pair(name)
    again = tiny(name)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    older = state_of_version_0_1(model)
    again.load_state_dict(older)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    del older["backbone.fpn.inner_blocks.1.0.bias"]
    with pytest.raises(RuntimeError, match=r"pyramid\.laterals\.1\.bias"):
        again.load_state_dict(older)
