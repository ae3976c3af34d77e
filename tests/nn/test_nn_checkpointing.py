"""Gradient checkpointing: the same step with less memory."""

import pytest
import torch
from kernel_builds import in_use
from networks import images, tiny
from torch import nn
from torch.utils.checkpoint import checkpoint

from van.nn.heads.layers import ConvNormReLU, PixelClassifier
from van.ops import selection
from van.ops.measured import RATIOS, REPLACED


def step(checkpointing, *, steps=1, **options):
    """(gradients, buffers, bytes that the forward pass kept) after `steps` training steps."""
    model = tiny(**options).train()
    model.set_grad_checkpointing(checkpointing)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    torch.manual_seed(3)
    for k in range(steps):
        kept = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        optimizer.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(images(seed=k)).square().sum()
        loss.backward()
        optimizer.step()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    return gradients, dict(model.named_buffers()), sum(kept.values())


@pytest.mark.parametrize(
    "options", [{}, {"drop_path_rate": 0.5, "drop_rate": 0.2}, {"frozen_stages": 0}, {"norm_eval": True}]
)
def test_gradients_and_statistics_are_those_of_an_ordinary_step(options):
    plain, plain_buffers, plain_bytes = step(False, steps=2, depths=(2, 2, 2, 2), **options)
    saving, buffers, kept_bytes = step(True, steps=2, depths=(2, 2, 2, 2), **options)
    assert plain.keys() == saving.keys()
    for key, gradient in plain.items():
        assert torch.allclose(saving[key], gradient, rtol=1e-6, atol=1e-6), key
    for key, value in plain_buffers.items():
        assert torch.equal(buffers[key], value), key
    assert kept_bytes < 0.4 * plain_bytes


def test_statistics_moved_once_per_step():
    _, buffers, _ = step(True, steps=2)
    counters = [value.item() for key, value in buffers.items() if key.endswith("num_batches_tracked")]
    assert counters == [2] * 14


def test_momenta_are_put_back_even_after_an_error():
    model = tiny().train()
    model.set_grad_checkpointing()
    loss = model(images()).sum()
    block = model.backbone.stages[3].blocks[0]
    block.feed_forward.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    assert block.norm1.num_batches_tracked == 1


def test_off_in_evaluation_and_when_switched_off(monkeypatch):
    model, called = tiny(), []
    monkeypatch.setattr("van.nn.fused.checkpoint", lambda block, x: called.append(block) or block(x))
    model.set_grad_checkpointing()
    model.eval()(images())
    assert not called
    model.train()(images())
    assert len(called) == 5
    model.set_grad_checkpointing(False)
    model(images())
    assert len(called) == 5


def block(*, hooked=(), **attributes):
    made = tiny().backbone.stages[1].blocks[0]
    for name, value in attributes.items():
        setattr(made, name, value)
        setattr(made.feed_forward, name, value)
    for name in hooked:
        made.get_submodule(name).register_forward_hook(lambda *_: None)
    return made


# The modules whose forwards choose between ways, and their inputs.
CHOOSING = {
    "block": lambda: (block(), images(2, 16, 14, 14)),
    "block in little memory": lambda: (block(memory_efficient=True), images(2, 16, 14, 14)),
    "attention that is called": lambda: (block(hooked=["attention"]), images(2, 16, 14, 14)),
    "expansion that is called": lambda: (block(hooked=["feed_forward.expand"]), images(2, 16, 14, 14)),
    "and in little memory": lambda: (
        block(hooked=["feed_forward.expand"], memory_efficient=True),
        images(2, 16, 14, 14),
    ),
    "convolution": lambda: (block().attention.spatial.near, images(2, 16, 14, 14)),
    "joined maps": lambda: (ConvNormReLU(128, 64, 3, norm="batch"), images(2, 64, 32, 32), images(2, 64, 16, 16)),
    "classifier": lambda: (PixelClassifier(64, 5, 0.0), images(2, 64, 32, 32)),
}
# Ratios in inference and in training, where another table than the measured one is in use.
TABLES = {"measured": None, "training gains": (0.9, 1.1), "inference gains": (1.1, 0.9)}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("instructions", ["AVX2", "baseline"])
@pytest.mark.parametrize("name", CHOOSING)
def test_reentrant_checkpointing_computes_the_same_twice(name, instructions, table, monkeypatch):
    """Bit for bit, statistics of the batch too: what it keeps and what it differentiates are one function."""
    with in_use(instructions, monkeypatch):
        if TABLES[table] is not None:
            inference, training = TABLES[table]
            ratios = {path: training if path.endswith("_training") else inference for path in REPLACED}
            monkeypatch.setitem(RATIOS, selection.family(), ratios)
        module, *maps = CHOOSING[name]()
        module.train()
        found = []

        def run(*maps):
            for norm in (each for each in module.modules() if isinstance(each, nn.BatchNorm2d)):
                norm.reset_running_stats()
            y = module(*maps)
            found.append([y.detach().clone(), *(value.clone() for value in module.buffers())])
            return y

        checkpoint(run, *(x.requires_grad_() for x in maps), use_reentrant=True).sum().backward()
    first, second = found
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
