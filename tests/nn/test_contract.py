"""One contract that every published size keeps."""

import pytest
import torch
from networks import gap, images, lived_in

from van.checkpoints import layout
from van.configs.backbone import VARIANTS
from van.nn import Classifier, fold

every_variant = pytest.mark.parametrize("name", VARIANTS)


def shallow(name):
    """The variant with its own widths and one block per stage, so that the large ones run in a moment."""
    return lived_in(Classifier(VARIANTS[name].with_options(depths=(1, 1, 1, 1), num_classes=7)))


def on_meta(name, **options):
    with torch.device("meta"):
        return Classifier(VARIANTS[name].with_options(**options))


@every_variant
def test_pyramid_of_the_whole_network(name):
    config, model = VARIANTS[name], on_meta(name)
    maps = model.backbone(torch.empty(3, 3, 224, 224, device="meta"))
    assert [tuple(m.shape) for m in maps] == [
        (3, width, 224 // stride, 224 // stride)
        for width, stride in zip(config.embed_dims, (4, 8, 16, 32), strict=True)
    ]
    assert model.backbone.channels == config.embed_dims
    assert model.backbone.strides == (4, 8, 16, 32)
    assert model(torch.empty(3, 3, 224, 224, device="meta")).shape == (3, 1000)
    assert [len(stage.blocks) for stage in model.backbone.stages] == list(config.depths)


@every_variant
def test_state_keys_and_shapes_are_the_canonical_ones(name):
    state = on_meta(name).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == layout.shapes(VARIANTS[name])


@every_variant
def test_any_input_size_and_batch_one(name):
    model = shallow(name).eval()
    with torch.inference_mode():
        maps = model.backbone(images(1, 3, 75, 101))
        logits = model(images(1, 3, 75, 101))
    assert [tuple(m.shape[2:]) for m in maps] == [(19, 26), (10, 13), (5, 7), (3, 4)]
    assert logits.shape == (1, 7)
    assert all(m.isfinite().all() for m in (*maps, logits))


@every_variant
def test_evaluation_repeats_and_batches_do_not_mix(name):
    model, x = shallow(name).eval(), images(2, 3, 64, 64)
    with torch.inference_mode():
        both = model(x)
        assert torch.equal(model(x), both)
        assert torch.allclose(torch.cat([model(x[:1]), model(x[1:])]), both, atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)  # the images matter


@every_variant
def test_every_parameter_gets_a_gradient(name):
    model = shallow(name).train()
    model(images(2, 3, 64, 64)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if not key.endswith("patch_embed.conv.bias"):  # a BatchNorm takes it away
            assert parameter.grad.abs().max() > 0, key


@every_variant
def test_memory_formats_give_the_same_numbers(name):
    model, x = shallow(name).eval(), images(2, 3, 64, 32)
    with torch.inference_mode():
        want = model(x)
        assert torch.allclose(model(x.contiguous(memory_format=torch.channels_last)), want, atol=1e-5)
        model = model.to(memory_format=torch.channels_last)
        assert torch.allclose(model(x), want, atol=1e-5)
        assert torch.allclose(model(x.contiguous(memory_format=torch.channels_last)), want, atol=1e-5)


@every_variant
def test_folding_changes_nothing(name):
    model, x = shallow(name).eval(), images(1, 3, 64, 64)
    with torch.inference_mode():
        assert gap(fold(model)(x), model(x)) < 5e-6
