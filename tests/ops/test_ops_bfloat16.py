"""Products of bfloat16 in folded networks on the CPU, and AMX where a processor without it emulates that."""

import copy

import pytest
import torch
from kernel_builds import BUILDS, in_use
from networks import gap, images, tiny

import van
from van import ops
from van.nn import fold
from van.ops import c_library
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")

ROUNDING = 5e-6  # of the largest value, float32 against float64
HALF_ROUNDING = 1e-2  # bfloat16 has 8 bits


@pytest.fixture(autouse=True)
def _every_path():
    with ops.taking(*REPLACED):
        yield


@pytest.fixture(params=BUILDS)
def build(request, monkeypatch):
    """The instructions of each build that runs here."""
    with in_use(request.param, monkeypatch) as instructions:
        yield instructions


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(module):
    """A copy whose products have bfloat16 weights, in float64: what only the rounding of maps is missing from."""
    exact = copy.deepcopy(module).double()
    for each in exact.modules():
        if isinstance(each, torch.nn.Conv2d) and each.groups == 1:
            each.weight.data = each.weight.bfloat16().double()
    return exact


def outputs(module, x, *, autocast=False):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return module(x)


class TestEveryFamily:
    def test_float32_of_emulated_tiles_is_float32(self, build):
        for channels in (1, 17, 32, 33, 70):
            block, x = block_of(channels), drawn(2, channels, 7, 9)
            assert gap(outputs(block, x), block.double()(x.double())) < ROUNDING

    def test_every_remainder_of_channels(self, build):
        for channels in range(1, 72, 1 if build == "AVX512" else 3):
            block, x = block_of(channels), drawn(2, channels, 7, 9)
            got = outputs(block, x, autocast=True)
            assert got.dtype == torch.float32
            assert gap(got, rounded(block)(x.double())) < HALF_ROUNDING

    def test_every_remainder_of_patches(self, build):
        for channels in range(8, 74, 5):
            conv, x = torch.nn.Conv2d(channels, 79 - channels, 3, 2, padding=1), drawn(1, channels, 10, 7)
            products = ops.product_type(x.bfloat16())
            packed = ops.pack_patch(conv.weight, conv.bias, stride=2, padding=1, of=products)
            got = ops.folded_patch(x, packed)
            assert gap(got, rounded(conv)(x.double())) < HALF_ROUNDING

    def test_maps_and_weights_of_half_precision(self, build):
        for dtype in (torch.bfloat16, torch.float16):
            model, x = fold(tiny(embed_dims=(16, 40, 24, 32))), images(2, 3, 70, 61).to(dtype)
            half = copy.deepcopy(model).to(dtype)
            packed = half.backbone.stages[1].packed
            assert (packed.dtype, packed.products) == (dtype, ops.product_type(x))
            got = outputs(half, x)
            assert got.dtype == dtype
            assert gap(got.double(), copy.deepcopy(half).double()(x.double())) < 3e-2

    def test_the_number_of_threads_changes_nothing(self, build):
        model, x, before = fold(tiny(embed_dims=(16, 40, 24, 32))), images(1, 3, 150, 61), torch.get_num_threads()
        stages = torch.nn.Sequential(*model.backbone.stages[1:])
        x = drawn(1, 16, 37, 16)
        try:
            found = []
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                found.append(outputs(stages, x, autocast=True))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(other, found[0]) for other in found)

    def test_not_a_number_and_infinity_stay(self, build):
        block, x = block_of(33), drawn(1, 33, 9, 9)
        for value in (torch.nan, torch.inf):
            x[0, 3, 4, 4] = value
            assert not outputs(block, x, autocast=True)[0, :, 4, 4].isfinite().any()


def block_of(channels):
    options = {"embed_dims": (channels,) * 4, "mlp_ratios": (1 + channels % 3,) * 4, "depths": (1,) * 4}
    return fold(tiny(channels, **options)).backbone.stages[0].blocks[0]


class TestProducts:
    def test_the_type_follows_maps_and_autocast(self):
        x, half = drawn(1, 8, 4, 4), torch.bfloat16 if c_library.multiplies_bfloat16() else torch.float32
        assert ops.product_type(x) == torch.float32
        assert ops.product_type(x.bfloat16()) == half
        assert ops.product_type(x.half()) == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert ops.product_type(x) == half
        with torch.autocast("cpu", torch.float16):
            assert ops.product_type(x) == torch.float32

    def test_autocast_and_float32_in_turn(self):
        model, x = fold(tiny()), images(1, 3, 64, 64)
        exact = outputs(model, x)
        with_half = outputs(model, x, autocast=True)
        assert torch.equal(outputs(model, x), exact)
        assert torch.equal(outputs(model, x, autocast=True), with_half)
        assert 0 < gap(with_half.double(), exact.double()) < 3e-2

    def test_weights_that_changed_are_packed_for_both_types(self):
        model, x = fold(tiny()), images(1, 3, 64, 64)
        before = [outputs(model, x, autocast=half) for half in (False, True)]
        with torch.no_grad():
            model.backbone.stages[1].blocks[0].project.weight.mul_(3)
        after = [outputs(model, x, autocast=half) for half in (False, True)]
        assert all(gap(new.double(), old.double()) > 1e-3 for new, old in zip(after, before, strict=True))

    def test_maps_of_another_type_are_refused_as_by_the_modules(self):
        model, x = fold(tiny()).bfloat16(), images(1, 3, 64, 64)
        outputs(model, x.bfloat16())
        with pytest.raises(RuntimeError, match="type"):
            outputs(model.backbone.stages[1], drawn(1, model.backbone.stages[1].patch_embed.conv.in_channels, 8, 8))

    def test_modules_of_different_types_are_called(self):
        block = block_of(16)
        block.expand.half()
        assert block.packed is None

    def test_a_predictor_in_bfloat16_keeps_the_class(self):
        model = van.optimize(tiny(num_classes=10))
        x = images(8, 3, 64, 64)
        assert torch.equal(outputs(model, x, autocast=True).argmax(1), outputs(model, x).argmax(1))


class TestNorm:
    """LayerNorm after a stage's last block, in the same call."""

    def test_every_remainder_of_channels(self, build):
        for channels in range(1, 40, 1 if build == "AVX512" else 3):
            options = {"embed_dims": (channels,) * 4, "depths": (1,) * 4, "mlp_ratios": (1,) * 4}
            stage, x = fold(tiny(channels, **options)).backbone.stages[1], drawn(2, channels, 9, 14)
            torch.nn.init.normal_(stage.norm.weight)
            torch.nn.init.normal_(stage.norm.bias)
            assert stage.packed.norm is not None
            assert stage.packed.epsilon == stage.norm.eps
            got = outputs(stage, x)
            assert gap(got, copy.deepcopy(stage).double()(x.double())) < 2e-5

    @pytest.mark.parametrize("change", ["hook", "without weights", "another class"])
    def test_a_norm_that_is_more_or_less_is_called(self, change):
        stage, x, heard = fold(tiny()).backbone.stages[1], drawn(1, 8, 9, 14), []
        channels = stage.norm.normalized_shape[0]
        if change == "hook":
            stage.norm.register_forward_hook(lambda *_: heard.append(1))
        elif change == "without weights":
            stage.norm.weight = stage.norm.bias = None
        else:
            stage.norm = torch.nn.GroupNorm(1, channels)
        got = outputs(stage, x)
        assert gap(got, copy.deepcopy(stage).double()(x.double())) < 2e-5
        assert bool(heard) == (change == "hook")
