"""van.optimize: faster, verified, and the original as it was."""

import copy

import pytest
import torch
from networks import gap, images, tiny
from torch import nn

import van
from van.errors import ConfigError, VanError
from van.nn import TestTimePool, is_folded
from van.nn import optimize as function_of_nn
from van.nn.fold import FoldedStage


def channels_last(model):
    return all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.ndim == 4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inference(layout):
    model, x = tiny().train(), images().contiguous(memory_format=layout)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    fast = van.optimize(model)
    assert is_folded(fast)
    assert channels_last(fast)
    assert not fast.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    with torch.inference_mode():
        assert gap(fast(x), model.eval()(x)) < 5e-6


def test_attributes_come_along():
    model = tiny()
    model.classes, model.preprocess, model.provenance = tuple("abcde"), object(), {"source": "a file"}
    fast = van.optimize(model)
    assert (fast.classes, fast.provenance) == (model.classes, model.provenance)
    assert fast.config == model.config


def test_training_changes_the_layout_alone():
    model, x = tiny(frozen_stages=0).train(), images()
    fast = van.optimize(model, training=True)
    assert channels_last(fast)
    assert not channels_last(model)
    assert [m.training for m in fast.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in fast.parameters()] == [p.requires_grad for p in model.parameters()]
    state = model.state_dict()
    assert list(fast.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in fast.state_dict().items())
    fast(x).square().sum().backward()
    model(x).square().sum().backward()
    for one, two in zip(fast.parameters(), model.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        assert one.grad is None or torch.allclose(one.grad, two.grad, rtol=1e-4, atol=1e-4)


def test_the_example_is_what_is_compared():
    model, seen = tiny(in_chans=1).eval(), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    van.optimize(model, example=images(2, 1, 40, 56))
    assert seen == [(2, 1, 40, 56)] * 2  # the original and the copy
    van.optimize(model)
    assert seen[2:] == [(1, 1, 224, 224)] * 2


def test_the_example_follows_the_preprocessing():
    model, seen = tiny().eval(), []
    model.preprocess = van.images.preprocess.Preprocess(size=(64, 96))
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    van.optimize(model)
    assert seen == [(1, 3, 64, 96)] * 2


@pytest.mark.parametrize("damage", [1e-3, float("nan")])
def test_a_copy_that_differs_is_never_returned(monkeypatch, damage):
    forward = FoldedStage.forward
    monkeypatch.setattr(FoldedStage, "forward", lambda self, x: (y := forward(self, x)) + damage * y.flip(1))
    with pytest.raises(VanError, match=r"the optimised network differs from the original by .* more than the 0\.0001"):
        van.optimize(tiny(), example=images(1, 3, 32, 32))


def test_an_output_that_is_not_finite_is_the_networks_own_fault():
    model = tiny().eval()
    model.head.bias.data[0] = float("inf")
    with pytest.raises(VanError, match="the network's own output is not finite"):
        van.optimize(model, example=images(1, 3, 32, 32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    model = tiny().to(dtype)
    assert van.optimize(model)(images(dtype=dtype)).dtype == dtype


def test_pyramids_and_wrappers():
    pyramid = van.optimize(tiny().backbone)(images())
    assert [m.shape[1] for m in pyramid] == [8, 16, 24, 32]
    pooled = TestTimePool(tiny()).eval()
    assert gap(van.optimize(pooled)(images(1, 3, 256, 256)), pooled(images(1, 3, 256, 256))) < 5e-6

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny().backbone

        def forward(self, x):
            return {"maps": self.inner(x)}

    assert len(van.optimize(Named())(images())["maps"]) == 4


def test_nothing_to_optimise():
    with pytest.raises(ConfigError, match="nothing to optimise in Linear"):
        van.optimize(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="folded already"):
        van.optimize(van.optimize(tiny()))


ONE_BLOCK = {"embed_dims": (8,), "depths": (1,), "mlp_ratios": (2,), "patch_sizes": (7,)}


class TestCompiled:
    @pytest.mark.long
    def test_compiled_for_real(self):
        torch._dynamo.reset()
        model, x = tiny(**ONE_BLOCK, strides=None, out_indices=None).eval(), images(1, 3, 32, 32)
        fast = van.optimize(model, example=x, compile=True)
        assert type(fast) is type(model)
        with torch.inference_mode(), torch.compiler.set_stance("fail_on_recompile"):
            assert gap(fast(x), model(x)) < 5e-6
        assert fast.state_dict().keys() == van.optimize(model, example=x).state_dict().keys()

    def test_what_the_compiler_made_is_verified(self, monkeypatch):
        def wrong(self):
            self._compiled_call_impl = lambda *arguments: 1.01 * self._call_impl(*arguments)

        monkeypatch.setattr(nn.Module, "compile", wrong)
        with pytest.raises(VanError, match="the compiled network differs"):
            van.optimize(tiny(), compile=True)

    def test_training_is_compiled_without_a_trial(self, monkeypatch):
        compiled = []
        monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
        assert van.optimize(tiny(), training=True, compile=True) is compiled[0]


def test_it_is_one_function():
    assert van.optimize is function_of_nn
