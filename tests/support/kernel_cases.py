"""Checks of the C kernel's operators against the plain path in float64, and depthwise convolutions to check."""

import torch
from networks import gap
from torch.utils.flop_counter import FlopCounterMode

from van.ops import cpu_depthwise as kernel
from van.ops import reference as plain

ROUNDING = 5e-6  # of the largest value, float32 against float64


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def conv(channels, side, dilation, *, seed=0, bias=True, dtype=torch.float32):
    weight = drawn(channels, 1, side, side, seed=seed, dtype=dtype) / side
    return weight, drawn(channels, seed=seed + 1, dtype=dtype) if bias else None, dilation


def exact(tensor):
    return None if tensor is None else tensor.detach().double().requires_grad_()


def check(x, convs, *, gelu=False, tolerance=ROUNDING):
    """The kernel's values and gradients against float64 autograd of the plain path."""
    leaves = [x, *(t for c in convs for t in c[:2] if t is not None)]
    for leaf in leaves:
        leaf.requires_grad_()
    got = kernel.depthwise(x, *convs[0], gelu) if len(convs) == 1 else kernel.depthwise_pair(x, *convs[0], *convs[1])
    wanted_x, wanted = exact(x), [(exact(w), exact(b), d) for w, b, d in convs]
    want = plain.chain(wanted_x, wanted, gelu=gelu)
    assert_same(got, want, leaves, [wanted_x, *(t for c in wanted for t in c[:2] if t is not None)], tolerance)


def assert_same(got, want, leaves, wanted_leaves, tolerance=ROUNDING):
    """A kernel's result and its gradients of the leaves are those in float64."""
    assert got.shape == want.shape
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert gap(got, want) < tolerance
    probe = drawn(*got.shape, seed=9, dtype=got.dtype)
    theirs = torch.autograd.grad(want, wanted_leaves, probe.double())
    for ours, other in zip(torch.autograd.grad(got, leaves, probe), theirs, strict=True):
        assert ours.shape == other.shape
        assert (ours - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


def assert_threads_change_nothing(compute, numbers=(1, 2, 2, 5)):
    """However many threads there are, the tensors that it gives are the same to the bit."""
    before, results = torch.get_num_threads(), []
    try:
        for threads in numbers:
            torch.set_num_threads(threads)
            results.append(compute())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def flops(function):
    """The floating-point operations that PyTorch counts in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def pair(channels, **options):
    return [conv(channels, 5, 1, **options), conv(channels, 7, 3, seed=2, **options)]
