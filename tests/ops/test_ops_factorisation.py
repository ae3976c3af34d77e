"""The factorisation of a map and the GroupNorm of its product: the published steps, in every build of the C kernel."""

import numpy as np
import pytest
import torch
from kernel_builds import BUILDS, in_use
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from van import ops
from van.errors import ConfigError
from van.nn.hamburger import EPSILON, update_bases, update_coefficients
from van.ops import factorisation
from van.ops.c_library import library

EXACT, ROUNDING = 1e-12, 5e-6  # of the largest value: in float64, in float32
STEPS = 7
needs_kernel = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(n, p, d, r, *, seed=0, dtype=torch.float32):
    """Pixels as ReLU leaves them, half of them zeros, and bases as a network's."""
    pixels, bases = drawn(n, p, d, seed=seed), drawn(n, d, r, seed=seed + 1)
    return pixels.relu().to(dtype), F.normalize(bases.abs(), dim=1).to(dtype)


def published(pixels, bases, steps):
    """The updates as the network states them, in float64."""
    pixels, bases = pixels.double(), bases.double()
    coefficients = F.softmax(pixels @ bases, dim=-1)
    for _ in range(steps):
        coefficients = update_coefficients(pixels.mT, bases, coefficients)
        bases = update_bases(pixels.mT, bases, coefficients)
    return bases, update_coefficients(pixels.mT, bases, coefficients)


def close(got, want, tolerance=EXACT):
    for ours, theirs in zip(got, want, strict=True):
        scale = max(1, theirs.abs().max().item()) if theirs.numel() else 1
        torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance * scale, rtol=0)


def spied(monkeypatch):
    """Grows by 1 at every call of the kernel."""
    calls, function = [], factorisation.operator
    monkeypatch.setattr(factorisation, "operator", lambda *given: calls.append(1) or function(*given))
    return calls


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 30, 12, 4), (3, 7, 20, 5)])
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_the_factors_are_those_of_the_published_steps(shape, steps):
    pixels, bases = problem(*shape, dtype=torch.float64)
    kept = bases.clone()
    close(ops.factorise(pixels, bases, steps, EPSILON), published(pixels, bases, steps))
    assert torch.equal(bases, kept)


# --- the kernel


@pytest.mark.promise("0")
@pytest.mark.parametrize("build", BUILDS)
class TestEveryBuild:
    @pytest.fixture(autouse=True)
    def _in_use(self, build, monkeypatch):
        with in_use(build, monkeypatch), ops.taking("factorisation"):
            yield

    def test_every_remainder_of_the_rank(self, monkeypatch):
        calls = spied(monkeypatch)
        for rank in range(1, 36):
            given = problem(1 + rank % 3, 40 + rank, 24, rank)
            close(ops.factorise(*given, STEPS, EPSILON), published(*given, STEPS), ROUNDING)
        assert len(calls) == 35

    def test_every_remainder_of_pixels_and_channels(self):
        for count in range(1, 36):
            given = problem(2, count, 37 - count, 5)
            close(ops.factorise(*given, STEPS, EPSILON), published(*given, STEPS), ROUNDING)

    @pytest.mark.parametrize("seed", range(8))
    def test_drawn_shapes(self, seed):
        draw = np.random.default_rng(seed)
        shape = [
            int(n) for n in (draw.integers(1, 4), draw.integers(1, 1800), draw.integers(1, 90), draw.integers(1, 80))
        ]
        given, steps = problem(*shape, seed=seed), int(draw.integers(0, 8))
        kept = [tensor.clone() for tensor in given]
        got = ops.factorise(*given, steps, EPSILON)
        close(got, published(*given, steps), 2 * ROUNDING)
        assert all(factor.is_contiguous() for factor in got)
        assert all(map(torch.equal, given, kept))

    @pytest.mark.parametrize("shape", [(1, 2100, 20, 33), (3, 513, 17, 8)])
    def test_the_number_of_threads_changes_nothing(self, shape):
        given, before = problem(*shape), torch.get_num_threads()
        try:
            found = []
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                found.append(ops.factorise(*given, STEPS, EPSILON))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(ours, one) for other in found for ours, one in zip(other, found[0], strict=True))

    def test_an_image_does_not_depend_on_its_batch(self):
        pixels, bases = problem(3, 700, 20, 9)
        together = ops.factorise(pixels, bases, STEPS, EPSILON)
        for i in range(3):
            alone = ops.factorise(pixels[i : i + 1], bases[i : i + 1], STEPS, EPSILON)
            assert all(torch.equal(one[0], all_[i]) for one, all_ in zip(alone, together, strict=True))

    def test_tensors_with_strides(self, monkeypatch):
        calls, (pixels, bases) = spied(monkeypatch), problem(2, 60, 14, 6)
        want = ops.factorise(pixels, bases, STEPS, EPSILON)
        wide = torch.full((2, 60, 20), torch.nan)
        wide[..., 3:17] = pixels
        for other in (pixels.mT.contiguous().mT, wide[..., 3:17]):
            assert all(map(torch.equal, ops.factorise(other, bases, STEPS, EPSILON), want))
        assert all(map(torch.equal, ops.factorise(pixels, bases.mT.contiguous().mT, STEPS, EPSILON), want))
        one = bases[:1].expand(2, -1, -1)
        assert torch.equal(
            ops.factorise(pixels, one, STEPS, EPSILON)[0], ops.factorise(pixels, one.clone(), STEPS, EPSILON)[0]
        )
        assert len(calls) == 6

    def test_pixels_and_channels_of_zeros(self):
        pixels, bases = problem(1, 300, 20, 6)
        pixels[0, 100:200], pixels[0, :, 3:5] = 0, 0
        got = ops.factorise(pixels, bases, STEPS, EPSILON)
        close(got, published(pixels, bases, STEPS), ROUNDING)
        assert not got[1][0, 100:200].any()
        assert not got[0][0, 3:5].any()
        assert not any(factor.any() for factor in ops.factorise(torch.zeros_like(pixels), bases, STEPS, EPSILON))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_what_is_not_a_number_stays_in_its_image(self, value):
        pixels, bases = problem(2, 300, 20, 6)
        want = ops.factorise(pixels, bases, STEPS, EPSILON)
        pixels[0, 123, 4] = value
        for factor, without in zip(ops.factorise(pixels, bases, STEPS, EPSILON), want, strict=True):
            assert factor[0].isnan().all()
            assert torch.equal(factor[1], without[1])
        with ops.taking():
            assert all(factor[0].isnan().all() for factor in ops.factorise(pixels, bases, STEPS, EPSILON))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_what_is_not_a_number_stays_in_its_pixel_before_the_bases_follow(self, value):
        pixels, bases = problem(1, 300, 20, 6)
        pixels[0, 123, 4] = value
        first, coefficients = ops.factorise(pixels, bases, 0, EPSILON)
        assert torch.equal(first, bases)
        assert coefficients.isnan().all(-1).nonzero().tolist() == [[0, 123]]
        assert coefficients.isnan().sum() == 6

    def test_whole_panels_leave_the_first_bases_as_they_were(self):
        pixels, bases = problem(2, 50, 12, 64)
        kept = bases.clone()
        close(ops.factorise(pixels, bases, STEPS, EPSILON), published(pixels, bases, STEPS), ROUNDING)
        assert torch.equal(bases, kept)

    def test_without_an_epsilon_nothing_leaks_from_beyond_the_rank(self):
        pixels, bases = problem(1, 50, 20, 5)
        got = ops.factorise(pixels + 0.1, bases, STEPS, 0.0)
        assert got[0].isfinite().all()
        assert got[1].isfinite().all()

    def test_products_that_the_softmax_cannot_add_to(self):
        pixels, bases = problem(1, 50, 20, 5)
        pixels, bases = 300 * pixels, bases * torch.tensor([1.0, 1e-3, 5.0, 0.2, 3.0])
        close(ops.factorise(pixels, bases, 0, EPSILON), published(pixels, bases, 0), ROUNDING)


@needs_kernel
def test_the_kernel_in_float64():
    if library(torch.float64).handle is None:
        pytest.skip(library(torch.float64).reason)
    for shape in ((1, 40, 12, 9), (2, 700, 33, 20)):
        given = problem(*shape, dtype=torch.float64)
        close(torch.ops.van.factorise(*given, STEPS, EPSILON), published(*given, STEPS), EXACT)


@needs_kernel
@pytest.mark.parametrize("shape", [(1, 0, 4, 3), (0, 5, 4, 3), (2, 5, 4, 0)])
def test_empty_maps_are_left_to_the_library(shape, monkeypatch):
    calls, given = spied(monkeypatch), problem(*shape)
    with ops.taking("factorisation"):
        close(ops.factorise(*given, STEPS, EPSILON), published(*given, STEPS))
    assert not calls


@needs_kernel
def test_what_the_kernel_is_not_asked_for(monkeypatch):
    calls, (pixels, bases) = spied(monkeypatch), problem(1, 40, 8, 3)
    with ops.taking():
        ops.factorise(pixels, bases, 1, EPSILON)
    with ops.taking("factorisation"):
        ops.factorise(pixels.double(), bases.double(), 1, EPSILON)
        torch.func.vmap(lambda x: ops.factorise(x, bases, 0, EPSILON))(pixels[None])
        with ops.without_kernels():
            ops.factorise(pixels, bases, 1, EPSILON)
        for tensors in ((pixels.clone().requires_grad_(), bases), (pixels, bases.clone().requires_grad_())):
            ops.factorise(*tensors, 0, EPSILON)
        with pytest.raises(RuntimeError, match="size"):
            ops.factorise(pixels, bases[:, :-1], 1, EPSILON)
        with pytest.raises(RuntimeError, match="Double"):
            ops.factorise(pixels, bases.double(), 1, EPSILON)
        assert not calls
        with torch.no_grad():
            ops.factorise(pixels.clone().requires_grad_(), bases, 1, EPSILON)
        assert len(calls) == 1
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        ops.factorise(pixels, bases, 1, EPSILON)
        assert len(calls) == 1


@needs_kernel
@pytest.mark.parametrize("steps", [0, 3])
def test_the_operator_describes_itself(steps):
    given = problem(2, 30, 12, 5)
    torch.library.opcheck(
        torch.ops.van.factorise, (*given, steps, EPSILON), test_utils=("test_schema", "test_faketensor")
    )
    counted = []
    for paths in ((), ("factorisation",)):
        with ops.taking(*paths), FlopCounterMode(display=False) as counter:
            ops.factorise(*given, steps, EPSILON)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1]


@needs_kernel
def test_the_operator_refuses_what_does_not_fit():
    pixels, bases = problem(2, 30, 12, 5)
    for wrong in (bases[:, :-1], bases[:1], bases[0], bases.double()):
        with pytest.raises(ConfigError, match=r"\(2, 30, 12\).*expected \(N, P, D\) and \(N, D, R\)"):
            torch.ops.van.factorise(pixels, wrong, STEPS, EPSILON)


# --- GroupNorm of the product


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_normalised_factors_are_the_groupnorm_of_their_product(groups):
    bases, coefficients = drawn(2, 6, 4) + 3, drawn(2, 35, 4, seed=1).abs() + 1
    weight, bias = drawn(6, seed=2), drawn(6, seed=3)
    product = (coefficients @ bases.mT).mT  # (N, K, P)
    scaled, shift = ops.normalised_bases(bases, coefficients, groups, weight, bias, 1e-3)
    got, want = (coefficients @ scaled.mT + shift[:, None]).mT, F.group_norm(product, groups, weight, bias, 1e-3)
    close([got], [want], 1e-10)


def test_normalised_factors_of_large_means_in_float32():
    bases, coefficients = drawn(1, 64, 8, dtype=torch.float32) + 20, drawn(1, 500, 8, dtype=torch.float32, seed=1) + 30
    ones, zeros = torch.ones(64), torch.zeros(64)
    want = F.group_norm((coefficients.double() @ bases.double().mT).mT, 32, ones.double(), zeros.double())
    scaled, shift = ops.normalised_bases(bases, coefficients, 32, ones, zeros, 1e-5)
    library_gap = (F.group_norm((coefficients @ bases.mT).mT, 32, ones, zeros) - want).abs().max()
    assert ((coefficients @ scaled.mT + shift[:, None]).mT - want).abs().max() < 4 * library_gap
