"""The operators of training on every build of the kernel, AMX's with its tiles in plain C too."""

import pytest
import torch
from kernel_builds import BUILDS, in_use
from kernel_cases import ROUNDING, drawn

from van import ops
from van.ops import attend, chunked
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")


@pytest.fixture(params=BUILDS, autouse=True)
def _build(request, monkeypatch):
    with in_use(request.param, monkeypatch), ops.taking(*REPLACED):
        yield


def check(operator, plainly, inputs):
    """Values and every gradient against float64 autograd of the plain path."""
    exact = [t.double() if isinstance(t, torch.Tensor) else t for t in inputs]
    leaves, wanted = ([t.requires_grad_() for t in some if isinstance(t, torch.Tensor)] for some in (inputs, exact))
    got, want = operator(*inputs), plainly(exact)
    got = got[0] if isinstance(got, tuple) else got
    probe = drawn(*got.shape, seed=99)
    ours, theirs = torch.autograd.grad(got, leaves, probe), torch.autograd.grad(want, wanted, probe.double())
    for one, two in zip((got, *ours), (want, *theirs), strict=True):
        assert (one - two).abs().max() <= ROUNDING * two.abs().max().clamp(min=1)


@pytest.mark.parametrize("channels", [2, 7, 16, 33, 70])
def test_feed_forward(channels):
    hidden = 3 * channels
    weights = drawn(hidden, channels, 1, 1, seed=1) / channels**0.5, drawn(channels, hidden, 1, 1, seed=2) / hidden**0.5
    near = drawn(hidden, 1, 3, 3, seed=3) / 3, drawn(hidden, seed=4), 1
    maps = drawn(3, channels, 7, 6, seed=5), drawn(3, channels, 7, 6, seed=6)
    inputs = [*maps, weights[0], drawn(hidden, seed=7), *near, weights[1], drawn(channels, seed=8)]
    check(chunked.feed_forward_onto, chunked._sum_plainly, inputs)


@pytest.mark.parametrize("channels", [2, 7, 16, 33, 70])
def test_attention(channels):
    n, shortcut = drawn(3, channels, 7, 6), drawn(3, channels, 7, 6, seed=1)
    enter, mix, leave = (
        [drawn(channels, channels, 1, 1, seed=i) / channels**0.5, drawn(channels, seed=i + 1)] for i in (2, 4, 6)
    )
    near = drawn(channels, 1, 5, 5, seed=8) / 5, drawn(channels, seed=9), 1
    far = drawn(channels, 1, 7, 7, seed=10) / 7, drawn(channels, seed=11), 3
    scale = drawn(channels, seed=12)
    check(attend.operator, attend._plainly, [n, *enter, *near, *far, *mix, *leave, scale, shortcut])
