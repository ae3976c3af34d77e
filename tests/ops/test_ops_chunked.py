"""The chunked feed-forward: against the plain path in float64, whatever the chunks, and as a citizen of PyTorch."""

import contextvars
import random
import threading

import pytest
import torch
from kernel_cases import ROUNDING, assert_same, assert_threads_change_nothing, drawn, flops
from networks import LAYOUTS, gap, images, tiny

from van import ops
from van.nn.backbone import FeedForward
from van.ops import chunked, sliced
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")

SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (7, 7), (13, 18), (56, 30)]


SLICED = ("sliced_feed_forward", "sliced_feed_forward_training")


@pytest.fixture(params=["sliced", "chunks"], autouse=True)
def _way(request):
    """Panels of channels in the kernel, or chunks of images with PyTorch's products; whichever was measured to win."""
    with ops.taking(*(path for path in REPLACED if request.param == "sliced" or path not in SLICED)):
        yield


def parameters(channels, hidden, results, *, bias=True, side=3, dtype=torch.float32):
    """What the operator takes after x."""
    shapes = (hidden, channels, 1, 1), (hidden, 1, side, side), (results, hidden, 1, 1)
    weights = [drawn(*s, seed=i + 1, dtype=dtype) / (s[1] * s[2] * s[3]) ** 0.5 for i, s in enumerate(shapes)]
    biases = [drawn(s[0], seed=i + 4, dtype=dtype) if bias else None for i, s in enumerate(shapes)]
    return [weights[0], biases[0], weights[1], biases[1], 1, weights[2], biases[2]]


def leaves_of(x, given):
    return [t.requires_grad_() for t in (x, *given) if isinstance(t, torch.Tensor)]


def exact(given):
    return [t.detach().double() if isinstance(t, torch.Tensor) else t for t in given]


def check(x, given, tolerance=ROUNDING):
    """Values and every gradient against float64 autograd of the plain path."""
    leaves, got = leaves_of(x, given), chunked.feed_forward(x, *given)
    wanted_x, *wanted = exact([x, *given])
    wanted_leaves = leaves_of(wanted_x, wanted)
    want = chunked._plainly([wanted_x, *wanted])
    assert_same(got, want, leaves, wanted_leaves, tolerance)


class TestAgainstFloat64:
    @pytest.mark.parametrize("size", SIZES)
    def test_sizes(self, size):
        check(drawn(2, 5, *size), parameters(5, 20, 7))

    @pytest.mark.parametrize("hidden", range(1, 36))
    def test_every_remainder_of_channels(self, hidden):
        check(drawn(3, 1 + hidden % 5, 5, 6), parameters(1 + hidden % 5, hidden, 3, bias=hidden % 2 == 1))

    @pytest.mark.parametrize("seed", range(8))
    def test_fuzzed_in_chunks(self, seed, monkeypatch):
        draw = random.Random(seed)
        batch, channels, hidden = draw.randint(1, 20), draw.randint(1, 20), draw.randint(1, 70)
        height, width = draw.randint(1, 24), draw.randint(1, 24)
        monkeypatch.setattr(chunked, "CHUNK_BYTES", draw.randint(1, 8) * 4 * hidden * height * width)
        given = parameters(channels, hidden, draw.randint(1, 20), side=draw.choice([1, 2, 3, 5]))
        check(drawn(batch, channels, height, width, seed=seed), given)

    def test_chunks_cover_every_image_once(self, monkeypatch):
        monkeypatch.setattr(chunked, "CHUNK_BYTES", 3 * 4 * 16 * 6)
        chunks = list(chunked._chunks(torch.zeros(10, 2, 3, 4), torch.zeros(16, 1, 3, 3), maps=2))
        assert [len(maps[0]) for _, maps in chunks] == [3, 3, 3, 1]
        assert [number for some, _ in chunks for number in range(10)[some]] == list(range(10))

    @pytest.mark.parametrize("seed", range(8))
    def test_fuzzed_in_sets_and_groups(self, seed, monkeypatch):
        draw = random.Random(seed)
        for name in ("PIXELS", "SETS", "UNITS"):
            monkeypatch.setattr(sliced, name, draw.randint(1, 20))
        given = parameters(
            draw.randint(1, 40), draw.randint(1, 150), draw.randint(1, 40), side=draw.choice([1, 2, 3, 5])
        )
        check(drawn(draw.randint(1, 9), given[0].shape[1], draw.randint(1, 9), draw.randint(1, 9), seed=seed), given)

    def test_many_channels(self):
        check(drawn(3, 70, 5, 4), parameters(70, 300, 90))

    @pytest.mark.parametrize("make", LAYOUTS)
    def test_any_layout(self, make):
        x = make(drawn(2, 12, 11, 11)).detach()
        check(x, parameters(x.shape[1], 40, 12))

    def test_an_empty_batch(self):
        given = parameters(4, 16, 4)
        leaves = leaves_of(x := drawn(0, 4, 8, 8), given)
        chunked.feed_forward(x, *given).sum().backward()
        assert all(not leaf.grad.any() for leaf in leaves)


class TestGradients:
    """The same source in double precision."""

    def test_gradcheck(self):
        given = parameters(3, 9, 2, dtype=torch.float64)
        leaves = leaves_of(drawn(2, 3, 4, 3, dtype=torch.float64), given)

        def function(x, a, b, c, d, e, f):
            return chunked.feed_forward(x, a, b, c, d, 1, e, f)

        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)

    def test_double_precision_agrees_to_its_rounding(self):
        check(drawn(2, 5, 9, 8, dtype=torch.float64), parameters(5, 21, 5, dtype=torch.float64), tolerance=1e-13)

    def test_only_what_is_asked_for(self):
        x, given = drawn(1, 4, 6, 6), parameters(4, 8, 4)
        chunked.feed_forward(x, given[0], given[1], given[2].requires_grad_(), *given[3:]).sum().backward()
        assert x.grad is None
        assert given[0].grad is None
        assert given[2].grad is not None

    def test_only_the_input_is_kept(self):
        kept, x, given = [], drawn(2, 4, 16, 16), parameters(4, 32, 4)
        leaves = leaves_of(x, given)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            chunked.feed_forward(x, *given)
        assert sorted(kept) == sorted(t.numel() for t in leaves)

    def test_the_same_twice(self):
        x, given = drawn(2, 4, 9, 9), parameters(4, 20, 4)
        y = chunked.feed_forward(x, *given[:2], given[2].requires_grad_(), *given[3:])
        first, second = (torch.autograd.grad(y.sum(), given[2], retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)

    def test_sums_do_not_depend_on_threads(self):
        _, shift, *conv, dilation, _, _ = parameters(4, 40, 4)

        def compute():
            hidden, change = drawn(5, 17, 12, 40), drawn(5, 17, 12, 40, seed=1)
            return hidden, change, chunked._activate_backward(hidden, shift, (*conv, dilation), change)

        assert_threads_change_nothing(compute)


class TestDivision:
    def test_no_gradient_depends_on_the_number_of_threads(self):
        x, given = drawn(5, 9, 7, 6), parameters(9, 140, 11)
        leaves = leaves_of(x, given)

        def compute():
            y = chunked.feed_forward(x, *given)
            return y, *torch.autograd.grad(y.square().sum(), leaves)

        with ops.taking(*REPLACED):
            assert_threads_change_nothing(compute)

    @pytest.mark.parametrize(("shape", "found"), [
        ((8, 56 * 56, 8), (8, 1, 1)),
        ((8, 14 * 14, 20), (2, 4, 4)),
        ((8, 49, 32), (1, 8, 8)),
        ((128, 56 * 56, 8), (16, 1, 1)),
        ((1, 10_000, 3), (1, 3, 1)),
    ])  # fmt: skip
    def test_small_maps_are_divided_by_channels(self, shape, found):
        assert sliced.division(*shape) == found


class TestScratch:
    @pytest.fixture(autouse=True)
    def _chunks(self):
        with ops.taking(*(path for path in REPLACED if path not in SLICED)):
            yield

    def test_memory_of_inference_serves_training(self, monkeypatch):
        monkeypatch.setattr(chunked, "_thread", threading.local())
        x, given = drawn(2, 4, 8, 8), parameters(4, 16, 4)
        with torch.inference_mode():
            chunked.feed_forward(x, *given)
        kept = chunked._thread.memory
        check(x, given)
        chunked.feed_forward(x[:1], *given)
        assert chunked._thread.memory.numel() == 2 * kept.numel()  # what a backward pass needs, never less again

    def test_each_thread_has_its_own(self):
        x, given, results = drawn(2, 4, 8, 8), parameters(4, 16, 4), []
        contexts = [contextvars.copy_context() for _ in range(4)]  # with the paths of this one
        workers = [
            threading.Thread(target=context.run, args=(lambda: results.append(chunked.feed_forward(x, *given)),))
            for context in contexts
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(torch.equal(result, chunked.feed_forward(x, *given)) for result in results)

    def test_float64_after_float32(self, monkeypatch):
        monkeypatch.setattr(chunked, "_thread", threading.local())
        chunked._scratch(3, torch.zeros(1))
        assert chunked._scratch(1, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


class TestOnto:
    """The same, added to a shortcut."""

    def test_values_and_gradients(self):
        x, shortcut, given = drawn(2, 5, 9, 7), drawn(2, 7, 9, 7, seed=30), parameters(5, 70, 7)
        got_leaves, exact_x, *wanted = leaves_of(x, given), *exact([x, *given])
        wanted_leaves, exact_shortcut = leaves_of(exact_x, wanted), shortcut.double().requires_grad_()
        got = chunked.feed_forward_onto(shortcut.requires_grad_(), x, *given)
        want = chunked._sum_plainly([exact_shortcut, exact_x, *wanted])
        assert_same(got, want, [shortcut, *got_leaves], [exact_shortcut, *wanted_leaves])

    def test_opcheck(self):
        given = parameters(4, 10, 6)
        x, shortcut = drawn(2, 4, 5, 3), drawn(2, 6, 5, 3, seed=30).requires_grad_()
        leaves_of(x, given)
        torch.library.opcheck(chunked.feed_forward_onto, (shortcut, x, *given))

    @pytest.mark.parametrize("kernels", [True, False])
    def test_scaled(self, kernels):
        x, shortcut, scale = drawn(2, 5, 9, 7), drawn(2, 7, 9, 7, seed=30), drawn(7, seed=31)
        first, first_bias, near, near_bias, _, last, last_bias = given = parameters(5, 20, 7)
        layers = (first, first_bias), (near, near_bias, 1), (last, last_bias)
        want = shortcut + scale[:, None, None] * chunked._plainly([x, *given])
        with ops.taking(*(REPLACED if kernels else ())):
            assert gap(ops.chunked_feed_forward(x, *layers, scale=scale, shortcut=shortcut), want) < ROUNDING
            assert gap(ops.chunked_feed_forward(x, *layers, scale=scale) + shortcut, want) < ROUNDING


class TestCitizen:
    def test_opcheck(self):
        for bias in (True, False):
            given = parameters(4, 10, 6, bias=bias)
            x = drawn(2, 4, 5, 3)
            leaves_of(x, given)
            torch.library.opcheck(chunked.feed_forward, (x, *given))

    def test_flops_are_those_of_the_convolutions(self):
        inputs = [drawn(3, 4, 5, 6), *parameters(4, 10, 6)]
        leaves_of(*inputs[:1], inputs[1:])

        forward = 2 * 90 * (4 * 10 + 9 * 10 + 10 * 6)
        assert flops(lambda: chunked._plainly(inputs)) == forward
        assert flops(lambda: chunked.feed_forward(*inputs)) == forward
        assert flops(lambda: chunked.feed_forward(*inputs).sum().backward()) == 3 * forward


class TestInTheNetwork:
    @pytest.fixture
    def calls(self, monkeypatch):
        """How often the network asked for it."""
        seen = []
        for name in ("feed_forward", "feed_forward_onto"):
            real = getattr(chunked, name)
            monkeypatch.setattr(chunked, name, lambda *given, real=real: seen.append(1) or real(*given))
        return seen

    def test_it_is_the_modules(self, calls, monkeypatch):
        torch.manual_seed(0)
        layer, x = FeedForward(8, 24, 0.0), drawn(2, 8, 9, 7)
        at_once = layer(x)
        assert calls == [1]
        monkeypatch.setattr(chunked, "can_chunk", lambda *_, **__: False)
        assert gap(at_once, layer(x)) < ROUNDING
        assert calls == [1]

    @pytest.mark.parametrize("name", ["expand", "depthwise", "project"])
    def test_a_hooked_module_is_called(self, calls, name):
        layer, seen = FeedForward(8, 24, 0.0), []
        getattr(layer, name).register_forward_hook(lambda *_: seen.append(1))
        layer(drawn(1, 8, 5, 5))
        assert (seen, calls) == ([1], [])

    def test_dropout_in_training_takes_the_modules(self, calls):
        layer, x = FeedForward(8, 24, 0.5), drawn(1, 8, 5, 5)
        layer(x)
        assert calls == []
        layer.eval()(x)
        assert calls == [1]

    def test_what_it_does_not_serve(self, calls):
        layer, x = FeedForward(8, 24, 0.0), drawn(1, 8, 5, 5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        layer.double()(x.double())
        with ops.without_kernels():
            layer.float()(x)
        assert calls == []

    def test_a_network_trains_on_it(self, calls):
        model = tiny()
        model(images()).sum().backward()
        assert len(calls) == sum(model.config.depths)
        assert all(p.grad is not None for p in model.parameters())
