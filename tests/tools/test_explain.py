"""Grad-CAM equals torchcam's, attention maps are what blocks multiply with, the receptive field is a gradient."""

import numpy as np
import pytest
import torch
from fake_objects import saved
from networks import tiny
from PIL import Image
from torchcam.methods import GradCAM

import van
from van.errors import ConfigError, DataError, UnknownNameError
from van.nn.backbone import LargeKernelAttention
from van.tools.explain import Explainer, effective_receptive_field


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / "tiny.safetensors"
    van.save(tiny().eval(), path)
    return path


def picture(width=90, height=70, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("another", [False, True])
def test_grad_cam_equals_torchcam_on_the_last_block(checkpoint, another):
    explainer = Explainer(checkpoint)
    model = van.load(checkpoint).eval()
    array = explainer.predictor.processor.whole(picture()).array
    with GradCAM(model, target_layer=model.backbone.stages[-1].blocks[-1]) as extractor:
        logits = model(torch.from_numpy(array)[None])
        target = int(logits.argmax()) if not another else int(logits.argmin())
        expected = extractor(target, logits, normalized=False)[0][0].relu()
    found = explainer(picture(), target if another else None)
    assert found.target == target
    assert (found.target == found.predicted) is not another
    np.testing.assert_allclose(found.cam_map, expected.numpy(), atol=1e-5)
    assert found.cam_map.max() > 1e-3
    assert found.score == pytest.approx(float(logits[0, target].detach()), abs=1e-5)


def test_attention_is_what_every_block_multiplies_its_input_with(checkpoint):
    explainer = Explainer(checkpoint)
    model, gates = van.load(checkpoint).eval(), []
    for module in model.modules():
        if isinstance(module, LargeKernelAttention):
            module.register_forward_hook(lambda _, inputs, output: gates.append((inputs[0][0], output[0])))
    with torch.no_grad():
        model(torch.from_numpy(explainer.predictor.processor.whole(picture()).array)[None])
    every = explainer.attention_maps(picture())
    assert [len(stage) for stage in every] == [1, 1, 2, 1]
    for attention, (before, after) in zip([block for stage in every for block in stage], gates, strict=True):
        np.testing.assert_allclose(attention * before.numpy(), after.numpy(), atol=1e-4)


def test_a_stage_shows_the_mean_of_its_last_block_stretched(checkpoint):
    explainer = Explainer(checkpoint)
    found, every = explainer(picture()), explainer.attention_maps(picture())
    assert found.stages == (1, 2, 3, 4)
    for mean, blocks in zip(found.attention_mean, every, strict=True):
        np.testing.assert_allclose(mean, blocks[-1].mean(0), atol=1e-5)
    for shown, mean in zip(found.attention, found.attention_mean, strict=True):
        np.testing.assert_allclose(shown, (mean - mean.min()) / (mean.max() - mean.min()), atol=1e-6)


def test_a_folded_network_gives_the_same_maps(checkpoint):
    plain, folded = van.explain(checkpoint, picture()), Explainer(van.optimize(van.load(checkpoint)))(picture())
    np.testing.assert_allclose(folded.cam_map, plain.cam_map, atol=1e-4)
    for one, two in zip(folded.attention_mean, plain.attention_mean, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_with_added_attention_the_map_is_what_is_added(tmp_path):
    model = tiny(attention="add").eval()
    added = []
    module = next(m for m in model.modules() if isinstance(m, LargeKernelAttention))
    van.save(model, tmp_path / "add.safetensors")
    explainer = Explainer(tmp_path / "add.safetensors", stages=[1])
    module.register_forward_hook(lambda module, inputs, output: added.append((output - inputs[0])[0]))
    with torch.no_grad():
        model(torch.from_numpy(explainer.predictor.processor.whole(picture()).array)[None])
    np.testing.assert_allclose(explainer(picture()).attention_mean[0], added[0].mean(0).numpy(), atol=1e-4)


@pytest.mark.parametrize(("size", "mode"), [((1, 1), "RGB"), ((31, 301), "RGBA"), ((301, 31), "L"), ((50, 40), "I;16")])
def test_pictures_of_any_size_and_kind_keep_their_size(checkpoint, size, mode):
    image = Image.new(mode, size, 300) if mode == "I;16" else picture(*size, mode=mode)
    found = van.explain(checkpoint, image)
    assert found.image.size == size
    assert found.cam.shape == (size[1], size[0])
    assert found.draw_cam().size == found.draw_attention(4).size == size
    assert found.cam.dtype == np.float32
    assert found.cam.min() >= 0
    assert found.cam.max() <= 1


def test_a_picture_is_turned_by_its_exif(checkpoint, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(90, 60).save(tmp_path / "turned.png", exif=exif)
    assert van.explain(checkpoint, tmp_path / "turned.png").image.size == (60, 90)


SLIM = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("light_ham_van_b0", {}, {}),
        ("retinanet_van_b0", {}, {"size": 64}),
        pytest.param("mask2former_van_b0", {"num_things": 2}, {"size": 64}, marks=pytest.mark.long),
    ],
)
def test_other_tasks_are_explained_by_the_best_score_of_a_class(name, options, size):
    model = van.create_model(name, num_classes=4, seed=0, **options, **SLIM).eval()
    found = Explainer(model, **size)(picture(150, 100))
    assert found.target == found.predicted
    assert np.isfinite(found.score)
    assert found.cam.shape == (100, 150)
    assert found.cam_map.shape == found.attention[3].shape
    assert found.attention[0].size > found.attention[3].size


def test_a_class_that_gets_no_pixel_is_named():
    model = van.create_model("light_ham_van_b0", num_classes=4, seed=0, **SLIM).eval()
    classifier = [module for module in model.modules() if getattr(module, "out_channels", None) == 4][-1]
    with torch.no_grad():
        classifier.bias[1] = -1e4
    with pytest.raises(DataError, match="the network finds nothing of class '1'; found: "):
        Explainer(model)(picture(40, 40), 1)


def test_a_network_that_does_not_run_its_backbone_is_named(tmp_path):
    saved("detection", tmp_path / "fake.safetensors")
    with pytest.raises(ConfigError, match="does not run its last stage"):
        van.explain(tmp_path / "fake.safetensors", picture())


def test_what_cannot_be_explained_is_one_clear_error(checkpoint):
    with pytest.raises(UnknownNameError, match="unknown class 'cat'"):
        van.explain(checkpoint, picture(), target="cat")
    with pytest.raises(ConfigError, match="no class 5; expected a name, or an index from 0 to 4"):
        van.explain(checkpoint, picture(), target=5)
    with pytest.raises(ConfigError, match="no stage 5; expected numbers from 1 to 4"):
        van.explain(checkpoint, picture(), stages=[5])
    with pytest.raises(ConfigError, match="opacity is 2"):
        van.explain(checkpoint, picture()).draw_cam(2)
    with pytest.raises(ConfigError, match="no attention of stage 3"):
        van.explain(checkpoint, picture(), stages=[1, 4]).draw_attention(3)
    with pytest.raises(DataError, match="cannot be read"):
        van.explain(checkpoint, __file__)


def test_opacity_0_is_the_image_and_1_the_colours(checkpoint):
    found = van.explain(checkpoint, picture(64, 64, "L").convert("RGB"), stages=[1], size=64)
    left, top, right, bottom = map(round, found.box)
    seen = np.asarray(found.draw_cam(0))[top:bottom, left:right]
    np.testing.assert_array_equal(seen, np.asarray(found.image)[top:bottom, left:right])
    darkest, brightest = (
        np.unravel_index(found.cam.argmin(), found.cam.shape),
        np.unravel_index(found.cam.argmax(), found.cam.shape),
    )
    colors = np.asarray(found.draw_cam(1).convert("L")).astype(int)
    assert colors[brightest] > colors[darkest] + 100


def test_the_field_is_the_gradient_of_the_central_unit(checkpoint):
    model = van.load(checkpoint).eval()
    found = effective_receptive_field(model, size=64, count=2, seed=3)
    maps = []
    model.backbone.stages[-1].blocks[-1].register_forward_hook(lambda module, inputs, output: maps.append(output))
    draw, total = torch.Generator().manual_seed(3), 0
    for _ in range(2):
        noise = torch.randn((1, 3, 64, 64), generator=draw).requires_grad_()
        model(noise)
        (gradient,) = torch.autograd.grad(maps[-1][0, :, 1, 1].sum(), noise)
        total = total + gradient[0].abs().sum(0)
    np.testing.assert_allclose(found.contribution, (total / total.sum()).numpy(), atol=1e-6)
    assert found.center == (32, 32)
    assert found.count == 2
    assert list(found.sides) == [0.5, 0.95, 0.99]
    assert 0 < found.sides[0.5] <= found.sides[0.95] <= found.sides[0.99] <= 1


def test_the_smallest_square_holds_the_share(checkpoint):
    found = effective_receptive_field(checkpoint, size=64, count=1)
    for share, side in found.sides.items():
        half = (round(side * 64) - 1) // 2
        inside = found.contribution[max(0, 32 - half) : 33 + half, max(0, 32 - half) : 33 + half].sum()
        smaller = found.contribution[max(0, 33 - half) : 32 + half, max(0, 33 - half) : 32 + half].sum()
        assert smaller < share
        assert inside >= share - 1e-5 or side == 1


def test_the_network_is_explained_as_it_is_unless_that_is_asked_for(checkpoint, monkeypatch):
    monkeypatch.setattr(van.ops, "path_taken", lambda _: True)
    assert not Explainer(checkpoint).predictor.opened.optimized
    assert Explainer(checkpoint, optimize=True).predictor.opened.optimized


def test_the_receptive_field_sees_images_as_the_predictor_does(checkpoint, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture(64, 64).save(tmp_path / "turned.png", exif=exif)
    as_shown = effective_receptive_field(checkpoint, [tmp_path / "turned.png"], size=64)
    stored = van.Predictor(checkpoint, exif=False, optimize=False)
    as_stored = effective_receptive_field(stored, [tmp_path / "turned.png"], size=64)
    plain = effective_receptive_field(checkpoint, [picture(64, 64)], size=64)
    np.testing.assert_array_equal(as_stored.contribution, plain.contribution)
    assert (as_shown.contribution != plain.contribution).any()


def test_small_pictures_are_enlarged_in_files(checkpoint, tmp_path):
    found = van.explain(checkpoint, picture(8, 5))
    found.save(tmp_path)
    with Image.open(tmp_path / "cam.png") as saved:
        assert saved.size == (256, 160)
        assert saved.resize((8, 5), Image.Resampling.NEAREST).tobytes() == found.draw_cam().tobytes()
    assert np.load(tmp_path / "explanation.npz")["cam"].shape == (5, 8)
