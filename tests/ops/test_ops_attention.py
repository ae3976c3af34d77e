"""The attention of training as one operator: against the plain path in float64, and as a citizen of PyTorch."""

import random

import pytest
import torch
from kernel_cases import ROUNDING, assert_same, assert_threads_change_nothing, drawn, flops
from networks import LAYOUTS, images, tiny
from torch import nn

from van import ops
from van.nn.backbone import Block
from van.nn.layers import DropPath
from van.ops import attend
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")

SIZES = [(1, 1), (1, 9), (7, 1), (7, 7), (13, 18), (40, 30)]


@pytest.fixture(autouse=True)
def _every_path():
    """What the kernel computes, whichever paths were measured to win here."""
    with ops.taking(*REPLACED):
        yield


def parameters(channels, *, bias=True, sides=(5, 7), dilations=(1, 3), dtype=torch.float32):
    """What the operator takes between n and the shortcut."""

    def square(seed):
        return drawn(channels, channels, 1, 1, seed=seed, dtype=dtype) / channels**0.5

    def taps(i):
        return drawn(channels, 1, sides[i], sides[i], seed=3 + i, dtype=dtype) / sides[i]

    biases = [drawn(channels, seed=i, dtype=dtype) if bias else None for i in range(10, 15)]
    pair = [taps(0), biases[1], dilations[0], taps(1), biases[2], dilations[1]]
    scale = drawn(channels, seed=20, dtype=dtype)
    return [square(0), biases[0], *pair, square(1), biases[3], square(2), biases[4], scale]


def leaves_of(given):
    return [t.requires_grad_() for t in given if isinstance(t, torch.Tensor)]


def check(n, given, shortcut=None, tolerance=ROUNDING):
    """Values and every gradient against float64 autograd of the plain path."""
    inputs = [n, *given, shortcut]
    exact = [t.detach().double() if isinstance(t, torch.Tensor) else t for t in inputs]
    leaves, wanted_leaves = leaves_of(inputs), leaves_of(exact)
    got, want = attend.operator(*inputs)[0], attend._plainly(exact)
    assert_same(got, want, leaves, wanted_leaves, tolerance)


class TestAgainstFloat64:
    @pytest.mark.parametrize("size", SIZES)
    def test_sizes(self, size):
        check(drawn(2, 20, *size), parameters(20), drawn(2, 20, *size, seed=30))

    @pytest.mark.parametrize("channels", range(1, 36))
    def test_every_remainder_of_channels(self, channels):
        bias = channels % 2 == 0
        check(
            drawn(3, channels, 5, 6),
            parameters(channels, bias=bias),
            drawn(3, channels, 5, 6, seed=30) if bias else None,
        )

    @pytest.mark.parametrize("seed", range(8))
    def test_fuzzed(self, seed, monkeypatch):
        draw = random.Random(seed)
        monkeypatch.setattr(attend, "SET_PIXELS", draw.randint(1, 200))
        shape = draw.randint(1, 5), draw.randint(1, 80), draw.randint(1, 24), draw.randint(1, 24)
        sides = draw.randint(1, 7), draw.randint(1, 7)
        given = parameters(shape[1], sides=sides, dilations=(draw.randint(1, 3), draw.randint(1, 3)))
        check(drawn(*shape, seed=seed), given, drawn(*shape, seed=30))

    @pytest.mark.parametrize("make", LAYOUTS)
    def test_any_layout(self, make):
        n = make(drawn(2, 12, 11, 11)).detach()
        check(n, parameters(n.shape[1]), make(drawn(2, 12, 11, 11, seed=30)).detach())

    def test_an_empty_batch(self):
        leaves = leaves_of(inputs := [drawn(0, 4, 8, 8), *parameters(4), None])
        attend.operator(*inputs)[0].sum().backward()
        assert all(not leaf.grad.any() for leaf in leaves)


class TestGradients:
    """The same source in double precision."""

    def test_gradcheck(self):
        inputs = [drawn(2, 3, 3, 4, dtype=torch.float64), *parameters(3, dtype=torch.float64)]
        inputs.append(drawn(2, 3, 3, 4, seed=30, dtype=torch.float64))

        def function(*tensors):
            rest = list(tensors)
            return attend.operator(*(rest.pop(0) if isinstance(t, torch.Tensor) else t for t in inputs))[0]

        leaves = leaves_of(inputs)
        assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)

    def test_double_precision_agrees_to_its_rounding(self):
        given = parameters(19, dtype=torch.float64)
        check(drawn(2, 19, 9, 8, dtype=torch.float64), given, tolerance=1e-13)

    def test_only_what_is_asked_for(self):
        n, given = drawn(1, 4, 6, 6), parameters(4)
        given[8].requires_grad_()
        attend.operator(n, *given, None)[0].sum().backward()
        assert n.grad is None
        assert given[0].grad is None
        assert given[8].grad is not None

    def test_no_gradient_depends_on_the_number_of_threads(self):
        inputs = [drawn(3, 21, 17, 12), *parameters(21), drawn(3, 21, 17, 12, seed=30)]
        leaves = leaves_of(inputs)

        def compute():
            y = attend.operator(*inputs)[0]
            return y, *torch.autograd.grad(y.square().sum(), leaves)

        assert_threads_change_nothing(compute)


class TestCitizen:
    @pytest.mark.parametrize("bias", [True, False])
    def test_opcheck(self, bias):
        inputs = [drawn(2, 4, 5, 3), *parameters(4, bias=bias), drawn(2, 4, 5, 3, seed=30) if bias else None]
        leaves_of(inputs)
        torch.library.opcheck(attend.operator, tuple(inputs))

    def test_flops_are_those_of_the_convolutions(self):
        inputs = [drawn(3, 4, 5, 6), *parameters(4), None]
        leaves_of(inputs)

        forward = 2 * 90 * (3 * 4 * 4 + 25 * 4 + 49 * 4)
        assert flops(lambda: attend.operator(*inputs)) == forward
        assert flops(lambda: attend.operator(*inputs)[0].sum().backward()) == 3 * forward


def block(channels=12, rate=0.0):
    torch.manual_seed(0)
    made = Block(channels, 3 * channels, rate, tiny().config)
    with torch.no_grad():
        made.scale1.uniform_(0.2, 0.8)
        made.scale2.uniform_(0.2, 0.8)
    return made


def near(got, want):
    """Whether each is the other but for rounding, which sums in another order have."""
    pairs = zip(got, want, strict=True)
    return all((one - two).abs().max() <= 2e-5 * two.abs().max() for one, two in pairs)


@pytest.fixture
def calls(monkeypatch):
    """How often blocks asked for it."""
    seen, real = [], attend.operator
    monkeypatch.setattr(attend, "operator", lambda *given: seen.append(1) or real(*given))
    return seen


def results(made, x, seed=1):
    """Result, gradients of x and of every parameter, buffers."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    y = made(x)
    wanted = [x, *(p for p in made.parameters() if p.requires_grad)]
    return [y, *torch.autograd.grad(y.square().sum(), wanted), *made.buffers()]


class TestInTheNetwork:
    @pytest.mark.parametrize("rate", [0.0, 0.4])
    @pytest.mark.parametrize("training", [True, False])
    def test_it_is_the_block_that_is_written(self, calls, rate, training):
        x, at_once, plainly = drawn(4, 12, 9, 7), block(rate=rate).train(training), block(rate=rate).train(training)
        got = results(at_once, x)
        assert calls == [1] * training  # in evaluation the modules, with gradients or without
        with ops.without_kernels():
            want = results(plainly, x)
        assert calls == [1] * training
        assert near(got, want)

    def test_without_gradients_training_takes_the_same_way(self, calls):
        made, x = block(), drawn(2, 12, 5, 5)
        with torch.no_grad():
            first = made(x)
        assert torch.equal(made(x), first)
        assert calls == [1, 1]

    def test_nothing_is_computed_for_gradients_that_nobody_wants(self, calls):
        made, x = block().eval(), drawn(2, 12, 5, 5)
        with torch.no_grad():
            made(x)
        assert calls == []

    def test_frozen_parameters_get_no_gradient(self, calls):
        made = block()
        made.attention.spatial.requires_grad_(False)
        made.scale1.requires_grad_(False)
        got = results(made, drawn(2, 12, 5, 5))
        with ops.without_kernels():
            want = results(made, drawn(2, 12, 5, 5))
        assert calls == [1]
        assert near(got[:12], want[:12])

    @pytest.mark.parametrize(
        "name",
        [
            "attention",
            "attention.spatial",
            "attention.proj_in",
            "attention.spatial.mix",
            "feed_forward",
            "feed_forward.project",
        ],
    )
    def test_a_hooked_module_is_called(self, calls, name):
        made, seen = block(), []
        made.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
        made(drawn(1, 12, 5, 5))
        assert (seen, calls) == ([1], [])

    @pytest.mark.parametrize("name", ["norm1", "norm2", "drop_path"])
    @pytest.mark.parametrize("rate", [0.0, 0.4])
    def test_hooks_around_it_are_called(self, calls, name, rate):
        made, seen = block(rate=rate), []
        made.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
        made(drawn(1, 12, 5, 5))
        assert calls == [1]
        assert len(seen) == (2 if name == "drop_path" else 1)

    def test_other_drop_paths_and_norms_are_called(self, calls):
        class Half(nn.Module):
            def forward(self, x):
                return 0.5 * x

        made, x = block(), drawn(2, 12, 5, 5)
        made.drop_path, made.norm1 = Half(), nn.GroupNorm(3, 12)
        got = results(made, x)
        with ops.without_kernels():
            want = results(made, x)
        assert calls == [1]
        assert near(got, want)

    def test_dropped_paths_are_those_that_are_written(self):
        drop, x = DropPath(0.5).train(), drawn(64, 3, 2, 2)
        torch.manual_seed(0)
        kept = drop(x)
        torch.manual_seed(0)
        assert torch.equal(kept, x * drop.factors(x))
        assert set(drop.factors(x).flatten().tolist()) == {0.0, 2.0}

    def test_what_it_does_not_serve(self, calls):
        made, x = block(), drawn(2, 12, 5, 5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made(x)
        made.double()(x.double())
        made.float()
        with ops.without_kernels():
            made(x)
        made.eval()(x)
        made.train().attention.spatial.gate = "add"
        made(x)
        assert calls == []

    def test_a_network_trains_on_it(self, calls):
        model = tiny()
        model(images(2, 3, 128, 128)).sum().backward()
        assert len(calls) == sum(model.config.depths)
        assert all(p.grad is not None for p in model.parameters())

    def test_fewer_pixels_than_channels_are_left_to_the_modules(self, calls):
        made = block()
        made(drawn(1, 12, 1, 11))
        assert calls == []
        made(drawn(1, 12, 2, 6))
        assert calls == [1]

    def test_a_compiled_block_trains_on_it(self):
        made, x = block(), drawn(2, 12, 6, 6)
        compiled = torch.compile(made, backend="aot_eager")
        got = results(compiled, x)[:3]
        want = results(block(), x)[:3]
        assert near(got, want)
