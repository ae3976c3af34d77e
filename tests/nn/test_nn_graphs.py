"""torch.compile without graph breaks, torch.export with free sizes."""

import pytest
import torch
from networks import gap, images, tiny

import van

SHALLOW = {"embed_dims": (8, 16), "depths": (1, 1), "mlp_ratios": (2, 2), "patch_sizes": (7, 3)}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


def training_step(model, call):
    torch.manual_seed(0)
    call(images(2, 3, 32, 32)).square().sum().backward()
    return [p.grad for p in model.parameters()], list(model.buffers())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_compiles_to_one_graph(checkpointing):
    eager, compiled = tiny(**SHALLOW).train(), tiny(**SHALLOW).train()
    compiled.set_grad_checkpointing(checkpointing)
    want = training_step(eager, eager)
    got = training_step(compiled, torch.compile(compiled, fullgraph=True, backend="aot_eager"))
    for one, two in zip((*got[0], *got[1]), (*want[0], *want[1]), strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5)


def test_drop_path_and_dropout_compile_to_one_graph():
    model = tiny(**SHALLOW, drop_path_rate=0.3, drop_rate=0.1, head_drop_rate=0.1).train()
    assert torch.compile(model, fullgraph=True, backend="eager")(images(2, 3, 32, 32)).isfinite().all()


def test_pyramid_compiles_to_one_graph():
    model = tiny(**SHALLOW).backbone.eval()
    maps = torch.compile(model, fullgraph=True, backend="eager")(images(1, 3, 40, 48))
    assert all(gap(a, b) < 2e-6 for a, b in zip(maps, model(images(1, 3, 40, 48)), strict=True))  # torch 2.11 rounds


@pytest.mark.parametrize("folded", [False, True])
def test_export_with_free_batch_and_size(folded):
    model = tiny().eval()
    if folded:
        model = van.optimize(model)
    free = torch.export.Dim.AUTO
    program = torch.export.export(model, (images(2, 3, 64, 96),), dynamic_shapes=({0: free, 2: free, 3: free},))
    other = images(3, 3, 75, 101)
    assert gap(program.module()(other), model(other)) < 1e-5
    paddings = [node for node in program.graph.nodes if "pad" in str(node.target)]
    assert not paddings  # engines get one convolution per layer
