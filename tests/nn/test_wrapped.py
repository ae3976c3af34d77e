"""Modules that others have wrapped, hooked, offloaded or changed are called; the fast paths never pass them over."""

import copy
import pickle

import pytest
import torch
from networks import gap, images, tiny
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import van
from van import ops
from van.errors import ConfigError
from van.nn.fold import FoldedStage
from van.ops import cpu_depthwise as kernel
from van.ops import folded_block as block
from van.ops.c_library import library

pytestmark = pytest.mark.promise("4")
SAME = 5e-6  # of the largest output: sums in another order
PLAIN, OPTIMISED = (lambda: tiny().eval()), (lambda: van.optimize(tiny(), example=images(1, 3, 32, 32)))
both = pytest.mark.parametrize("make", [PLAIN, OPTIMISED], ids=["plain", "optimised"])


def block_convolutions(model):
    """Eight of every block, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and ".blocks." in n}


def count_calls(model):
    """Replace every convolution's forward on the instance; how often each is called."""
    seen = dict.fromkeys(block_convolutions(model), 0)
    for name, module in block_convolutions(model).items():

        def forward(x, name=name, original=module.forward):
            seen[name] += 1
            return original(x)

        module.forward = forward
    return seen


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


@both
def test_replaced_forwards_are_all_called(make):
    model, x = make(), images(1, 3, 32, 32)
    want = model(x)
    seen = count_calls(model)
    assert gap(model(x), want) < SAME
    assert list(seen.values()) == [1] * 40
    for module in block_convolutions(model).values():
        del module.forward
    assert torch.equal(model(x), want)


def test_replaced_forwards_are_all_called_in_training_and_keep_gradients():
    wrapped, plain, x = tiny(), tiny(), images(2, 3, 32, 32)
    seen = count_calls(wrapped)
    wrapped(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert set(seen.values()) == {1}
    for one, two in zip(wrapped.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["cpu", "disk", "device_map"])
@both
def test_weights_offloaded_by_accelerate(make, way, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, x = make(), images(1, 3, 32, 32)
    want = model(x)
    if way == "cpu":
        accelerate.cpu_offload(model, execution_device="cpu")
    elif way == "disk":
        accelerate.disk_offload(model, tmp_path, execution_device="cpu")
    else:
        places = {f"backbone.stages.{i}": "disk" if i % 2 else "cpu" for i in range(4)} | {
            "dropout": "cpu",
            "head": "disk",
        }
        accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert any(p.is_meta for p in model.parameters())
    with torch.no_grad():
        assert gap(model(x), want) < SAME
        assert gap(model(x), want) < SAME


KINDS = {
    "forward": lambda module, heard: module.register_forward_hook(lambda *call: heard.append(module)),
    "pre": lambda module, heard: module.register_forward_pre_hook(lambda *call: heard.append(module)),
    "keywords": lambda module, heard: module.register_forward_hook(
        lambda *call: heard.append(module), with_kwargs=True, always_call=True
    ),
    "backward": lambda module, heard: module.register_full_backward_hook(lambda *call: heard.append(module)),
    "backward pre": lambda module, heard: module.register_full_backward_pre_hook(lambda *call: heard.append(module)),
}


@pytest.mark.parametrize("kind", KINDS)
@both
def test_hooks_of_every_module_are_called(make, kind):
    model, x, heard = make(), images(1, 3, 32, 32).requires_grad_(), []
    modules = [m for m in model.modules() if not isinstance(m, nn.ModuleList)]
    want = model(x)
    handles = [KINDS[kind](module, heard) for module in modules]
    got = model(x)
    got.sum().backward()
    assert gap(got, want) < SAME
    assert {id(m) for m in heard} == {id(m) for m in modules}
    times = len(heard)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        assert gap(model(x), want) < SAME
    assert len(heard) == times


@both
def test_hooks_for_all_modules_of_the_process_are_called(make):
    model, heard = make(), set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *call: heard.add(id(module)))
    try:
        model(images(1, 3, 32, 32))
    finally:
        handle.remove()
    assert heard == {id(m) for m in model.modules() if not isinstance(m, nn.ModuleList)}


def test_what_a_hook_has_kept_is_not_written_over():
    model, x, kept = OPTIMISED(), images(1, 3, 32, 32), []
    part = model.backbone.stages[0].blocks[0].proj_in
    part.register_forward_hook(lambda module, inputs, output: kept.append((output, output.clone())))
    with torch.inference_mode():
        model(x)
    assert torch.equal(*kept[0])


@both
def test_parametrized_weights_count(make):
    model, x = make(), images(1, 3, 32, 32)
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for module in block_convolutions(doubled).values():
            module.weight.mul_(2)
    for module in block_convolutions(model).values():
        parametrize.register_parametrization(module, "weight", Twice())
    assert gap(model(x), doubled(x)) < SAME


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_optimising_evaluates_parametrizations_and_leaves_the_original_its_own(norm):
    model, x = tiny(), images(1, 3, 32, 32)
    for module in block_convolutions(model).values():
        norm(module)
    model.eval()
    fast = van.optimize(model, example=x)
    assert gap(fast(x), model(x)) < SAME
    assert not any(parametrize.is_parametrized(m) for m in fast.modules())
    assert all(parametrize.is_parametrized(m) for m in block_convolutions(model).values())


class Doubled(nn.Module):
    """An adapter, as tools put them in the place of a layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return 2 * self.base(x)


@pytest.mark.parametrize("name", ["attention.spatial.near", "attention.spatial.mix", "feed_forward.project"])
@both
def test_replaced_modules_count(make, name):
    model, x = make(), images(1, 3, 32, 32)
    if isinstance(model.backbone.stages[0], FoldedStage):
        name = name.removeprefix("attention.").removeprefix("feed_forward.")
    part = model.backbone.stages[1].blocks[0]
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in doubled.backbone.stages[1].blocks[0].get_submodule(name).parameters():
            parameter.mul_(2)
    parent, _, child = name.rpartition(".")
    setattr(part.get_submodule(parent), child, Doubled(part.get_submodule(name)))
    assert gap(model(x), doubled(x)) < SAME


def test_a_patched_class_counts(monkeypatch):
    from van.nn.backbone import LargeKernelAttention

    model, x, heard = OPTIMISED(), images(1, 3, 32, 32), []
    forward = LargeKernelAttention.forward
    monkeypatch.setattr(LargeKernelAttention, "forward", lambda self, x: heard.append(1) or forward(self, x))
    model(x)
    assert len(heard) == 5


CHANGES = {
    "in place": lambda m: m.weight.mul_(1.5),
    "bias in place": lambda m: m.bias.add_(0.5),
    "another parameter": lambda m: setattr(m, "weight", nn.Parameter(1.5 * m.weight)),
    "other data": lambda m: setattr(m.weight, "data", 1.5 * m.weight.data),
    "vector": lambda m: nn.utils.vector_to_parameters(
        1.5 * nn.utils.parameters_to_vector(m.parameters()), m.parameters()
    ),
    "state_dict": lambda m: m.load_state_dict({k: 1.5 * v for k, v in m.state_dict().items()}),
    "precision and back": lambda m: m.bfloat16().float(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["proj_in", "spatial.far", "depthwise", "project"])
def test_an_optimised_network_follows_its_weights(change, name):
    model, x = OPTIMISED(), images(1, 3, 32, 32)
    before = model(x)
    with torch.no_grad():
        CHANGES[change](model.backbone.stages[2].blocks[1].get_submodule(name))
    fresh = pickle.loads(pickle.dumps(model))
    assert torch.equal(model(x), fresh(x))
    assert not torch.equal(model(x), before)
    assert model.backbone.stages[2].packed is not None or library().handle is None


def test_an_optimised_network_can_be_trained():
    model, x = OPTIMISED().requires_grad_(), images(1, 3, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(model(x), pickle.loads(pickle.dumps(model))(x))


@both
def test_functional_calls_take_the_given_weights(make):
    model, other, x = make(), make(), images(1, 3, 32, 32)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
        before, want = model(x), other(x)
        assert gap(torch.func.functional_call(model, dict(other.named_parameters()), (x,)), want) < SAME
        assert torch.equal(model(x), before)


def test_function_transforms():
    model, x = tiny().eval(), images(3, 3, 32, 32)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        assert gap(torch.vmap(lambda image: model(image[None])[0])(x), model(x)) < SAME
    grads = torch.func.grad(lambda p: torch.func.functional_call(model, p, (x,)).square().sum())(parameters)
    model(x).square().sum().backward()
    assert all(torch.allclose(grads[n], p.grad, rtol=1e-3, atol=1e-3) for n, p in parameters.items())
    _, slope = torch.func.jvp(van.optimize(model, example=x), (x,), (x,))
    step = 1e-6 * x.double()
    wide = tiny().eval().double()
    assert gap(slope.double(), (wide(x + step) - wide(x - step)).detach() / 2e-6) < 1e-4


def test_an_ensemble_of_networks():
    networks, x = [tiny(seed).eval() for seed in range(2)], images(1, 3, 32, 32)
    stacked = torch.func.stack_module_state(networks)
    empty = tiny().eval().to("meta")
    with torch.no_grad():
        got = torch.vmap(lambda *state: torch.func.functional_call(empty, state, (x,)))(*stacked)
        assert all(gap(got[i], network(x)) < SAME for i, network in enumerate(networks))


class Marked(torch.Tensor):
    """A tensor of a class that the kernels do not know."""


@both
def test_tensors_of_other_classes_take_pytorchs_own_operators(make, monkeypatch):
    model, x = make(), images(1, 3, 32, 32)
    want = model(x)
    for module in block_convolutions(model).values():
        module.weight = nn.Parameter(module.weight.detach().as_subclass(Marked), requires_grad=False)
    for name in ("_forward", "_described"):
        monkeypatch.setattr(kernel, name, None)
    with torch.no_grad():
        assert gap(model(x).as_subclass(torch.Tensor), want) < SAME


@both
def test_weights_without_values_are_an_error(make):
    model = make()
    for module in block_convolutions(model).values():
        module.weight = nn.Parameter(module.weight.to("meta"), requires_grad=False)
    with pytest.raises(ConfigError, match="weights lie on the meta device, without values"):
        model(images(1, 3, 32, 32))


@pytest.mark.skipif(library().handle is None, reason="no kernel here")
class TestMemory:
    """The operators themselves refuse what they would read past."""

    X, WEIGHT, BIAS = images(1, 8, 6, 6), images(8, 1, 3, 3), images(8)

    @pytest.mark.parametrize(("weight", "bias", "dilation"), [
        (WEIGHT.to("meta"), BIAS, 1),
        (WEIGHT, BIAS.to("meta"), 1),
        (WEIGHT.double(), BIAS, 1),
        (WEIGHT, BIAS[:4], 1),
        (WEIGHT[:4], BIAS, 1),
        (WEIGHT[..., :2], BIAS, 1),
        (WEIGHT, BIAS, 0),
        (images(8, 1, 33, 33), BIAS, 1),
    ])  # fmt: skip
    def test_parameters_that_do_not_fit(self, weight, bias, dilation):
        assert dilation == 0 or not ops.has_kernel(self.X, (weight, bias, dilation))
        with pytest.raises(ConfigError, match="do not fit a map"):
            kernel._forward(self.X, [(weight, bias, dilation)])

    def test_maps_that_do_not_fit(self):
        with pytest.raises(ConfigError, match=r"the map is torch\.float16"):
            kernel._forward(self.X.half(), [(self.WEIGHT.half(), None, 1)])
        with pytest.raises(ConfigError, match="the gradient is"):
            kernel._backward(self.X[..., :5], self.X, [(self.WEIGHT, self.BIAS, 1)])
        model = OPTIMISED().backbone.stages[1]
        with torch.no_grad(), pytest.raises(ConfigError, match=r"these weights take \(N, 16, H, W\)"):
            block.folded_blocks(self.X, model.blocks[0].packed)
        with torch.no_grad(), pytest.raises(ConfigError, match=r"these weights take \(N, 8, H, W\)"):
            model(images(1, 9, 6, 6))

    def test_chunks_want_layers_that_fit_each_other(self):
        first, last = (images(12, 8, 1, 1), None), (images(8, 12, 1, 1), None)
        assert ops.can_chunk(self.X, first, (images(12, 1, 3, 3), None, 1), last)
        assert not ops.can_chunk(self.X, first, (images(10, 1, 3, 3), None, 1), last)
        assert not ops.can_chunk(self.X, first, (images(12, 1, 3, 3), images(11), 1), last)
        assert not ops.can_chunk(self.X, first, (images(12, 1, 3, 3), None, 1), (images(8, 9, 1, 1), None))


def wrapped_norm(model):
    model.backbone.stages[0].blocks[0].norm1.register_forward_hook(lambda *call: None)


def adapter(model):
    attention = model.backbone.stages[0].blocks[0].attention
    attention.proj_in = Doubled(attention.proj_in)


def offloaded(model):
    count_calls(model)


def without_values(model):
    model.backbone.stages[3].to("meta")


@pytest.mark.parametrize(("change", "words"), [
    (wrapped_norm, r"backbone\.stages\.0\.blocks\.0\.norm1 has hooks"),
    (adapter, r"attention\.proj_in is a Doubled.*merge adapters first"),
    (offloaded, "has a replaced forward"),
    (without_values, "lies on the meta device"),
])  # fmt: skip
def test_optimising_refuses_what_it_would_lose(change, words):
    model = tiny().eval()
    change(model)
    with pytest.raises(ConfigError, match=words):
        van.optimize(model, example=images(1, 3, 32, 32))


@pytest.mark.parametrize("use", ["Predictor", "save", "export"])
def test_weights_that_are_elsewhere_are_named(use, tmp_path):
    model = tiny().eval()
    without_values(model)
    call = {
        "Predictor": van.Predictor,
        "save": lambda model: van.save(model, tmp_path / "x.safetensors"),
        "export": lambda model: van.export(model, tmp_path / "x.onnx"),
    }[use]
    with pytest.raises(ConfigError, match=r"lies on the meta device, without values; load the weights first"):
        call(model)
    assert not list(tmp_path.iterdir())


def test_optimising_for_training_refuses_replaced_forwards():
    model = tiny()
    offloaded(model)
    with pytest.raises(ConfigError, match="has a replaced forward"):
        van.optimize(model, example=images(1, 3, 32, 32), training=True)


def test_hooks_on_parts_that_stay_come_along():
    model, x, heard = tiny(), images(1, 3, 32, 32), []
    model.backbone.stages[0].blocks[0].attention.spatial.near.register_forward_hook(lambda *call: heard.append(1))
    fast = van.optimize(model, example=x)
    heard.clear()
    fast(x)
    assert heard == [1]


def test_a_head_that_joins_maps_calls_a_hooked_convolution():
    from van.nn.heads.layers import ConvNormReLU

    module, maps, heard = ConvNormReLU(12, 32, 3, norm="group").eval(), [images(1, 8, 9, 9), images(1, 4, 5, 5)], []
    want = module(*maps)
    module.conv.register_forward_hook(lambda *call: heard.append(call[1][0].shape))
    assert gap(module(*maps), want) < SAME
    assert heard == [(1, 12, 9, 9)]
