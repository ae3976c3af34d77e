"""Folded blocks and patch embeddings in the C kernel: against the plain network in float64."""

import copy
import pickle
import random

import pytest
import torch
from kernel_cases import ROUNDING, assert_threads_change_nothing, drawn
from networks import gap, images, tiny

import van
from van import ops
from van.nn import fold
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")


@pytest.fixture(autouse=True)
def _every_path():
    """What the kernel computes, whichever paths were measured to win here (test_ops_families.py)."""
    with ops.taking(*REPLACED):
        yield


class TestFoldedBlock:
    @pytest.mark.parametrize("options", [
        {},
        {"embed_dims": (9, 17, 40, 33), "mlp_ratios": (3, 1, 2, 5)},
        {"kernel_size": 14, "dilation": 3},
    ])  # fmt: skip
    @pytest.mark.parametrize("size", [(32, 32), (65, 97)])
    def test_it_is_the_plain_block(self, options, size, monkeypatch):
        model = fold(tiny(**options))
        x, want = images(2, 3, *size), fold(tiny(**options)).double()(images(2, 3, *size).double())
        with torch.inference_mode():
            assert gap(model(x), want) < ROUNDING
            served = gap(model.backbone.stages[1](images(1, model.config.embed_dims[0], 9, 9)), torch.zeros(1) + 1)
            monkeypatch.setattr(ops, "has_block_kernel", lambda x: False)
            assert served == pytest.approx(
                gap(model.backbone.stages[1](images(1, model.config.embed_dims[0], 9, 9)), torch.zeros(1) + 1), rel=1e-4
            )

    @pytest.mark.parametrize(("side", "stride"), [(3, 2), (7, 4), (2, 2), (4, 3), (1, 1), (3, 1)])
    @pytest.mark.parametrize("size", [(1, 1), (2, 9), (15, 22)])
    def test_patches_are_the_convolution(self, side, stride, size):
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(9, 37, side, stride, padding=side // 2)
        x, want = drawn(2, 9, *size), conv.double()(drawn(2, 9, *size).double())
        if want.numel():
            conv = conv.float()
            got = ops.folded_patch(x, ops.pack_patch(conv.weight, conv.bias, stride=stride, padding=side // 2))
            assert got.shape == want.shape
            assert gap(got, want) < ROUNDING

    @pytest.mark.parametrize("seed", range(8))
    def test_fuzzed(self, seed):
        draw = random.Random(seed)
        dims = tuple(draw.randint(1, 70) for _ in range(4))
        options = {"embed_dims": dims, "mlp_ratios": tuple(draw.randint(1, 5) for _ in range(4))}
        x = images(draw.randint(1, 3), 3, draw.randint(1, 90), draw.randint(1, 90))
        with torch.inference_mode():
            assert gap(fold(tiny(seed, **options))(x), fold(tiny(seed, **options)).double()(x.double())) < ROUNDING

    @pytest.mark.parametrize("instructions", ["AVX512", "AVX2"])
    def test_fuzzed_without_amx(self, monkeypatch, instructions):
        monkeypatch.setenv("VAN_OPS", instructions)
        library.cache_clear()
        try:
            for seed in range(4):
                self.test_fuzzed(seed)
        finally:
            monkeypatch.undo()
            library.cache_clear()

    @pytest.mark.parametrize("dims", [(32, 64, 160, 256), (8, 16, 24, 32)])
    def test_the_number_of_threads_changes_nothing(self, dims):
        model, x = fold(tiny(embed_dims=dims)), images(1, 3, 150, 61)
        with torch.inference_mode():
            assert_threads_change_nothing(lambda: [model(x)], (1, 2, 3, 7))

    def test_sixteen_bits_where_pytorch_is_told_that_they_are_enough(self):
        if library().instructions != "AMX":
            pytest.skip("no AMX here")
        model, x = fold(tiny(embed_dims=(32, 64, 160, 64))), images(2, 3, 96, 96)
        want = fold(tiny(embed_dims=(32, 64, 160, 64))).double()(x.double())
        before = torch.get_float32_matmul_precision()
        try:
            with torch.inference_mode():
                whole = model(x)
                torch.set_float32_matmul_precision("high")
                part = model(x)
        finally:
            torch.set_float32_matmul_precision(before)
        assert gap(whole, want) < ROUNDING
        assert gap(part, want) < 1e-4
        assert not torch.equal(part, whole)

    def test_a_pickled_one_is_packed_for_the_processor_that_reads_it(self, monkeypatch):
        model, x = fold(tiny()), images(1, 3, 32, 32)
        want, written = model(x), pickle.dumps(model)
        monkeypatch.setenv("VAN_OPS", "baseline")
        library.cache_clear()
        try:
            assert gap(pickle.loads(written)(x), want) < ROUNDING
        finally:
            monkeypatch.undo()
            library.cache_clear()
        assert torch.equal(copy.deepcopy(model)(x), want)

    def test_one_operator_for_all_stages(self):
        model = fold(tiny())
        with torch.profiler.profile() as seen, torch.inference_mode():
            model(images(1, 3, 32, 32))
        calls = {event.key: event.count for event in seen.key_averages()}
        assert calls["van::folded_stages"] == 1
        assert "van::folded_patch" not in calls  # they are parts of the stages; the library reads images faster

    def test_a_block_with_an_audience_is_called_as_a_module(self):
        model, x, heard = fold(tiny()), images(1, 3, 32, 32), []
        want = model(x)
        handle = model.backbone.stages[2].blocks[1].register_forward_hook(lambda *call: heard.append(call[2].shape))
        assert torch.equal(model(x), want)
        assert heard == [(1, 24, 2, 2)]
        handle.remove()
        model(x)
        assert len(heard) == 1

    def test_blocks_share_their_weights_with_the_stage(self):
        stage = pickle.loads(pickle.dumps(fold(tiny()))).backbone.stages[2]
        whole = stage.packed.weights
        first, last = (stage.blocks[i].packed.weights.data_ptr() for i in (0, -1))
        assert first == whole.data_ptr()
        assert last == whole[-1].data_ptr()

    @pytest.mark.parametrize("attention", ["add", "sigmoid", "none", "no_dw", "no_dw_d", "no_1x1"])
    def test_other_attentions_take_the_modules(self, attention):
        model = tiny(attention=attention)
        folded = fold(model)
        assert folded.backbone.stages[0].blocks[0].packed is None
        assert gap(folded(images()), model.eval()(images())) < ROUNDING

    def test_gradients_flow_through_the_modules(self):
        x = images(1, 3, 32, 32).requires_grad_()
        model = tiny().eval()
        (ours,) = torch.autograd.grad(fold(model)(x).sum(), x)
        (theirs,) = torch.autograd.grad(model(x).sum(), x)
        assert gap(ours, theirs) < 1e-5

    def test_packed_weights_follow_the_weights(self):
        one, two, x = fold(tiny(0)), fold(tiny(1)), images()
        one.load_state_dict(two.state_dict())
        assert torch.equal(one(x), two(x))
        assert gap(one.double()(x.double()), two(x)) < 1e-5
        halved = one.to(torch.bfloat16).float()
        assert gap(halved(x), two(x)) > 1e-3


def test_optimize_uses_it_by_default():
    fast = van.optimize(tiny(), example=images(1, 3, 32, 32))
    assert all(block.packed is not None for stage in fast.backbone.stages for block in stage.blocks)
