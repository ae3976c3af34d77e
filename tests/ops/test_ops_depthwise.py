"""The depthwise convolutions of the C kernel: against the plain path in float64, values and gradients."""

import random

import pytest
import torch
from kernel_cases import assert_threads_change_nothing, check, conv, drawn, pair
from networks import LAYOUTS, tiny

from van import ops
from van.nn import fold
from van.ops import cpu_depthwise as kernel
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")

SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (7, 7), (13, 18), (56, 30)]


@pytest.fixture(autouse=True)
def _every_path():
    """What the kernel computes, whichever paths were measured to win here (test_ops_families.py)."""
    with ops.taking(*REPLACED):
        yield


class TestAgainstFloat64:
    @pytest.mark.parametrize("size", SIZES)
    def test_the_pair(self, size):
        check(drawn(2, 20, *size), pair(20))

    @pytest.mark.parametrize("size", SIZES)
    def test_three_by_three_and_gelu(self, size):
        check(3 * drawn(2, 20, *size), [conv(20, 3, 1)], gelu=True)

    @pytest.mark.parametrize("channels", range(1, 36))
    def test_every_remainder_of_channels(self, channels):
        check(drawn(1, channels, 5, 6), pair(channels, bias=channels % 2 == 0))
        check(drawn(3, channels, 5, 6), [conv(channels, 3, 1, bias=channels % 2 == 1)], gelu=True)

    @pytest.mark.parametrize(("side", "dilation"), [(1, 1), (2, 1), (4, 2), (5, 3), (6, 3), (7, 4), (9, 1), (11, 2)])
    def test_other_kernels(self, side, dilation):
        check(drawn(2, 18, 12, 17), [conv(18, side, dilation)])
        check(drawn(1, 18, 4, 3), [conv(18, side, dilation)], gelu=True)

    @pytest.mark.parametrize("seed", range(12))
    def test_fuzzed(self, seed):
        draw = random.Random(seed)
        shape = draw.randint(1, 4), draw.randint(1, 70), draw.randint(1, 40), draw.randint(1, 40)
        convs = [conv(shape[1], draw.randint(1, 9), draw.randint(1, 4), seed=i) for i in range(draw.randint(1, 2))]
        check(drawn(*shape, seed=seed), convs, gelu=len(convs) == 1 and draw.random() < 0.5)

    @pytest.mark.parametrize("make", LAYOUTS)
    def test_any_layout(self, make):
        x = make(drawn(2, 36, 11, 11)).detach()
        check(x, pair(x.shape[1]))

    def test_a_map_that_needs_several_bands(self):
        check(drawn(1, 3, 150, 90), pair(3))

    def test_gelu_over_its_range(self):
        x = torch.cat([torch.linspace(-15, 15, 60_001), torch.tensor([0.0, -0.0, 1e-30, 3e4, -3e4])])[None, None, None]
        got = kernel.depthwise(x, torch.ones(1, 1, 1, 1), None, 1, True).double()
        want = torch.nn.functional.gelu(x.double())
        assert ((got - want).abs() <= 1e-6 * want.abs().clamp(min=1)).all()  # PyTorch's own: 1.2e-6
        assert (got - want).abs()[x.abs() < 3].max() < 5e-7

    def test_not_a_number_stays(self):
        x = drawn(1, 16, 9, 9)
        x[0, 3, 4, 4] = torch.nan
        assert kernel.depthwise(x, *conv(16, 3, 1), True).isnan().sum() == 9

    def test_an_empty_batch(self):
        x = drawn(0, 16, 8, 8).requires_grad_()
        weight, bias, _ = conv(16, 3, 1)
        y = kernel.depthwise(x, weight.requires_grad_(), bias, 1, True)
        y.sum().backward()
        assert y.shape == x.shape
        assert not weight.grad.any()


class TestGradients:
    """The same source in double precision."""

    def test_gradcheck_of_the_pair(self):
        (near, near_bias, _), (far, far_bias, _) = pair(9, dtype=torch.float64)
        leaves = [t.requires_grad_() for t in (drawn(2, 9, 5, 4, dtype=torch.float64), near, near_bias, far, far_bias)]
        assert torch.autograd.gradcheck(
            lambda x, a, b, c, d: kernel.depthwise_pair(x, a, b, 1, c, d, 3), leaves, fast_mode=True
        )

    def test_gradcheck_with_gelu(self):
        weight, bias, _ = conv(9, 3, 1, dtype=torch.float64)
        leaves = [t.requires_grad_() for t in (drawn(2, 9, 4, 3, dtype=torch.float64), weight, bias)]
        assert torch.autograd.gradcheck(lambda x, w, b: kernel.depthwise(x, w, b, 1, True), leaves)
        assert torch.autograd.gradgradcheck(lambda x, w, b: kernel.depthwise(x, w, b, 1, True), leaves, fast_mode=True)

    def test_only_what_is_asked_for(self):
        x, (weight, bias, _) = drawn(1, 8, 6, 6), conv(8, 3, 1)
        kernel.depthwise(x, weight.requires_grad_(), bias, 1, False).sum().backward()
        assert x.grad is None
        assert bias.grad is None
        assert weight.grad is not None

    def test_double_precision_agrees_to_its_rounding(self):
        check(drawn(2, 21, 9, 8, dtype=torch.float64), pair(21, dtype=torch.float64), tolerance=1e-13)


def test_results_do_not_depend_on_threads():
    block, x = fold(tiny()).backbone.stages[0].blocks[0], drawn(3, 8, 33, 20)

    def compute():
        y, leaf = drawn(5, 24, 30, 17), [t.requires_grad_() for c in pair(24) for t in c[:2]]
        out = kernel.depthwise_pair(y, leaf[0], leaf[1], 1, leaf[2], leaf[3], 3)
        grads = torch.autograd.grad(out.square().sum(), leaf)
        with torch.no_grad():
            return [out, *grads, block(x)]

    assert_threads_change_nothing(compute)
