"""The convolutions as nn.Conv2d to tools that build, trace, copy or replace layers by their class."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from networks import gap, images, tiny
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import van
from van.nn.layers import DepthwiseConv2d, PointwiseConv2d, depthwise_conv

pytestmark = pytest.mark.promise("17")
SAME = 5e-6


@pytest.mark.parametrize("kind", [DepthwiseConv2d, PointwiseConv2d])
@pytest.mark.parametrize("options", [
    {"kernel_size": 1},
    {"kernel_size": (1, 1), "stride": (2, 2), "bias": False},
    {"kernel_size": 3, "padding": 1, "groups": 8},
    {"kernel_size": 3, "padding": "same", "groups": 8, "dilation": 2},
    {"kernel_size": (3, 5), "padding": (1, 2), "groups": 8},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect", "groups": 8},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2, "groups": 4},
    {"kernel_size": 4, "padding": 1, "groups": 8},
    {"kernel_size": 4, "padding": "same", "groups": 8},
    {"kernel_size": 3, "padding": "valid", "groups": 8, "dtype": torch.float64},
    {"kernel_size": 1, "padding": 1},
    {"kernel_size": 1, "groups": 2},
])  # fmt: skip
def test_any_arguments_of_a_convolution(kind, options):
    theirs = nn.Conv2d(8, 16 if options.get("groups") != 8 else 8, **options)
    ours = kind(theirs.in_channels, theirs.out_channels, **options)
    ours.load_state_dict(theirs.state_dict())
    x = images(2, 8, 9, 12, dtype=options.get("dtype", torch.float32))
    assert repr(ours).partition("(")[2] == repr(theirs).partition("(")[2]
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=layout)
        assert ours(x).shape == theirs(x).shape
        assert gap(ours(x), theirs(x)) < SAME


def test_geometry_changed_afterwards():
    layer, x = depthwise_conv(4, 3), images(1, 4, 9, 9)
    layer.stride, layer.padding_mode = (2, 2), "zeros"
    assert layer(x).shape == (1, 4, 5, 5)
    model, y = tiny().eval(), images(1, 3, 64, 64)
    near = model.backbone.stages[0].blocks[0].attention.spatial.near
    near.dilation, near.padding = (2, 2), (4, 4)
    wanted = copy.deepcopy(model)
    part = wanted.backbone.stages[0].blocks[0].attention.spatial
    part.near = nn.Conv2d(8, 8, 5, padding=4, dilation=2, groups=8)
    part.near.load_state_dict(near.state_dict())
    assert gap(model(y), wanted(y)) < SAME
    assert gap(van.optimize(model, example=y)(y), wanted(y)) < SAME


@pytest.mark.parametrize(("side", "dilation"), [(3, 1), (7, 3), (4, 1), (2, 3)])
def test_the_networks_own_convolutions_are_what_their_attributes_say(side, dilation):
    layer, x = depthwise_conv(5, side, dilation), images(1, 5, 11, 13)
    assert layer(x).shape == x.shape
    assert gap(layer(x), nn.Conv2d.forward(layer, x)) < SAME


class LowRank(nn.Module):
    """A layer and a trained difference of low rank, built as adapter libraries build it: by the layer's class."""

    def __init__(self, base, rank=2):
        super().__init__()
        kind = type(base)
        self.base = base.requires_grad_(False)
        self.down = kind(base.in_channels, rank, base.kernel_size, base.stride, base.padding, bias=False)
        self.up = kind(rank, base.out_channels, (1, 1), (1, 1), bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    def merged(self):
        """The layer with the difference added to its weight."""
        layer = copy.deepcopy(self.base)
        with torch.no_grad():
            layer.weight += torch.einsum("or,rikl->oikl", self.up.weight[..., 0, 0], self.down.weight)
        return layer


def test_low_rank_adapters_train_and_merge():
    torch.manual_seed(0)
    model, x = tiny(), images(2, 3, 64, 64)
    start = copy.deepcopy(model).eval()(x)
    model.requires_grad_(False)
    parents = [(p, n) for p in list(model.modules()) for n, m in list(p.named_children()) if type(m) is PointwiseConv2d]
    for parent, name in parents:
        setattr(parent, name, LowRank(getattr(parent, name)))
    assert len(parents) == 25
    assert gap(model.eval()(x), start) < SAME
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(2):
        model(x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    adapted = model(x)
    assert gap(adapted, start) > 1e-3
    for parent, name in parents:
        setattr(parent, name, getattr(parent, name).merged())
    assert gap(model(x), adapted) < SAME
    assert gap(van.optimize(model, example=x)(x), adapted) < SAME


@pytest.mark.parametrize("targets", [["proj_in", "proj_out"], ["mix", "expand", "project", "head"], ["conv"]])
def test_peft_trains_and_merges(targets):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model, x = tiny(), images(2, 3, 64, 64)
    start = copy.deepcopy(model).eval()(x)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets))
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        adapted(x).square().mean().backward()
        optimizer.step()
    assert model.num_classes == 5
    adapted.eval()
    want = adapted(x)
    assert gap(want, start) > 1e-3
    merged = adapted.merge_and_unload()
    assert gap(merged(x), want) < SAME
    assert gap(van.optimize(merged, example=x)(x), want) < SAME


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("part", ["classifier", "backbone", "optimised"])
def test_symbolic_tracing(part, training):
    # dropout draws in the order of memory, which differs
    model = tiny(drop_path_rate=0.2, drop_rate=0.0 if training else 0.1).train(training)
    if part == "optimised":
        model = van.optimize(model, example=images(1, 3, 32, 32))
    model = model.backbone if part == "backbone" else model
    traced, x = torch.fx.symbolic_trace(model), images(2, 3, 64, 48)
    torch.manual_seed(0)
    want = model(x)
    torch.manual_seed(0)
    got = traced(x)
    for one, two in zip(got, want, strict=True):
        assert gap(one, two) < SAME * (100 if training else 1)  # statistics move between the two
    wide = images(1, 3, 96, 32)
    if not training and part != "backbone":
        assert gap(traced(wide), model(wide)) < SAME


def test_torchvisions_feature_extractor():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model, x = tiny().eval(), images(1, 3, 64, 64)
    names, _ = extraction.get_graph_node_names(model)
    assert any(name.startswith("backbone.stages.2.blocks.1.attention.spatial.far") for name in names)
    found = extraction.create_feature_extractor(model, {"backbone.stages.1": "map", "head": "logits"})(x)
    assert gap(found["logits"], model(x)) < SAME
    assert gap(found["map"], model.backbone(x)[1]) < SAME
    pyramid = extraction.create_feature_extractor(model.backbone, [f"stages.{i}" for i in range(4)])(x)
    assert all(gap(a, b) < SAME for a, b in zip(pyramid.values(), model.backbone(x), strict=True))


@pytest.mark.filterwarnings("ignore")  # PyTorch has deprecated it
def test_tracing_by_example():
    for model in (tiny().eval(), van.optimize(tiny(), example=images(1, 3, 32, 32))):
        traced, x = torch.jit.trace(model, images(1, 3, 64, 64)), images(2, 3, 96, 64)
        assert gap(traced(x), model(x)) < SAME


def test_copies_of_a_layer():
    layer, x = depthwise_conv(6, 7, 3), images(1, 6, 20, 20)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer._replicate_for_data_parallel()):
        if "weight" not in other._parameters:  # torch gives replicas their tensors as attributes
            other.weight, other.bias = layer.weight.detach(), layer.bias.detach()
        assert torch.equal(other(x), layer(x))


def test_fused_with_its_norm():
    patch, x = tiny().eval().backbone.stages[0].patch_embed, images(1, 3, 32, 32)
    assert gap(fuse_conv_bn_eval(patch.conv, patch.norm)(x), patch(x)) < SAME
    layer, norm = depthwise_conv(6, 5), nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_()
    y = images(1, 6, 9, 9)
    assert gap(fuse_conv_bn_eval(layer.eval(), norm)(y), norm(layer(y))) < SAME


def test_a_layer_is_a_convolution_to_those_who_ask():
    layer = depthwise_conv(6, 5)
    assert isinstance(layer, nn.Conv2d)
    assert (
        gap(layer(images(1, 6, 9, 9)), F.conv2d(images(1, 6, 9, 9), layer.weight, layer.bias, padding=2, groups=6))
        < SAME
    )
