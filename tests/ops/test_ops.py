"""The primitives: against the plain library convolution in float64, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from networks import images

from van import ops
from van.nn.layers import DropPath, LayerNorm2d, depthwise_conv, drop_path

# kernel side and dilation: near, published far, 3x3, the paper's other far kernels, even ones, nothing to do
KERNELS = [(5, 1), (7, 3), (3, 1), (4, 2), (5, 3), (7, 4), (4, 1), (2, 1), (2, 3), (6, 3), (1, 1), (1, 3)]


def plainly(x, weight, bias, dilation):
    """The definition: a sum over taps of the zero-padded map, one more row and column after than before."""
    kernel = weight.shape[-1]
    span = dilation * (kernel - 1)
    padded = F.pad(x, (span // 2, span - span // 2, span // 2, span - span // 2))
    (height, width), total = x.shape[2:], bias[:, None, None].expand_as(x)
    for i in range(kernel):
        for j in range(kernel):
            tap = padded[:, :, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
            total = total + weight[:, :, i, j, None] * tap
    return total


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "dilation"), KERNELS)
def test_depthwise_keeps_the_size_and_is_the_definition(kernel, dilation, layout):
    draw = torch.Generator().manual_seed(0)
    for size in ((13, 18), (3, 4), (1, 1)):
        x = images(2, 6, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
        weight = torch.randn(6, 1, kernel, kernel, generator=draw, dtype=torch.float64, requires_grad=True)
        bias = torch.randn(6, generator=draw, dtype=torch.float64, requires_grad=True)
        got, want = ops.depthwise_conv2d(x, weight, bias, dilation=dilation), plainly(x, weight, bias, dilation)
        assert got.shape == x.shape
        assert torch.allclose(got, want, rtol=0, atol=1e-11)
        probe = images(*x.shape, seed=1, dtype=torch.float64)
        theirs = torch.autograd.grad((want * probe).sum(), (x, weight, bias))
        for ours, other in zip(torch.autograd.grad((got * probe).sum(), (x, weight, bias)), theirs, strict=True):
            assert torch.allclose(ours, other, rtol=0, atol=1e-10)


def test_depthwise_without_bias():
    x, weight = images(1, 4, 9, 9), images(4, 1, 7, 7)
    zero = torch.zeros(4)
    assert torch.equal(
        ops.depthwise_conv2d(x, weight, None, dilation=3), ops.depthwise_conv2d(x, weight, zero, dilation=3)
    )


def test_wide_padding_never_reaches_the_library_on_cpu(monkeypatch):
    monkeypatch.setattr(ops.depthwise, "kernel_available", lambda: False)  # the kernel would do it without padding
    seen, convolve = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *a, **k: seen.append(k.get("padding", 0)) or convolve(*a, **k))
    x = images(1, 4, 20, 20)
    ops.depthwise_conv2d(x, images(4, 1, 7, 7), None, dilation=3)
    ops.depthwise_conv2d(x, images(4, 1, 5, 5), None)
    assert seen == [0, 2]


def test_an_exported_graph_holds_one_plain_convolution():
    class Far(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = depthwise_conv(4, 7, 3)

        def forward(self, x):
            return self.conv(ops.fast_layout(x))

    graph = torch.export.export(Far(), (images(1, 4, 20, 20),)).graph
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert targets == ["aten.conv2d.default"]


def test_fast_layout_on_cpu_is_channels_last_with_the_same_values():
    x = images(2, 8, 5, 7)
    y = ops.fast_layout(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, y)
    assert ops.fast_layout(y) is y
    assert ops.fast_layout(x.to("meta")).is_contiguous()


class TestLayers:
    def test_depthwise_module_is_a_plain_convolution_to_tools(self):
        layer, x = depthwise_conv(6, 7, 3), images(2, 6, 20, 23)
        assert isinstance(layer, torch.nn.Conv2d)
        assert (layer.kernel_size, layer.padding, layer.dilation, layer.groups) == ((7, 7), (9, 9), (3, 3), 6)
        plain = torch.nn.Conv2d(6, 6, 7, padding=9, dilation=3, groups=6)
        plain.load_state_dict(layer.state_dict())
        assert torch.allclose(layer(x), plain(x), atol=1e-6)

    def test_layer_norm_normalises_channels(self):
        x, norm = images(2, 8, 5, 7), LayerNorm2d(8, eps=1e-6)
        torch.nn.init.uniform_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        centred = x - x.mean(1, keepdim=True)
        want = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        y = norm(x)
        assert torch.allclose(y, want * norm.weight[:, None, None] + norm.bias[:, None, None], atol=1e-5)
        assert y.is_contiguous(memory_format=torch.channels_last)

    def test_drop_path_drops_samples_and_keeps_the_mean(self):
        torch.manual_seed(0)
        layer, x = DropPath(0.25), torch.ones(4000, 2, 3, 1)
        y = layer.train()(x)
        first = y[:, :1, :1]
        assert torch.equal(y, first.expand_as(y))  # a sample goes as a whole
        assert first.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
        assert y.mean().item() == pytest.approx(1, abs=0.05)
        assert torch.equal(layer.eval()(x), x)

    def test_no_drop_path_no_module(self):
        assert isinstance(drop_path(0.0), torch.nn.Identity)
        assert drop_path(0.125).rate == 0.125
        assert "0.125" in repr(drop_path(0.125))
