"""The heads' convolutions on tensors: the library's values, whatever the sizes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from van import ops
from van.ops import joined, resized, winograd

EXACT = 1e-12  # float64


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def library(parts, weight, bias=None):
    size = parts[0].shape[2:]
    parts = [F.interpolate(part, size, mode="bilinear", align_corners=False) for part in parts]
    return F.conv2d(torch.cat(parts, 1), weight, bias, padding=weight.shape[-1] // 2)


def close(got, want, tolerance=EXACT):
    torch.testing.assert_close(got, want, atol=tolerance * max(1, want.abs().max().item()), rtol=0)


@pytest.fixture
def always_winograd(monkeypatch):
    monkeypatch.setattr(joined, "CHANNELS", 1)
    monkeypatch.setattr(joined, "PIXELS", 1)


SIZES = [(1, 1), (1, 9), (2, 3), (4, 4), (5, 8), (7, 4), (8, 17), (13, 10)]


@pytest.mark.parametrize("tiles", [1, 3, 192])
@pytest.mark.parametrize("size", SIZES)
def test_winograd_is_the_convolution(size, tiles, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", tiles)  # bands within an image, across images, everything
    x, weight = drawn(3, 5, *size), drawn(7, 5, 3, 3, seed=1)
    for bias in (None, drawn(7, seed=2)):
        got = winograd.convolve(x.permute(0, 2, 3, 1), weight, bias)
        close(got.permute(0, 3, 1, 2), library([x], weight, bias))


@pytest.mark.parametrize("kernels", [1, 2, 3, 7])
def test_winograd_with_kernels_in_parts(kernels, monkeypatch):
    monkeypatch.setattr(winograd, "BUFFER", kernels * 36 * 5 * 8)
    x, weight = drawn(1, 6, 9, 5), drawn(7, 5, 3, 3, seed=1)
    assert len(winograd._kernels(weight)) == -(-7 // kernels)
    close(winograd.convolve(x, weight, None).permute(0, 3, 1, 2), library([x.permute(0, 3, 1, 2)], weight))


def test_winograds_points_lose_no_more_than_rounding():
    x, weight = drawn(1, 256, 32, 32, dtype=torch.float32).relu(), drawn(64, 256, 3, 3, seed=1, dtype=torch.float32)
    want = library([x.double()], weight.double())
    got = winograd.convolve(x.permute(0, 2, 3, 1), weight, None).permute(0, 3, 1, 2)
    assert (got - want).abs().max() < 3e-6 * want.abs().max()  # with points 0, ±1, ±2: 6e-6


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("after", [(1, 1), (3, 4), (9, 11), (12, 6), (31, 40)])
@pytest.mark.parametrize("before", [(1, 1), (2, 5), (4, 4), (9, 11), (13, 3)])
def test_the_convolution_of_a_resized_map(before, after, side, monkeypatch):
    monkeypatch.setattr(resized, "ROWS", 3)
    monkeypatch.setattr(resized, "COLUMNS", 7)
    x, weight, total = drawn(2, 3, *before), drawn(4, 3, side, side, seed=1), drawn(2, *after, 4, seed=2)
    resized_map = F.interpolate(x, after, mode="bilinear", align_corners=False)
    want = total + F.conv2d(resized_map, weight, padding=side // 2).permute(0, 2, 3, 1)
    resized.add_convolved(total, x, weight)
    close(total, want)


@pytest.mark.parametrize("seed", range(40))
def test_joined_maps_of_drawn_sizes(seed, always_winograd):
    draw = np.random.default_rng(seed)
    side, count, batch = int(draw.choice([1, 3, 3, 5])), int(draw.integers(1, 5)), int(draw.integers(1, 4))
    shapes = [(batch, *(int(n) for n in draw.integers(1, [12, 30, 30]))) for _ in range(count)]
    parts = [drawn(*shape, seed=i) for i, shape in enumerate(shapes)]
    if draw.integers(2):
        parts = [part.to(memory_format=torch.channels_last) for part in parts]
    outputs = int(draw.integers(1, 12))
    weight = drawn(outputs, sum(shape[1] for shape in shapes), side, side, seed=7)
    if draw.integers(2):
        weight = weight.to(memory_format=torch.channels_last)
    bias = drawn(outputs, seed=8) if draw.integers(2) else None
    kept = [part.clone() for part in parts]
    got = ops.joined_conv2d(parts, weight, bias)
    close(got, library(parts, weight, bias))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert all(map(torch.equal, parts, kept))


@pytest.mark.parametrize("side", [1, 3])
def test_joined_maps_in_float32(side):
    parts = [
        drawn(1, c, s, s, seed=c, dtype=torch.float32) for c, s in ((64, 36), (32, 18), (16, 9), (16, 36), (8, 50))
    ]
    weight, bias = drawn(70, 136, side, side, dtype=torch.float32), drawn(70, dtype=torch.float32)
    want = library([part.double() for part in parts], weight.double(), bias.double())
    close(ops.joined_conv2d(parts, weight, bias).double(), want, 5e-6)


@pytest.mark.parametrize(("channels", "side", "used"), [(64, 32, True), (63, 32, False), (64, 31, False)])
def test_winograd_is_left_to_large_maps_of_many_channels(channels, side, used, monkeypatch):
    calls, convolve = [], winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *given: calls.append(1) or convolve(*given))
    ops.joined_conv2d([drawn(1, 64, side, side)], drawn(channels, 64, 3, 3), None)
    assert bool(calls) is used


def test_small_maps_are_convolved_at_their_own_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(resized, "add_convolved", lambda total, x, weight: sizes.append(tuple(x.shape[2:])))
    parts = [drawn(1, 1, *size) for size in ((6, 6), (3, 3), (6, 6), (9, 9), (9, 3))]
    ops.joined_conv2d(parts, drawn(2, 5, 3, 3), None)
    assert sizes == [(3, 3), (9, 3)]


def test_what_is_refused(monkeypatch):
    x, weight, bias = drawn(1, 3, 4, 4), drawn(2, 3, 3, 3), drawn(2)
    assert ops.can_join([x], weight, bias)
    assert ops.can_join([x.float()], weight.float(), None)
    assert not ops.can_join([x], weight.float(), None)
    assert not ops.can_join([x], weight, bias.float())
    assert not ops.can_join([x.half()], weight.half(), None)
    assert not ops.can_join([x.to("meta")], weight.to("meta"), None)
    assert not ops.can_join([x, x], weight, None)
    assert not ops.can_join([x[0]], weight, None)
    assert not ops.can_join([x[:0]], weight, None)
    assert not ops.can_join([x, drawn(2, 1, 4, 4)], drawn(2, 4, 3, 3), None)
    for tensors in ((x.clone().requires_grad_(), weight, bias), (x, weight, bias.clone().requires_grad_())):
        assert not ops.can_join(tensors[:1], *tensors[1:])
        with torch.no_grad():
            assert ops.can_join(tensors[:1], *tensors[1:])
    with torch.autocast("cpu", torch.bfloat16):
        assert not ops.can_join([x], weight, bias)
    with ops.without_kernels():
        assert not ops.can_join([x], weight, bias)
        assert not ops.can_factorise(x)
    monkeypatch.setenv("VAN_OPS", "plain")
    assert not ops.can_join([x], weight, bias)
    assert not ops.can_factorise(x)


def test_tracing_and_transforms_are_refused(monkeypatch):
    x, weight = drawn(1, 3, 4, 4), drawn(2, 3, 3, 3)
    torch.func.vmap(lambda y: (_refused(y, weight), y)[1])(x[None])
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    _refused(x, weight)


def _refused(x, weight):
    assert not ops.can_join([x], weight, None)


def test_the_operator_describes_itself():
    parts, weight, bias = [drawn(2, 3, 5, 6), drawn(2, 1, 2, 2)], drawn(4, 4, 3, 3), drawn(4)
    torch.library.opcheck(
        torch.ops.van.joined_conv2d, (parts, weight, bias), test_utils=("test_schema", "test_faketensor")
    )
    with FlopCounterMode(display=False) as counter:
        ops.joined_conv2d(parts, weight, bias)
    assert counter.get_total_flops() == 2 * 2 * 5 * 6 * 4 * 4 * 9
