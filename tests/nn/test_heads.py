"""The segmentation heads: against the originals' outputs, and one contract that all of them keep."""

import copy

import pytest
import torch
from reference_data import golden, inputs
from segmentation_reference import GOLDENS, METHODS, reference_model, small
from torch import nn
from torch.nn import functional as F

from van.configs.segmenter import SEGMENTERS
from van.errors import ConfigError
from van.nn import fold
from van.nn.heads.layers import ConvNormReLU
from van.nn.segmenter import Segmenter

TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-8}

every_method = pytest.mark.parametrize("method", METHODS)
# Tracing takes seconds each: the default run does the two unlike heads.
traced_methods = pytest.mark.parametrize(
    "method",
    ["light_ham", "upernet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hamnet", "semantic_fpn"))],
)


def sampled(tensor, arrays, key):
    return tensor.reshape(-1)[:: int(arrays[f"{key}/step"])]


def gap(ours, theirs):
    return (ours - torch.from_numpy(theirs)).abs().max().item()


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["smaller", "larger"])
@pytest.mark.parametrize("name", GOLDENS)
def test_logits_equal_the_originals(name, which):
    arrays = golden(name)
    for dtype, suffix in ((torch.float32, ""), (torch.float64, "64")):
        model = reference_model(name, dtype)
        for tag, x in inputs(name)[which : which + 1]:
            images = torch.from_numpy(x).to(dtype)
            with torch.inference_mode():
                logits, auxiliary = model.decode_with_auxiliary(images)
            assert tuple(logits.shape) == tuple(arrays[f"{tag}/decode/shape"])
            assert (
                gap(sampled(logits, arrays, f"{tag}/decode"), arrays[f"{tag}/decode/sample{suffix}"])
                <= TOLERANCE[dtype]
            )
            assert (auxiliary is not None) == (f"{tag}/aux/sample" in arrays)
            if auxiliary is not None:  # the originals' auxiliary logits exist in float32 only
                assert gap(sampled(auxiliary, arrays, f"{tag}/aux"), arrays[f"{tag}/aux/sample"]) <= 5e-5


@pytest.mark.parametrize("name", ["mmseg_lightham_van_tiny_d256", "mmseg_fpn_van_tiny"])
def test_logits_at_input_size_equal_the_originals(name):
    arrays, model = golden(name), reference_model(name)
    tag, x = inputs(name)[0]
    with torch.inference_mode():
        logits = model(torch.from_numpy(x))
    assert tuple(logits.shape[2:]) == x.shape[2:]
    assert gap(sampled(logits, arrays, f"{tag}/encode_decode"), arrays[f"{tag}/encode_decode/sample"]) <= 5e-5


@pytest.mark.parametrize("name", ["mmseg_hamnet_os8_van_tiny", "mmseg_fpn_van_tiny"])
def test_folded_logits_equal_the_originals(name):
    arrays, model = golden(name), fold(reference_model(name))
    assert not [m for m in model.head.modules() if isinstance(m, nn.BatchNorm2d)]
    tag, x = inputs(name)[0]
    with torch.inference_mode():
        logits = model.decode(torch.from_numpy(x))
    assert gap(sampled(logits, arrays, f"{tag}/decode"), arrays[f"{tag}/decode/sample"]) <= 5e-5


@pytest.mark.parametrize("folded", [False, True])
def test_several_maps_stand_for_their_concatenation(folded):
    layer = ConvNormReLU(7, 32, 3, norm="group" if not folded else "batch").double().eval()
    parts = [torch.randn(2, c, h, w, dtype=torch.float64) for c, h, w in ((4, 9, 11), (2, 5, 6), (1, 1, 1))]
    if folded:  # has a bias and no norm
        layer.conv, layer.norm = nn.Conv2d(7, 32, 3, padding=1).double(), nn.Identity()
    joined = torch.cat([F.interpolate(x, (9, 11), mode="bilinear", align_corners=False) for x in parts], dim=1)
    torch.testing.assert_close(layer(*parts), layer(joined), atol=1e-12, rtol=0)


@every_method
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 130)])
def test_any_size_gives_logits_at_input_and_head_size(method, size):
    model = small(method)
    images = torch.randn(1, 3, *size)
    with torch.inference_mode():
        logits, coarse = model(images), model.decode(images)
    stride = 8 if "ham" in method else 4
    assert tuple(coarse.shape) == (1, 5, *(-(-side // stride) for side in size))
    assert tuple(logits.shape) == (1, 5, *size)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits, F.interpolate(coarse, size, mode="bilinear", align_corners=False))


@every_method
def test_each_image_of_a_batch_is_on_its_own_and_evaluation_repeats(method):
    model, images = small(method), torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        together = model(images)
        torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), together, atol=5e-5, rtol=0)
        assert torch.equal(model(images), together)


@every_method
def test_every_parameter_gets_a_gradient(method):
    model = small(method, drop_path_rate=0.0).train()
    logits, auxiliary = model.decode_with_auxiliary(torch.randn(2, 3, 64, 64))
    assert (auxiliary is not None) == (method in ("hamnet", "upernet"))
    loss = logits.square().mean() + (0 if auxiliary is None else auxiliary.square().mean())
    loss.backward()
    assert not [name for name, value in model.named_parameters() if value.grad is None]
    silent = [name for name, value in model.named_parameters() if not value.grad.abs().sum() > 0]
    assert all(name.endswith("patch_embed.conv.bias") for name in silent)  # a BatchNorm follows


@every_method
def test_frozen_backbone_stays_as_it_is(method):
    model = small(method)
    model.freeze_backbone()
    model.train()
    before = copy.deepcopy(model.backbone.state_dict())
    logits, _ = model.decode_with_auxiliary(torch.randn(2, 3, 64, 64))
    logits.square().mean().backward()
    assert all(value.grad is None for value in model.backbone.parameters())
    assert all(value.grad is not None for value in model.head.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())


@every_method
def test_channels_last_is_the_same_function(method):
    model, images = small(method), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = model(images)
        model.to(memory_format=torch.channels_last)
        got = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, atol=5e-5, rtol=0)


@every_method
def test_fold_is_the_same_function_and_leaves_the_original(method):
    model, images = small(method), torch.randn(2, 3, 65, 97, dtype=torch.float64)
    model.double()
    with torch.inference_mode():
        expected = model(images)
        folded = fold(model)
        torch.testing.assert_close(folded(images), expected, atol=1e-12, rtol=0)
        assert torch.equal(model(images), expected)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d) and m not in _auxiliary_norms(folded)]


def _auxiliary_norms(model):
    return set() if model.auxiliary is None else set(model.auxiliary.modules())


@every_method
def test_synchronised_batch_norm_is_the_same_function(method):
    model, images = small(method), torch.randn(1, 3, 64, 64)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert not [m for m in synchronised.modules() if type(m) is nn.BatchNorm2d]
    assert list(synchronised.state_dict()) == list(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(synchronised(images), model(images))
        torch.testing.assert_close(fold(synchronised)(images), model(images), atol=5e-5, rtol=0)


@traced_methods
def test_export_takes_any_size(method):
    model = small(method)
    side = [torch.export.Dim(name, min=33, max=2048) for name in ("height", "width")]
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=({2: side[0], 3: side[1]},))
    assert "autocast" not in str(program.graph)
    images = torch.randn(2, 3, 97, 161)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images), model(images), atol=5e-5, rtol=0)


@traced_methods
def test_compile_has_no_graph_break(method):
    model, images = small(method), torch.randn(1, 3, 64, 64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), model(images), atol=5e-5, rtol=0)


@every_method
def test_built_on_meta_then_emptied_it_loads_what_published_files_hold(method):
    model, images = small(method), torch.randn(1, 3, 64, 64)
    published = {key: value for key, value in model.state_dict().items() if not key.endswith("bases")}
    with torch.device("meta"):
        empty = Segmenter(model.config).eval()
        assert empty(torch.empty(1, 3, 64, 64)).is_meta
    empty.to_empty(device="cpu").load_state_dict(published, strict=False)
    with torch.inference_mode():
        assert torch.equal(empty(images), model(images))


@every_method
def test_initialisation_is_the_published_one_and_repeats(method):
    config = small(method).config
    model = Segmenter(config)
    model.reset_parameters(torch.Generator().manual_seed(7))
    again = Segmenter(config)
    again.reset_parameters(torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert model.head.classify.conv.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert not model.head.classify.conv.bias.any()
    convs = {name: m for name, m in model.head.named_modules() if isinstance(m, nn.Conv2d) and "classify" not in name}
    for name, conv in convs.items():
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15), name
    if method == "semantic_fpn":
        weight = model.neck.outputs[0].weight
        assert weight.abs().max().item() == pytest.approx((6 / (9 * 64)) ** 0.5, rel=0.01)


def test_a_new_classifier_keeps_the_rest():
    model, images = small("upernet"), torch.randn(1, 3, 64, 64)
    kept = {key: value.clone() for key, value in model.state_dict().items() if "classify" not in key}
    model.reset_classifier(7, torch.Generator().manual_seed(1))
    assert model.num_classes == model.config.num_classes == 7
    logits, auxiliary = model.decode_with_auxiliary(images)
    assert logits.shape[1] == auxiliary.shape[1] == 7
    assert all(torch.equal(model.state_dict()[key], value) for key, value in kept.items())
    with pytest.raises(ConfigError, match="num_classes is 0"):
        model.reset_classifier(0)


def test_upernet_names_the_batch_of_one():
    model = small("upernet").train()
    with pytest.raises(ConfigError, match="got 1 image in training"):
        model(torch.randn(1, 3, 64, 64))
    model.eval()(torch.randn(1, 3, 64, 64))


def test_drop_path_and_dropout_act_in_training_only():
    model, images = small("semantic_fpn", drop_path_rate=0.9), torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), model(images))
        model.train()
        assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", METHODS.values())
def test_published_sizes_build_and_give_150_classes(name):  # the others: test_complexity_segmentation.py
    with torch.device("meta"):
        model = Segmenter(SEGMENTERS[name]).eval()
        assert model(torch.empty(1, 3, 64, 96)).shape == (1, 150, 64, 96)
    assert sum(key.endswith("bases") for key in model.state_dict()) == ("ham" in name)
