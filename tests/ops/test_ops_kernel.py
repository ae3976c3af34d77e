"""The C kernel: against the plain path in float64, values and gradients, and as a citizen of PyTorch."""

import copy
import pickle
import random
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from kernel_builds import EMULATED_TILES
from networks import LAYOUTS, gap, images, tiny
from torch.utils.flop_counter import FlopCounterMode

import van
from van import ops
from van.errors import ConfigError, VanNotice
from van.nn import fold
from van.nn.fused import depthwise_weights
from van.nn.layers import depthwise_conv
from van.ops import building
from van.ops import c_library as library_module
from van.ops import cpu_depthwise as kernel
from van.ops import reference as plain
from van.ops.building import SOURCES
from van.ops.c_library import COMMON_FLAGS, INSTRUCTION_FLAGS, TYPE_FLAGS, library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")

ROUNDING = 5e-6  # of the largest value, float32 against float64
SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (7, 7), (13, 18), (56, 30)]


@pytest.fixture(autouse=True)
def _every_path():
    """What the kernel computes, whichever paths were measured to win here (test_ops_families.py)."""
    with ops.taking(*REPLACED):
        yield


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
    assert got.shape == want.shape
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert gap(got, want) < tolerance
    probe = drawn(*x.shape, seed=9, dtype=x.dtype)
    theirs = torch.autograd.grad(want, [wanted_x, *(t for c in wanted for t in c[:2] if t is not None)], probe.double())
    for ours, other in zip(torch.autograd.grad(got, leaves, probe), theirs, strict=True):
        assert ours.shape == other.shape
        assert (ours - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


def pair(channels, **options):
    return [conv(channels, 5, 1, **options), conv(channels, 7, 3, seed=2, **options)]


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


class TestThreads:
    @pytest.fixture(autouse=True)
    def _restored(self):
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    def test_results_do_not_depend_on_them(self):
        block, x = fold(tiny()).backbone.stages[0].blocks[0], drawn(3, 8, 33, 20)
        results = []
        for threads in (1, 2, 2, 5):
            torch.set_num_threads(threads)
            y, leaf = drawn(5, 24, 30, 17), [t.requires_grad_() for c in pair(24) for t in c[:2]]
            out = kernel.depthwise_pair(y, leaf[0], leaf[1], 1, leaf[2], leaf[3], 3)
            grads = torch.autograd.grad(out.square().sum(), leaf)
            with torch.no_grad():
                results.append([out, *grads, block(x)])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


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
        model, before = fold(tiny(embed_dims=dims)), torch.get_num_threads()
        x, found = images(1, 3, 150, 61), []
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                with torch.inference_mode():
                    found.append(model(x))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(other, found[0]) for other in found)

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


class TestCitizen:
    def test_opcheck(self):
        (near, near_bias, _), (far, far_bias, _) = pair(6)
        x = drawn(2, 6, 5, 4)
        for leaf in (x, near, far, near_bias, far_bias):
            leaf.requires_grad_()
        torch.library.opcheck(kernel.depthwise_pair, (x, near, near_bias, 1, far, far_bias, 3))
        torch.library.opcheck(kernel.depthwise, (x, near, None, 1, True))
        stages = fold(tiny()).backbone.stages
        with torch.no_grad():
            for packed in ([stages[0].blocks[0].packed], [stages[0].packed, stages[1].packed]):
                arguments = drawn(1, 8, 6, 5), *ops.folded_block.arguments_of(packed)
                torch.library.opcheck(ops.folded_block.operator, arguments)
            patch = stages[1].patch_embed.packed
            torch.library.opcheck(
                ops.folded_block.patch_operator,
                (drawn(1, 8, 6, 5), patch.panels, patch.bias, patch.options, torch.float32),
            )

    @pytest.mark.long
    def test_compiled_without_a_break(self):
        torch._dynamo.reset()
        model, x = tiny(depths=(1, 1, 1, 1)), images(2, 3, 64, 64)
        for network in (model.train(), fold(model)):
            compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
            assert gap(compiled(x), network(x)) < 1e-5
        with torch.no_grad():
            compiled(x)  # compiled for this mode
            with torch.profiler.profile() as seen:
                compiled(x)
        assert {event.key: event.count for event in seen.key_averages()}["van::folded_stages"] == 1
        loss = torch.compile(model, backend="aot_eager", fullgraph=True)(x).square().sum()
        ours = torch.autograd.grad(loss, list(model.parameters()))
        theirs = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs, strict=True))

    def test_flops_are_those_of_the_convolutions(self, monkeypatch):
        def count(function):
            with FlopCounterMode(display=False) as counter:
                function()
            return counter.get_total_flops()

        model, x, maps = tiny().eval(), images(1, 3, 64, 64), 3 * 6 * 5 * 4
        ours = [count(lambda network=network: network(x)) for network in (model, fold(model).requires_grad_(False))]
        monkeypatch.setattr(ops.depthwise, "kernel_available", lambda: False)
        assert ours == [count(lambda: model(x))] * 2
        y, (near, far) = drawn(3, 6, 5, 4).requires_grad_(), pair(6)
        # every tap of every element, two operations; as often again for each of the two gradients
        assert count(lambda: kernel.depthwise(y, *near, True).sum().backward()) == 3 * 2 * maps * 25
        assert count(lambda: kernel.depthwise_pair(y, *near, *far).sum().backward()) == 3 * 2 * maps * (25 + 49)

    def test_an_export_holds_no_operator_of_ours(self):
        program = torch.export.export(fold(tiny()), (images(1, 3, 64, 64),))
        assert not [node for node in program.graph.nodes if "van" in str(node.target)]
        traced = torch.jit.trace(fold(tiny()), images(1, 3, 64, 64), check_trace=False)
        assert "van::" not in str(traced.inlined_graph)

    def test_a_watched_module_is_called(self):
        layer, seen = tiny().eval(), []
        attention = layer.backbone.stages[0].blocks[0].attention.spatial
        attention.near.register_forward_hook(lambda *arguments: seen.append(1))
        layer(images())
        assert seen == [1]

    @pytest.mark.parametrize("change", ["dtype", "side", "device"])
    def test_what_it_does_not_serve(self, change):
        x, (weight, bias, dilation) = drawn(1, 8, 6, 6), conv(8, 3, 1)
        assert ops.has_kernel(x, (weight, bias, dilation))
        if change == "dtype":
            assert not ops.has_kernel(x.double(), (weight.double(), bias.double(), dilation))
            assert not ops.has_kernel(x, (weight.double(), bias, dilation))
        elif change == "side":
            assert not ops.has_kernel(x, (weight[..., :2], bias, dilation))
        else:
            assert not ops.has_kernel(x.to("meta"), (weight, bias, dilation))

    @pytest.mark.parametrize(("left", "names"), [
        ((), {"feed_forward_onto", "feed_forward_backward", "attention", "attention_backward"}),
        (
            ("fused_attention_training",),
            {"feed_forward", "feed_forward_backward", "depthwise_pair", "depthwise_pair_backward"},
        ),
    ])  # fmt: skip
    def test_training_runs_on_it(self, left, names):
        model = tiny()
        with torch.profiler.profile() as seen, ops.taking(*(path for path in REPLACED if path not in left)):
            model(images()).sum().backward()
        calls = {event.key for event in seen.key_averages()}
        assert {f"van::{name}" for name in names} <= calls


class TestLibrary:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch, tmp_path):
        monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
        library.cache_clear()
        yield
        library.cache_clear()

    def test_built_once(self, tmp_path):
        first = library()
        assert first.handle is not None
        (built,) = (tmp_path / "cache").glob("kernel-*.so")
        stamp = built.stat().st_mtime_ns
        library.cache_clear()
        assert library().handle is not None
        assert built.stat().st_mtime_ns == stamp
        assert (tmp_path / "cache").stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize(("setting", "reason"), [
        ({"VAN_OPS": "plain"}, "VAN_OPS=plain"),
        ({"CC": "false"}, "false failed: no output"),
        ({"CC": "no-such-compiler"}, "no-such-compiler did not run"),
        ({"PATH": "", "CC": ""}, "no C compiler was found"),
    ])  # fmt: skip
    def test_why_not(self, monkeypatch, setting, reason):
        for name, value in setting.items():
            monkeypatch.setenv(name, value)
        assert library().handle is None
        assert reason in library().reason
        assert reason in ops.report()["depthwise_pair"]
        x, c = drawn(1, 4, 6, 6), conv(4, 7, 3)
        assert torch.equal(ops.depthwise_conv2d(x, *c[:2], dilation=3), plain.convolve(x, *c))

    def test_an_unknown_wish(self, monkeypatch):
        monkeypatch.setenv("VAN_OPS", "fast")
        with pytest.raises(ConfigError, match="VAN_OPS is 'fast'; expected plain"):
            library()

    def test_a_cache_that_is_a_file(self, monkeypatch, tmp_path):
        (tmp_path / "taken").touch()
        monkeypatch.setenv("VAN_CACHE", str(tmp_path / "taken"))
        with pytest.warns(VanNotice, match="for this process alone.*taken cannot be used.*set VAN_CACHE"):
            assert library().handle is not None
        assert "set VAN_CACHE" in library().reason

    @pytest.mark.parametrize("instructions", INSTRUCTION_FLAGS)
    def test_older_processors(self, monkeypatch, instructions):
        x, convs = drawn(2, 21, 9, 9), pair(21)
        library.cache_clear()
        monkeypatch.setenv("VAN_OPS", instructions)
        if library().instructions != instructions:
            pytest.skip(f"this processor has {library().instructions}")
        check(x, convs)
        block, patch = fold(tiny()).backbone.stages[2].blocks[0], torch.nn.Conv2d(9, 37, 3, 2, padding=1)
        y, z = drawn(2, 24, 17, 10), drawn(2, 9, 17, 10)
        with torch.no_grad():
            assert gap(block(y), block.double()(y.double())) < ROUNDING
            assert (
                gap(
                    ops.folded_patch(z, ops.pack_patch(patch.weight, patch.bias, stride=2, padding=1)),
                    patch.double()(z.double()),
                )
                < ROUNDING
            )

    def test_amx_needs_all_of_it(self, monkeypatch):
        features = {"avx512f"} | library_module.AMX_FEATURES
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        monkeypatch.setattr(library_module, "_features", lambda: features)
        assert library_module._candidates(torch.float32) == ["AMX", "AVX512"]
        assert library_module._candidates(torch.float64) == ["AVX512"]
        features.remove("amx_bf16")
        assert library_module._candidates(torch.float32) == ["AVX512"]

    def test_without_amx_where_the_system_withholds_it(self, monkeypatch):
        if library().instructions != "AMX":
            pytest.skip("no AMX here")
        load = library_module._load

        def withheld(path):
            if "amx" in path.name:
                raise library_module.NoKernelError("not for this process")
            return load(path)

        library.cache_clear()
        monkeypatch.setattr(library_module, "_load", withheld)
        assert library().instructions == "AVX512"
        assert "AMX: not for this process" in library().reason

    def test_two_at_once_compile_once(self, monkeypatch, tmp_path):
        made, compiled = [], building.compiled
        monkeypatch.setattr(building, "compiled", lambda *arguments: made.append(1) or compiled(*arguments))
        with ThreadPoolExecutor() as pool:
            built = list(pool.map(lambda _: library_module._built("baseline", torch.float32), range(2)))
        assert [unusual for _, unusual in built] == ["", ""]
        assert len(list((tmp_path / "cache").glob("kernel-baseline-*.so"))) == 1
        assert made == [1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPE_FLAGS)
@pytest.mark.parametrize("instructions", INSTRUCTION_FLAGS)
def test_sanitizers_find_nothing(tmp_path, instructions, dtype):
    """Address and undefined-behaviour sanitizers over odd shapes, on buffers of exactly the right size."""
    flags, features = [*INSTRUCTION_FLAGS[instructions], *TYPE_FLAGS[dtype]], library_module._features()
    if dtype == torch.bfloat16 and (instructions not in ("AMX", "AVX512") or "avx512_bf16" not in features):
        pytest.skip("no products of bfloat16 here")
    if instructions == "AMX" and not features >= library_module.AMX_FEATURES:
        if dtype == torch.float64 or "avx512_bf16" not in features:
            pytest.skip("no AMX here")
        flags += ["-include", str(EMULATED_TILES)]
    compiler = shutil.which("cc") or pytest.skip("no compiler")
    driver, made = Path(__file__).parent.parent / "support" / "kernel_driver.c", tmp_path / "driver"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    plain_flags = [flag for flag in COMMON_FLAGS if flag not in ("-shared", "-O3")]
    command = [
        compiler,
        *plain_flags,
        *sanitize,
        *flags,
        f"-I{SOURCES}",
        str(driver),
        "-o",
        str(made),
        "-lm",
        "-lpthread",
    ]
    subprocess.run(command, check=True)
    assert subprocess.run([made], check=True, capture_output=True, text=True).stdout == "clean\n"


def test_info_tells_the_path(capsys, monkeypatch):
    from van.cli import main

    assert main(["info", "--ops"]) in (None, 0)
    assert "C kernel" in capsys.readouterr().out


def test_optimize_uses_it_by_default():
    fast = van.optimize(tiny(), example=images(1, 3, 32, 32))
    assert all(block.packed is not None for stage in fast.backbone.stages for block in stage.blocks)


def test_the_weights_of_a_depthwise_module():
    layer = depthwise_conv(4, 7, 3)
    assert depthwise_weights(layer) == (layer.weight, layer.bias, 3)
