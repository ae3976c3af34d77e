"""The questions that are asked about modules before a kernel computes in their place."""

import ast
from pathlib import Path

import pytest
import torch
from networks import images
from torch import nn
from torch.nn.utils import parametrizations

from van.nn import fusable
from van.nn.fusable import (
    can_fuse,
    depthwise_weights,
    has_plain_weights,
    is_idle,
    is_pointwise,
    is_square,
    keeps_size,
    wants_gradients,
    why_not_fused,
)
from van.nn.layers import DepthwiseConv2d, depthwise_conv, pointwise_conv

NN = Path(fusable.__file__).parent
QUESTIONS = {"_has_any_global_hook", "is_exporting", "is_tracing", "Proxy", "_forward_pre_hooks", "_backward_hooks"}


def test_hooks_and_tracing_are_asked_for_in_one_place():
    asking = {}
    for path in NN.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if names & QUESTIONS:
            asking[path.name] = names & QUESTIONS
    assert asking.pop("fusable.py") == QUESTIONS
    assert asking == {"packed.py": {"_forward_pre_hooks"}}  # which compares with what they were


def conv(*, side=3, stride=1, padding=1, dilation=1, groups=8, **options):
    return nn.Conv2d(8, 8, side, stride, padding, dilation, groups, **options)


@pytest.mark.parametrize(("layer", "answer"), [
    (conv(), True),
    (conv(side=7, padding=9, dilation=3), True),
    (conv(side=5, padding="same"), True),
    (conv(padding=0), False),
    (conv(stride=2), False),
    (conv(groups=4), False),
    (conv(side=(3, 5), padding=(1, 2)), False),
    (conv(side=4, padding=1), False),
    (conv(padding_mode="circular"), False),
    (nn.Conv2d(8, 16, 3, padding=1, groups=8), False),
])  # fmt: skip
def test_a_depthwise_convolution_that_keeps_the_size(layer, answer):
    assert keeps_size(layer) is answer
    if answer:
        assert layer(images(1, 8, 9, 11)).shape == (1, 8, 9, 11)


@pytest.mark.parametrize(("layer", "answer"), [
    (nn.Conv2d(4, 8, 1), True),
    (nn.Conv2d(4, 8, 1, padding="valid"), True),
    (nn.Conv2d(4, 8, 1, stride=2), False),
    (nn.Conv2d(4, 8, 1, padding=1), False),
    (nn.Conv2d(4, 8, 1, groups=2), False),
    (nn.Conv2d(4, 8, (1, 3)), False),
])  # fmt: skip
def test_a_pointwise_convolution(layer, answer):
    assert is_pointwise(layer) is answer


@pytest.mark.parametrize(("options", "answer"), [
    ({"groups": 1}, True),
    ({"groups": 1, "side": 7, "stride": 4, "padding": 3}, True),
    ({"groups": 1, "side": (3, 5)}, False),
    ({"groups": 1, "stride": (1, 2)}, False),
    ({"groups": 1, "padding": (1, 2)}, False),
    ({"groups": 1, "dilation": 2}, False),
    ({"groups": 1, "padding_mode": "reflect"}, False),
    ({"groups": 8}, False),
])  # fmt: skip
def test_a_convolution_that_treats_rows_as_columns(options, answer):
    assert is_square(conv(**options)) is answer


class Doubled(DepthwiseConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(layer):
    layer.register_forward_hook(lambda *_: None)
    return layer


def replaced(layer):
    layer.forward = lambda x: x
    return layer


@pytest.mark.parametrize(("layer", "reason"), [
    (depthwise_conv(8, 7, 3), ""),
    (pointwise_conv(8, 16), ""),
    (nn.Conv2d(8, 8, 1), "is a Conv2d"),
    (Doubled(8, 8, 3, padding=1, groups=8), "is a Doubled"),
    (parametrizations.weight_norm(depthwise_conv(8, 3)), "is a ParametrizedDepthwiseConv2d"),
    (hooked(pointwise_conv(8, 8)), "has hooks"),
    (replaced(pointwise_conv(8, 8)), "has a replaced forward"),
    (DepthwiseConv2d(8, 8, 3, stride=2, padding=1, groups=8), "has another stride, padding or grouping"),
])  # fmt: skip
def test_why_a_convolution_must_be_called(layer, reason):
    assert why_not_fused(layer) == reason


def test_a_patched_class_must_be_called(monkeypatch):
    layer = depthwise_conv(8, 3)
    assert can_fuse(images(1, 8, 5, 5), depthwise=[layer])
    monkeypatch.setattr(DepthwiseConv2d, "forward", lambda self, x: x)
    assert why_not_fused(layer) == "has a patched class"
    assert not can_fuse(images(1, 8, 5, 5), depthwise=[layer])


def test_convolutions_of_the_other_kind_do_not_fuse():
    assert not can_fuse(images(1, 8, 5, 5), depthwise=[pointwise_conv(8, 8)])
    assert not can_fuse(images(1, 8, 5, 5), pointwise=[depthwise_conv(8, 3)])


def test_gradients_are_wanted_where_a_tensor_asks_and_they_are_recorded():
    plain, asking = images(1, 3, 4, 4), images(1, 3, 4, 4).requires_grad_()
    assert wants_gradients([plain, asking])
    assert not wants_gradients([plain])
    with torch.no_grad():
        assert not wants_gradients([asking])


def test_dropout_that_does_nothing_is_idle():
    assert is_idle(nn.Dropout(0.0))
    assert is_idle(nn.Dropout(0.5).eval())
    assert not is_idle(nn.Dropout(0.5))
    assert not is_idle(nn.Dropout2d(0.0))
    assert not is_idle(hooked(nn.Dropout(0.0)))


def test_weights_of_a_class_of_their_own_are_not_plain():
    class Quantised(torch.Tensor):
        pass

    layer = pointwise_conv(8, 8)
    assert has_plain_weights(layer)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantised))
    assert not has_plain_weights(layer)


def test_the_weights_of_a_depthwise_module():
    layer = depthwise_conv(4, 7, 3)
    assert depthwise_weights(layer) == (layer.weight, layer.bias, 3)
