"""What the Triton kernels are held to, on a GPU and under the interpreter: float64 autograd of the plain path."""

import torch
from networks import images

from van.ops import cuda_depthwise as gpu
from van.ops import reference as plain

# Of the largest value. Maps between two convolutions and gradients through them are rounded to the type.
ROUNDING = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def conv(channels, side, dilation, *, bias=True, dtype=torch.float32, device="cpu", seed=0):
    """(weight, bias, dilation) of a depthwise convolution."""
    weight = images(channels, 1, side, side, seed=seed + 1) / side
    shift = images(channels, seed=seed + 2).to(device, dtype) if bias else None
    return weight.to(device, dtype), shift, dilation


def pair(channels, **options):
    """The attention's two convolutions."""
    return [conv(channels, 5, 1, **options), conv(channels, 7, 3, seed=5, **options)]


def exact(tensor):
    return None if tensor is None else tensor.detach().double().requires_grad_()


def check(x, convs, *, gelu=False):
    """Values and every gradient of the kernels."""
    grad = images(*x.shape, seed=9).to(x)
    found = [gpu.forward(x, convs, gelu=gelu), *gpu.backward(grad, x, convs, gelu=gelu)]
    if gelu:
        again = gpu.gelu_again(grad, x, convs[0])
        assert all(torch.equal(one, two) for one, two in zip(again, found, strict=True))
    wanted_x, wanted = exact(x), [(exact(w), exact(b), d) for w, b, d in convs]
    y = plain.chain(wanted_x, wanted, gelu=gelu)
    leaves = [wanted_x, *(t for c in wanted for t in c[:2] if t is not None)]
    grads = iter(torch.autograd.grad(y, leaves, grad.double()))
    expected = [y, next(grads)]
    for weight, bias, _ in wanted:
        expected += [next(grads), grad.new_zeros(weight.shape[0]) if bias is None else next(grads)]
    for place, (got, want) in enumerate(zip(found, expected, strict=True)):
        assert got.shape == want.shape
        assert got.dtype == (x.dtype if place < 2 else convs[0][0].dtype)
        if place > 1 and place % 2 and convs[(place - 3) // 2][1] is None:
            continue  # the gradient of a bias that is not there is nobody's
        gap = (got.double() - want).abs().max() / want.abs().max().clamp(min=1)
        assert gap < ROUNDING[x.dtype], (place, gap)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert found[1].is_contiguous(memory_format=torch.channels_last)
