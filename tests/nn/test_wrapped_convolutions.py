"""What else changes a layer without calling it another way: its computation, its geometry, dropout that stays on."""

import pytest
import torch
from networks import gap, images, tiny
from torch import nn

import van
from van.errors import ConfigError

pytestmark = pytest.mark.promise("4")
SAME, SEEN = 5e-6, 1e-3  # of the largest output: sums in another order; a change that counts
PLAIN, OPTIMISED = (lambda: tiny().eval()), (lambda: van.optimize(tiny(), example=images(1, 3, 32, 32)))
both = pytest.mark.parametrize("make", [PLAIN, OPTIMISED], ids=["plain", "optimised"])


def by_calling_everything(model, x):
    """The output while a hook watches every module of the process, under which nothing is passed over."""
    watching = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        return model(x)
    finally:
        watching.remove()


def convolutions(model):
    return [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and ".blocks." in n]


def scaled(conv):
    original = conv._conv_forward
    conv._conv_forward = lambda x, weight, bias: 1.3 * original(x, weight, bias)


def replicate(conv):
    if conv.kernel_size != (1, 1):
        across, down = conv.padding[1], conv.padding[0]
        conv.padding_mode, conv._reversed_padding_repeated_twice = "replicate", [across, across, down, down]


def dilate(conv):
    if conv.kernel_size == (3, 3):
        conv.dilation = conv.padding = (2, 2)


@both
@pytest.mark.parametrize("change", [scaled, replicate, dilate])
def test_changed_convolutions_count(make, change):
    model, x = make(), images(2, 3, 32, 32)
    before = model(x)
    for conv in convolutions(model):
        change(conv)
    assert gap(model(x), before) > SEEN
    assert gap(model(x), by_calling_everything(model, x)) < SAME


@both
def test_pytorchs_own_computation_may_be_patched(make, monkeypatch):
    model, x, original = make(), images(2, 3, 32, 32), nn.Conv2d._conv_forward
    before = model(x)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", lambda *given: 1.3 * original(*given))
        assert gap(model(x), before) > SEEN
        assert gap(model(x), by_calling_everything(model, x)) < SAME
    assert torch.equal(model(x), before)


def test_optimising_refuses_a_replaced_computation():
    model = tiny().eval()
    scaled(convolutions(model)[3])
    with pytest.raises(ConfigError, match="has a replaced forward"):
        van.optimize(model)


def dropouts(model):
    return [m for n, m in model.named_modules() if n.endswith("feed_forward.dropout")]


def test_dropout_that_is_on_in_evaluation_drops():
    model, x = tiny().eval(), images(2, 3, 32, 32)
    without = model(x)
    for dropout in dropouts(model):
        dropout.p = 0.5
    assert torch.equal(model(x), without)
    for dropout in dropouts(model):
        dropout.train()
    draws = [model(x) for _ in range(2)]
    assert gap(draws[0], without) > SEEN
    assert gap(*draws) > SEEN


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("way", ["hook", "forward", "class"])
def test_changed_dropout_counts(way, training):
    class Halved(nn.Module):
        def forward(self, x):
            return x / 2

    model, x = tiny().train(training), images(2, 3, 32, 32)
    model.backbone.set_memory_efficient()
    before = model(x)
    for block in (m for n, m in model.named_modules() if n.endswith("feed_forward")):
        if way == "hook":
            block.dropout.register_forward_hook(lambda _m, _x, y: y / 2)
        elif way == "forward":
            block.dropout.forward = lambda y: y / 2
        else:
            block.dropout = Halved()
    assert gap(model(x), before) > SEEN
    assert gap(model(x), by_calling_everything(model, x)) < SAME
