"""The Triton kernels: under the interpreter, compiled without a GPU, when they are used, and (`-m gpu`) on one."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import gap, images, tiny
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton_cases import check, conv, pair

from van import create_model, ops
from van.errors import ConfigError, VanError
from van.nn import optimize
from van.nn.layers import DepthwiseConv2d
from van.ops import cpu_depthwise as kernel
from van.ops import cuda_depthwise as gpu
from van.ops import triton_tiles as blocks
from van.ops.c_library import library
from van.ops.triton_tiles import Blocks, from_table

TESTS = Path(__file__).parent.parent / "support"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
STAGES = [(56, 64), (28, 128), (14, 320), (7, 512)]  # width and channels of B1 to B3


@pytest.fixture
def _triton():
    pytest.importorskip("triton")


@pytest.mark.usefixtures("_triton")
@pytest.mark.long
def test_interpreted():
    """tests/triton_interpreted.py, in a process of its own: Triton decides when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "triton_interpreted.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def compiled(function, constants, pointers, capability, warps):
    """The machine code for a GPU that need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = function.arg_names
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in [*pointers, "C"]}
    source = ASTSource(function, signature, values, aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm


def compiles(side, dilation, dtype, width, channels, capability):
    from van.ops import triton_kernels

    name = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}[dtype]
    # use and epilogue: GELU, and its slope with it, follow the 3x3 alone
    for use, epilogue in (("map", 1), ("map", 3), ("weight", 0)) if side == 3 else (("map", 0), ("weight", 0)):
        share = from_table(use, side, dilation, dtype, channels, width)
        constants = {"K": side, "D": dilation, "BEFORE": dilation * (side - 1) // 2}
        constants |= {"ROWS": share.rows, "COLUMNS": share.columns, "CHANNELS": share.channels}
        if use == "map":
            constants |= {"FLIP": False, "HAS_BIAS": True, "EPILOGUE": epilogue}
            pointers = dict.fromkeys(("x", "weight", "bias", "grad", "y", "z"), name)
            asm = compiled(triton_kernels.convolve, constants, pointers, capability, share.warps)
        else:
            pointers = {"x": name, "grad": name, "taps": "*fp32", "biases": "*fp32"}
            asm = compiled(triton_kernels.weight_gradient, constants, pointers, capability, share.warps)
        assert "atom" not in asm["ptx"]  # sums in a fixed order
        assert "ld.global.v4" in asm["ptx"]  # 16 bytes at a time


@pytest.mark.usefixtures("_triton")
def test_compiled_for_a_gpu_that_is_not_here():
    compiles(3, 1, torch.bfloat16, 7, 32, 90)


@pytest.mark.slow
@pytest.mark.usefixtures("_triton")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("side", "dilation"), [(3, 1), (5, 1), (7, 3)])
def test_the_whole_table_compiles(side, dilation, dtype):
    for width, channels in STAGES:
        for capability in (80, 90):
            compiles(side, dilation, dtype, width, channels, capability)


class TestBlocks:
    @pytest.mark.parametrize("use", ["map", "weight"])
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("channels", [1, 24, 32, 64, 160, 512])
    def test_powers_of_two_that_fit(self, use, dtype, channels):
        for side, dilation in ((3, 1), (5, 1), (7, 3), (11, 2), (21, 1)):
            for width in (1, 7, 8, 56, 300):
                found = from_table(use, side, dilation, dtype, channels, width)
                for size in (found.columns, found.channels, found.warps):
                    assert size & (size - 1) == 0
                assert found.channels < 2 * max(16, channels)
                assert found.channels * dtype.itemsize <= 128
                assert found.columns >= min(width, 32)

    def test_measured_ones_come_first(self, tmp_path, monkeypatch):
        file, case = tmp_path / "new" / "blocks.json", blocks.key("map", 7, 3, torch.bfloat16, 64, 56)
        assert case == "map/7x7/dilation3/bfloat16/c64/w56"
        blocks.write_tuned(file, {case: Blocks(3, 16, 32, 2)})
        blocks.write_tuned(file, {"another": Blocks(1, 1, 1, 1)})
        assert blocks.read_tuned(file) == {case: Blocks(3, 16, 32, 2), "another": Blocks(1, 1, 1, 1)}
        assert [path.name for path in file.parent.iterdir()] == ["blocks.json"]
        monkeypatch.setattr(blocks, "tuned_file", lambda index: file)
        blocks._tuned_on.cache_clear()

        class Map:
            is_cuda, device, dtype, shape = True, torch.device("cuda", 0), torch.bfloat16, (8, 64, 56, 56)

        assert blocks.blocks_for("map", 7, 3, Map()) == Blocks(3, 16, 32, 2)
        assert blocks.blocks_for("map", 5, 1, Map()) == from_table("map", 5, 1, torch.bfloat16, 64, 56)
        blocks._tuned_on.cache_clear()

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"rows": 1}}', '{"a": {"colour": 1}}'])
    def test_a_damaged_file_is_none(self, tmp_path, text):
        (tmp_path / "blocks.json").write_text(text)
        assert blocks.read_tuned(tmp_path / "blocks.json") == {}


class TestWhenTheyAreUsed:
    @pytest.fixture(autouse=True)
    def _a_gpu(self, monkeypatch):
        """As far as anyone asks."""
        monkeypatch.delenv("VAN_OPS", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(gpu, "check", lambda device: 1e-7)
        gpu._found.cache_clear()
        yield
        gpu._found.cache_clear()

    def test_where_the_check_passes(self, monkeypatch, tmp_path):
        monkeypatch.setattr(sys.modules["van.ops.report"], "tuned_file", lambda: tmp_path / "none")
        assert gpu.gpu() == gpu.Gpu(ready=True, reason="Triton kernels, checked on Some GPU")
        told = ops.report()
        assert told["cuda"] == "Triton kernels, checked on Some GPU"
        assert told["cuda fast_layout"] == "channels_last"
        assert "van tune" in told["cuda blocks"]

    @pytest.mark.parametrize(("change", "reason"), [
        (lambda m: m.setenv("VAN_OPS", "plain"), "VAN_OPS=plain"),
        (lambda m: m.setattr(torch.cuda, "is_available", lambda: False), "no CUDA device"),
        (lambda m: m.setattr(torch.cuda, "get_device_capability", lambda i: (7, 5)), "capability 7.5 is below 8"),
        (lambda m: m.setattr(torch.version, "hip", "6.4"), "never tried on ROCm"),
        (lambda m: m.setattr(gpu, "check", lambda device: 1e-3), "differ from float64 by 0.001"),
        (lambda m: m.setattr(gpu, "check", lambda device: float("inf")), "differ from float64 by inf"),
        (lambda m: m.setattr(gpu, "check", lambda device: [][0]), "kernels failed: list index out of range"),
        (lambda m: m.setattr(gpu, "check", lambda device: __import__("no_triton_here")), "Triton is not installed"),
    ])  # fmt: skip
    def test_where_not_and_why(self, monkeypatch, change, reason):
        change(monkeypatch)
        found = gpu.gpu()
        assert not found.ready
        assert reason in found.reason
        assert reason in ops.report()["cuda"]

    def test_never_first_in_a_cuda_graph(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        with pytest.raises(VanError, match="run the network once before it"):
            gpu.gpu()
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        assert gpu.gpu().ready  # nothing was remembered
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert gpu.gpu().ready

    def test_an_unknown_wish(self, monkeypatch):
        monkeypatch.setenv("VAN_OPS", "fast")
        with pytest.raises(ConfigError, match="VAN_OPS is 'fast'"):
            gpu.gpu()

    @pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
    def test_types(self, dtype):
        with FakeTensorMode():
            x = torch.empty(2, 8, 6, 6, dtype=dtype, device="cuda")
            weight = torch.empty(8, 1, 7, 7, dtype=dtype, device="cuda")
        assert ops.depthwise.has_gpu_kernel(x) == (dtype in DTYPES)
        assert ops.depthwise.has_kernel(x, (weight, None, 3)) == (dtype in DTYPES)
        assert not ops.depthwise.has_kernel(x, (weight.to("cpu"), None, 3))
        with ops.without_kernels():
            assert not ops.depthwise.has_gpu_kernel(x)


class Calls(TorchDispatchMode):
    """The operators that are called, each with the types of its inputs and whether the maps are NHWC."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        maps = [t.is_contiguous(memory_format=torch.channels_last) for t in tensors[:1] if t.ndim == 4]
        self.seen.append((str(function), [t.dtype for t in tensors], all(maps)))
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("way", ["float32", "bfloat16", "autocast", "float64", "without"])
def test_what_a_network_calls_on_cuda(way, monkeypatch):
    """On fake CUDA tensors, which need no GPU."""
    monkeypatch.setattr(ops.depthwise, "_ready", lambda device: ops.depthwise._kernels_wanted.get())
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(way, torch.float32)
    model, served = tiny().to(dtype).train(), way not in ("float64", "without")
    state = {name: tensor.detach() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    kernels = ops.without_kernels() if way == "without" else nullcontext()
    torch.set_autocast_enabled("cuda", way == "autocast")
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, Calls() as calls, kernels:
            state = {name: mode.from_tensor(tensor).to("cuda") for name, tensor in state.items()}
            torch.func.functional_call(model, state, (torch.empty(2, 3, 64, 64, dtype=dtype, device="cuda"),))
    finally:
        torch.set_autocast_enabled("cuda", False)
    ours = [call for call in calls.seen if call[0].startswith("van.")]
    assert len(ours) == (2 * sum(model.config.depths) if served else 0)
    half = torch.float16 if way == "autocast" else dtype  # autocast's own default on CUDA
    for _, types, _ in ours:
        assert types[0] == half
        assert set(types[1:]) == {dtype}  # autocast's parameters stay float32
    if way == "bfloat16":
        return  # without a GPU PyTorch expects no cuDNN for it, and another layout of the patch embeddings
    assert all(nhwc for _, _, nhwc in ours)
    products = sum(name in ("aten.addmm.default", "aten.mm.default") for name, _, _ in calls.seen)
    assert products == (1 + 5 * sum(model.config.depths) if way == "autocast" else 1)


def step(model, x, *, autocast=True):
    """Output, gradients, and how many bytes autograd saved, of a training step's forward pass on the CPU."""
    saved = {}
    model.zero_grad()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.setdefault(t.data_ptr(), t), lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    y.float().square().sum().backward()
    return y.detach().float(), [p.grad.clone() for p in model.parameters()], sum(t.nbytes for t in saved.values())


class TestMemoryEfficient:
    @pytest.fixture
    def network(self):
        return tiny(drop_path_rate=0.0, depths=(4, 1, 1, 1)).train()

    def test_bfloat16_stream(self, network):
        keys, x = list(network.state_dict()), images(2, 3, 64, 64)
        y, grads, kept = step(network, x)
        network.backbone.set_memory_efficient()
        efficient_y, efficient_grads, efficient_kept = step(network, x)
        assert list(network.state_dict()) == keys
        assert efficient_kept < 0.95 * kept
        assert not torch.equal(efficient_y, y)  # it does round elsewhere
        assert gap(efficient_y, y) < 5e-2
        assert {g.dtype for g in efficient_grads} == {torch.float32}
        flat, plain = (torch.cat([g.flatten() for g in found]) for found in (efficient_grads, grads))
        assert (flat - plain).norm() < 5e-2 * plain.norm()
        network.backbone.set_memory_efficient(False)
        assert torch.equal(step(network, x)[0], y)

    @pytest.mark.parametrize("way", ["float32", "evaluation", "float16"])
    def test_nothing_else_changes(self, network, way):
        x, outputs = images(2, 3, 64, 64), []
        for memory_efficient in (False, True):
            network.backbone.set_memory_efficient(memory_efficient)
            network.train(way != "evaluation")
            with torch.autocast("cpu", torch.float16 if way == "float16" else torch.bfloat16, enabled=way != "float32"):
                outputs.append(network(x))
        assert torch.equal(*outputs)

    def test_optimize_on_cuda_alone(self, monkeypatch):
        assert not any(getattr(m, "memory_efficient", False) for m in optimize(tiny(), training=True).modules())
        monkeypatch.setattr(torch.nn.Parameter, "is_cuda", True, raising=False)
        made = optimize(tiny(), training=True)
        assert all(m.memory_efficient for m in made.modules() if hasattr(m, "memory_efficient"))
        assert not any(getattr(m, "memory_efficient", False) for m in optimize(tiny()).modules())

    @pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")
    def test_projection_that_computes_gelu_again(self, monkeypatch):
        monkeypatch.setattr(ops.recompute, "should_recompute", lambda x: True)
        x, conv1, draw = images(2, 6, 5, 7).requires_grad_(), conv(6, 3, 1), torch.randn(4, 6, 1, 1)
        leaves = [x, *(t.requires_grad_() for t in (conv1[0], conv1[1], draw, torch.randn(4)))]
        _, near, near_bias, weight, bias = leaves
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
            y = ops.depthwise_gelu_project(x, (near, near_bias, 1), weight, bias)
        assert saved.count(x.shape) == 1  # GELU's result would be another of that shape
        plain = torch.nn.functional.conv2d(ops.reference.chain(x, [(near, near_bias, 1)], gelu=True), weight, bias)
        assert gap(y, plain) < 1e-5
        grad = images(*y.shape, seed=3)
        wanted = torch.autograd.grad(plain, leaves, grad)
        assert all(gap(a, b) < 1e-5 for a, b in zip(torch.autograd.grad(y, leaves, grad), wanted, strict=True))
        torch._dynamo.reset()
        compiled = torch.compile(ops.depthwise_gelu_project, backend="aot_eager", fullgraph=True)
        y = compiled(x, (near, near_bias, 1), weight, bias)
        assert all(gap(a, b) < 1e-5 for a, b in zip(torch.autograd.grad(y, leaves, grad), wanted, strict=True))
        again = tuple(t.detach() for t in (y.new_ones(x.shape), x, near, near_bias))
        torch.library.opcheck(kernel.depthwise_gelu_again, (*again, 1))

    @pytest.mark.long
    def test_a_whole_step(self, network, monkeypatch):
        """With the C kernel in the place of the GPU's: the same gradients, eager and compiled without a graph break."""
        x, grads = images(2, 3, 64, 64), []  # a last map of one pixel would leave BatchNorm little but rounding
        monkeypatch.setattr(ops.recompute, "should_recompute", lambda x: True)
        torch._dynamo.reset()
        for memory_efficient in (False, True):
            network.backbone.set_memory_efficient(memory_efficient)
            calls = [network]
            if memory_efficient:
                calls.append(torch.compile(network, backend="aot_eager", fullgraph=True))
            for call in calls:
                found = torch.autograd.grad(call(x).square().sum(), list(network.parameters()))
                grads.append(torch.cat([g.flatten() for g in found]))
        assert all((found - grads[0]).norm() < 1e-4 * grads[0].norm() for found in grads[1:])

    def test_a_hooked_projection_is_called(self, network, monkeypatch):
        monkeypatch.setattr(ops.recompute, "should_recompute", lambda x: True)
        network.backbone.set_memory_efficient()
        seen, block = [], network.backbone.stages[0].blocks[0]
        block.feed_forward.project.register_forward_hook(lambda *arguments: seen.append(1))
        network(images(2, 3, 64, 64))
        assert seen == [1]

    def test_memory_on_cuda_is_estimated(self, monkeypatch):
        """On fake CUDA tensors: at most 60% of the official graph's, which is an estimate of what a GPU will need."""
        monkeypatch.syspath_prepend(str(TESTS.parent.parent / "benchmarks"))
        from gpu_memory import estimate

        found = estimate(create_model("van_b0", seed=0).train(), 128, 224)
        assert 0.7 * found["official"] < found["ours"] < 0.9 * found["official"]
        assert found["ours, lean"] < 0.6 * found["official"]


def test_nobody_imports_triton_before_it_is_needed():
    code = """
import sys
sys.modules["triton"] = None  # whoever imports it fails
import torch, van.ops
from van.ops import cuda_depthwise as gpu
assert "van.ops.triton_kernels" not in sys.modules
print(van.ops.report()["cuda"])
try:
    gpu.check(torch.device("cpu"))
except ImportError:
    print("asked for it")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "library convolutions" in done.stdout
    assert "asked for it" in done.stdout


def test_optimize_holds_the_kernels_against_the_library(monkeypatch):
    forward = DepthwiseConv2d.forward
    wanted = ops.depthwise._kernels_wanted
    monkeypatch.setattr(DepthwiseConv2d, "forward", lambda self, x: forward(self, x) * (1.1 if wanted.get() else 1))
    for training in (False, True):
        with pytest.raises(VanError, match="differs from the original"):
            optimize(tiny(), example=images(1, 3, 32, 32), training=training)


def test_optimize_leaves_precisions_as_they_were():
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before, seen = [setting.fp32_precision for setting in settings], []
    model = tiny().eval()
    model.register_forward_hook(lambda *arguments: seen.append([setting.fp32_precision for setting in settings]))
    optimize(model, example=images(1, 3, 32, 32))
    assert seen == [["ieee", "ieee"]] * 2
    assert [setting.fp32_precision for setting in settings] == before


def test_training_on_cuda_starts_from_optimize(monkeypatch):
    from van.train import network as room

    model, moved = tiny(), []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(type(model), "to", lambda self, *a, **k: moved.append((*a, *k.values())) or self)
    monkeypatch.setattr(room, "optimize", lambda given, *, training: ("optimised", given, training))
    assert room.laid_out(model, "cuda", channels_last=False) == ("optimised", model, True)
    assert room.laid_out(model, "cuda:2", channels_last=False) == ("optimised", model, True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    room.laid_out(model, "cuda", channels_last=False)
    assert [device.index for (device,) in moved] == [0, 2, 3]
    assert room.laid_out(model, "cpu", channels_last=False) is model
    assert len(moved) == 3
    assert room.laid_out(model, "cpu", channels_last=True) is model
    assert moved[3] == (torch.channels_last,)


# --- on a GPU


@pytest.fixture
def cuda():
    if not gpu.gpu().ready:
        pytest.fail(f"the kernels are not used here: {gpu.gpu().reason}")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("width", "channels"), STAGES)
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_the_stages(self, cuda, dtype, width, channels, layout):
        x = images(3, channels, width, width).to(cuda, dtype).contiguous(memory_format=layout)
        check(x, pair(channels, dtype=dtype, device=cuda))
        check(x, [conv(channels, 3, 1, dtype=dtype, device=cuda)], gelu=True)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (13, 18), (120, 75)])
    @pytest.mark.parametrize("channels", [1, 20, 33, 72])
    def test_any_size(self, cuda, dtype, size, channels):
        x = images(2, channels, *size).to(cuda, dtype)
        check(x, pair(channels, dtype=dtype, device=cuda))
        check(x, [conv(channels, 3, 1, device=cuda, bias=False)], gelu=True)

    @pytest.mark.parametrize(("side", "dilation"), [(1, 1), (2, 3), (4, 2), (5, 3), (9, 1), (11, 2), (21, 1)])
    def test_other_kernels(self, cuda, side, dilation):
        check(images(2, 18, 12, 17).to(cuda), [conv(18, side, dilation, device=cuda)])

    def test_more_elements_than_32_bits_address(self, cuda):
        x = torch.zeros((1, 56, 56, 64), dtype=torch.bfloat16, device=cuda).expand(11000, -1, -1, -1).contiguous()
        x = x.permute(0, 3, 1, 2)
        x[-1] = images(64, 56, 56).to(x)
        assert x.numel() > 2**31
        last = conv(64, 7, 3, dtype=torch.bfloat16, device=cuda)
        assert torch.equal(gpu.convolve(x, last)[-1], gpu.convolve(x[-1:].clone(), last)[0])

    def test_gradients_are_the_same_every_time(self, cuda):
        x, convs = images(16, 64, 56, 56).to(cuda, torch.bfloat16), pair(64, device=cuda)
        first = gpu.backward(x, x, convs)
        for _ in range(5):
            assert all(torch.equal(a, b) for a, b in zip(first, gpu.backward(x, x, convs), strict=True))

    def test_compiled_and_captured(self, cuda):
        torch._dynamo.reset()
        model, x = optimize(tiny().to(cuda).bfloat16()), images(2, 3, 64, 64).to(cuda, torch.bfloat16)
        compiled_model = torch.compile(model, fullgraph=True, mode="reduce-overhead")
        with torch.inference_mode():
            want = model(x)
            for _ in range(4):  # warm-up, capture, replays
                assert gap(compiled_model(x).clone(), want) < 2e-2

    def test_a_training_step_in_a_cuda_graph(self, cuda):
        model = tiny(drop_path_rate=0.0).to(cuda)
        model, x = optimize(model, example=images(1, 3, 64, 64).to(cuda), training=True), images(4, 3, 64, 64).to(cuda)

        def step():
            model.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                loss = model(x).float().square().mean()
            loss.backward()

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        wanted = [p.grad.clone() for p in model.parameters()]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        for _ in range(2):
            graph.replay()
            assert all(gap(p.grad, want) < 1e-2 for p, want in zip(model.parameters(), wanted, strict=True))

    def test_memory_of_a_memory_efficient_step(self, cuda):
        """What the estimate above estimates, at a size where maps outweigh everything else."""
        peaks, x = {}, images(32, 3, 224, 224).to(cuda)
        for memory_efficient in (False, True):
            torch.cuda.empty_cache()
            model = create_model("van_b0", seed=0).to(cuda).train()
            model = optimize(model, example=x[:1], training=True)
            model.backbone.set_memory_efficient(memory_efficient)
            torch.cuda.reset_peak_memory_stats()
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(x).float().square().mean()
            loss.backward()
            peaks[memory_efficient] = torch.cuda.max_memory_allocated()
            del model, loss
        assert peaks[True] < 0.75 * peaks[False]

    def test_opcheck(self, cuda):
        (near, near_bias, _), (far, far_bias, _) = pair(6, device=cuda)
        x = images(2, 6, 5, 4).to(cuda)
        for leaf in (x, near, far, near_bias, far_bias):
            leaf.requires_grad_()
        torch.library.opcheck(kernel.depthwise_pair, (x, near, near_bias, 1, far, far_bias, 3))
        torch.library.opcheck(kernel.depthwise, (x, near, None, 1, True))
        again = (x.detach(), x.detach(), near.detach(), near_bias.detach(), 1)
        torch.library.opcheck(kernel.depthwise_gelu_again, again)

    @pytest.mark.parametrize("autocast", [False, True])
    def test_200_steps_on_digits(self, cuda, autocast):
        """The loss of the kernels' training stays with the plain path's."""
        curves = {}
        for way in ("plain", "kernels"):
            curves[way] = losses(cuda, autocast=autocast, plainly=way == "plain")
        ours, theirs = (torch.tensor(curves[way]) for way in ("kernels", "plain"))
        assert theirs[-20:].mean() < 0.5 * theirs[:20].mean()  # it does learn
        smooth = [curve.unfold(0, 20, 20).mean(1) for curve in (ours, theirs)]
        assert (smooth[0] - smooth[1]).abs().max() < 0.02 * theirs[:20].mean()


def losses(device, *, autocast, plainly, steps=200):
    """The training loss on the embedded digits, step by step."""
    from van.data import open_classification

    data = open_classification("digits", "train")
    drawn = torch.Generator().manual_seed(0)
    model = tiny(in_chans=1, num_classes=10).to(device)
    model = model if plainly else optimize(model, example=images(1, 1, 32, 32).to(device), training=True)
    optimizer, curve = torch.optim.AdamW(model.train().parameters(), lr=2e-3), []
    for _ in range(steps):
        picked = [data.load(int(i)) for i in torch.randint(len(data), (64,), generator=drawn)]
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("L").resize((32, 32)))) for image, _ in picked])
        x = (pixels[:, None] / 127.5 - 1).to(device)
        labels = torch.tensor([label for _, label in picked], device=device)
        kernels = ops.without_kernels() if plainly else nullcontext()
        with kernels, torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = torch.nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def test_the_training_of_the_gpu_test_learns():
    """What runs on a GPU above, shorter, on the CPU's kernel: its parts fit together."""
    curve = losses(torch.device("cpu"), autocast=False, plainly=False, steps=40)
    assert sum(curve[-5:]) < sum(curve[:5])
