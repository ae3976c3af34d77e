"""The C kernel's operators as citizens of PyTorch: compiled, exported, counted, profiled."""

import pytest
import torch
from kernel_cases import conv, drawn, flops, pair
from networks import gap, images, tiny

from van import ops
from van.nn import fold
from van.ops import cpu_depthwise as kernel
from van.ops.c_library import library
from van.ops.measured import REPLACED

pytestmark = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")


@pytest.fixture(autouse=True)
def _every_path():
    """What the kernel computes, whichever paths were measured to win here (test_ops_families.py)."""
    with ops.taking(*REPLACED):
        yield


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
        model, x, maps = tiny().eval(), images(1, 3, 64, 64), 3 * 6 * 5 * 4
        ours = [flops(lambda network=network: network(x)) for network in (model, fold(model).requires_grad_(False))]
        monkeypatch.setattr(ops.depthwise, "kernel_available", lambda: False)
        assert ours == [flops(lambda: model(x))] * 2
        y, (near, far) = drawn(3, 6, 5, 4).requires_grad_(), pair(6)
        # every tap of every element, two operations; as often again for each of the two gradients
        assert flops(lambda: kernel.depthwise(y, *near, True).sum().backward()) == 3 * 2 * maps * 25
        assert flops(lambda: kernel.depthwise_pair(y, *near, *far).sum().backward()) == 3 * 2 * maps * (25 + 49)

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
