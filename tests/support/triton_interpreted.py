"""The Triton kernels under the interpreter, on CPU tensors; test_ops_gpu.py runs this file with TRITON_INTERPRET=1."""

import pytest
import torch
from networks import images, tiny
from triton_cases import check, conv, pair

from van import ops
from van.errors import ConfigError
from van.ops import cpu_depthwise as kernel
from van.ops import cuda_depthwise as gpu
from van.ops.triton_tiles import Blocks


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 4)])
def test_the_pair(size):
    check(images(2, 5, *size), pair(5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype):
    check(images(1, 17, 3, 4, dtype=dtype), pair(17, dtype=dtype))
    check(images(1, 17, 3, 4, dtype=dtype), [conv(17, 3, 1, dtype=dtype)], gelu=True)


def test_parameters_of_autocast():
    check(images(1, 6, 3, 4, dtype=torch.bfloat16), [conv(6, 3, 1)], gelu=True)


@pytest.mark.parametrize("bias", [True, False])
def test_three_by_three_and_gelu(bias):
    check(3 * images(2, 20, 4, 9), [conv(20, 3, 1, bias=bias)], gelu=True)


@pytest.mark.parametrize(("side", "dilation"), [(1, 1), (2, 3), (4, 2), (5, 3)])
def test_other_kernels(side, dilation):
    check(images(1, 3, 6, 5), [conv(3, side, dilation)])


@pytest.mark.parametrize("blocks", [Blocks(3, 4, 16, 1), Blocks(2, 4, 4, 1), Blocks(1, 16, 32, 2)])
def test_any_blocks(blocks, monkeypatch):
    monkeypatch.setattr(gpu, "blocks_for", lambda *case: blocks)
    check(images(2, 5, 8, 5), [conv(5, 3, 2)])


@pytest.mark.parametrize("make", [lambda x: x.transpose(2, 3), lambda x: x[:, ::2, 1:, ::2]])
def test_any_layout(make):
    x = make(images(1, 6, 5, 5))
    check(x, [conv(x.shape[1], 3, 1)])


def test_an_empty_batch():
    x, near = images(0, 4, 3, 3), conv(4, 3, 1)
    assert gpu.forward(x, [near]).shape == x.shape
    assert not any(t.any() for t in gpu.backward(x, x, [near], gelu=True))


def test_the_check_before_use_finds_damage(monkeypatch):
    assert gpu.check(torch.device("cpu")) < 1e-6
    convolve = gpu.convolve
    monkeypatch.setattr(gpu, "convolve", lambda *a, **k: convolve(*a, **k) * (1.001 if k.get("flip") else 1))
    assert gpu.check(torch.device("cpu")) == pytest.approx(1e-3, rel=0.1)
    monkeypatch.setattr(gpu, "convolve", lambda *a, **k: convolve(*a, **k) * torch.nan)
    assert gpu.check(torch.device("cpu")) == float("inf")


@pytest.fixture
def on_cpu(monkeypatch):
    """The CUDA side of the operators, as it is, on CPU tensors."""
    single, two = (kernel.depthwise, kernel.depthwise_backward), (kernel.depthwise_pair, kernel.depthwise_pair_backward)
    for operator in (*single, *two, kernel.depthwise_gelu_again):
        monkeypatch.setitem(operator._backend_fns, "cpu", operator._backend_fns["cuda"])
    monkeypatch.setattr(ops.depthwise, "kernel_available", lambda: True)
    monkeypatch.setattr(ops.chunked, "can_chunk", lambda *_, **__: False)
    monkeypatch.setattr(ops, "can_attend", lambda *_, **__: False)


def test_as_operators(on_cpu):
    (near, near_bias, _), (far, far_bias, _) = pair(3)
    x = images(1, 3, 2, 3)
    for leaf in (x, near, far, near_bias, far_bias):
        leaf.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(kernel.depthwise_pair, (x, near, near_bias, 1, far, far_bias, 3), test_utils=checks)
    torch.library.opcheck(kernel.depthwise, (x, far, None, 1, True), test_utils=checks)
    again = (x.detach(), x.detach(), far.detach(), None, 1)
    torch.library.opcheck(kernel.depthwise_gelu_again, again, test_utils=checks)


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_a_network_in_training(on_cpu, monkeypatch, memory_efficient):
    model, x, seen = tiny(embed_dims=(4, 5), depths=(1, 1), mlp_ratios=(2, 2), strides=(4, 2), patch_sizes=(7, 3),
                          out_indices=(1,)), images(2, 3, 16, 16), []  # fmt: skip
    convolve = gpu.convolve
    monkeypatch.setattr(gpu, "convolve", lambda *a, **k: seen.append(1) or convolve(*a, **k))
    monkeypatch.setattr(ops.recompute, "should_recompute", lambda x: True)
    model.backbone.set_memory_efficient(memory_efficient)
    ours = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    # per block: three forward; the pair's first again and two gradients; GELU's slope (or it and GELU) and a gradient
    assert len(seen) == 2 * (3 + 3 + 2)
    monkeypatch.setattr(ops.depthwise, "kernel_available", lambda: False)
    theirs = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    assert all(torch.allclose(one, two, rtol=1e-4, atol=1e-4) for one, two in zip(ours, theirs, strict=True))


@pytest.mark.promise("4")
@pytest.mark.parametrize("memory_efficient", [False, True])
@pytest.mark.parametrize("way", ["forward", "hook", "class"])
def test_wrapped_convolutions_are_called(on_cpu, monkeypatch, memory_efficient, way):
    model, x, calls = tiny(embed_dims=(4,), depths=(1,), mlp_ratios=(2,), strides=(4,), patch_sizes=(7,),
                           out_indices=(0,)), images(2, 3, 12, 12), []  # fmt: skip
    monkeypatch.setattr(ops.recompute, "should_recompute", lambda x: True)
    model.backbone.set_memory_efficient(memory_efficient)
    want = model(x)
    wrapped = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and ".blocks." in n]
    for module in wrapped:
        if way == "hook":
            module.register_forward_hook(lambda *call: calls.append(1))
        elif way == "class":
            torch.nn.utils.parametrize.register_parametrization(module, "weight", torch.nn.Identity())
        else:
            module.forward = lambda x, original=module.forward: calls.append(1) or original(x)
    if way == "class":
        monkeypatch.setattr(kernel, "depthwise_pair", None)  # what a fused path would call
    got = model(x)
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4)
    assert len(calls) == (0 if way == "class" else len(wrapped))
    got.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.promise("4")
@pytest.mark.parametrize("fault", ["device", "type", "size"])
def test_parameters_that_do_not_fit_are_never_read(fault):
    weight, bias, dilation = conv(4, 3, 1)
    if fault == "device":
        weight = weight.to("meta")
    elif fault == "type":
        weight, bias = weight.double(), bias.double()
    else:
        bias = bias[:2]
    with pytest.raises(ConfigError, match="do not fit a map"):
        gpu.forward(images(1, 4, 3, 3), [(weight, bias, dilation)])
    with pytest.raises(ConfigError, match="do not fit a map"):
        gpu.parameter_gradients(images(1, 4, 3, 3), images(1, 4, 3, 3), (weight, bias, dilation))
