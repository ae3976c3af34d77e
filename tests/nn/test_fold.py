"""Folding: the same function with fewer operations, to the last bits of float64."""

import copy
import pickle

import published
import pytest
import torch
from networks import gap, images, tiny
from reference_data import golden, inputs, state
from torch import nn

import van
from van.configs.backbone import ATTENTION_OPTIONS
from van.errors import ConfigError
from van.nn import Backbone, fold, is_folded
from van.nn.fold import FoldedBlock, FoldedStage


@pytest.mark.parametrize(
    ("name", "salt", "tag"),
    [("official_van_b0", "", "x_1x3x75x101"), ("official_van_b0_eps", "eps", "x_1x3x160x224")],
)
def test_folded_b0_equals_the_original_code(tmp_path, name, salt, tag):
    model = van.load(published.written("official_van_b0", tmp_path, state("official_van_b0", salt)))
    want, x = golden(name), torch.from_numpy(dict(inputs(name))[tag])
    with torch.inference_mode():
        assert (fold(model)(x) - torch.from_numpy(want[f"{tag}/logits"])).abs().max() < 1e-5
        logits = fold(model.double())(x.double())
    assert (logits - torch.from_numpy(want[f"{tag}/logits64"])).abs().max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("option", ATTENTION_OPTIONS)
def test_every_ablation(option, dtype):
    model = tiny(attention=option, drop_rate=0.2, drop_path_rate=0.3).to(dtype)
    x = images(2, 3, 64, 96, dtype=dtype)
    with torch.no_grad():
        got, want = fold(model)(x), copy.deepcopy(model).eval()(x)
    assert gap(got, want) < (1e-13 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 28, "dilation": 4}, {"patch_sizes": (7, 5, 5, 5)}, {"in_chans": 4}]
)
def test_other_architectures(options):
    model = tiny(**options).eval().double()
    x = images(2, model.config.in_chans, 75, 101, dtype=torch.float64)
    assert gap(fold(model)(x), model(x)) < 1e-13


def test_a_backbone_alone():
    model = tiny(out_indices=(1, 3)).backbone.eval().double()
    folded, x = fold(model), images(dtype=torch.float64)
    assert isinstance(folded, Backbone)
    assert len(folded(x)) == 2
    for one, two in zip(folded(x), model(x), strict=True):
        assert gap(one, two) < 1e-13


def test_a_backbone_inside_something_else():
    model = nn.Sequential(nn.Upsample(scale_factor=2), tiny()).eval().double()
    x = images(1, 3, 32, 32, dtype=torch.float64)
    assert gap(fold(model)(x), model(x)) < 1e-13


def test_nothing_is_left_to_normalise_or_scale_in_the_blocks():
    folded = fold(tiny())
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len([m for m in folded.modules() if isinstance(m, FoldedBlock)]) == 5
    assert not any(p.requires_grad for p in folded.parameters())
    assert not folded.training


def test_the_original_is_untouched():
    model = tiny().train()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    folded = fold(model)
    folded(images())
    for tensor in folded.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())
    assert not is_folded(model)
    assert is_folded(folded)


def test_gradients_with_respect_to_the_image():
    model, x = tiny().eval().double(), images(dtype=torch.float64).requires_grad_()
    (want,) = torch.autograd.grad(model(x).square().sum(), x)
    (got,) = torch.autograd.grad(fold(model)(x).square().sum(), x)
    assert gap(got, want) < 1e-12


def test_half_precision_rounds_once():
    model = tiny().eval()
    exact = fold(model).state_dict()
    rounded = fold(model.bfloat16()).state_dict()  # weights already rounded, products formed in float64
    key = "backbone.stages.0.blocks.0.shortcut"
    assert rounded[key].dtype == torch.bfloat16
    assert gap(rounded[key].float(), exact[key]) < 0.01


def test_nothing_to_fold():
    with pytest.raises(ConfigError, match=r"nothing to fold in Linear; expected a model with a van\.nn\.Backbone"):
        fold(nn.Linear(2, 2))


def test_folded_twice():
    with pytest.raises(ConfigError, match="folded already; fold the original"):
        fold(fold(tiny()))


def test_norms_without_running_statistics():
    model = tiny()
    norm = model.backbone.stages[1].blocks[0].norm2
    norm.running_mean = norm.running_var = None
    with pytest.raises(ConfigError, match=r"cannot fold BatchNorm2d.*; expected a BatchNorm with running statistics"):
        fold(model)


def one_by_one(backbone, x):
    """The maps of a backbone's stages, each called as a module."""
    maps = []
    for stage in backbone.stages:
        x = stage(x)
        maps.append(x)
    return maps


def exact(folded, x):
    """The same network in float64, of which the kernel computes nothing."""
    return copy.deepcopy(folded).double()(x.double())


PARTS = [
    "stages.0.patch_embed.conv",
    "stages.1.patch_embed",
    "stages.1",
    "stages.2.blocks.1.depthwise",
    "stages.3.norm",
]


@torch.no_grad()
class TestStagesTogether:
    """Where the kernel serves them, all stages are one operator."""

    @pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 3), (0,)])
    def test_the_maps_are_those_of_the_stages_one_by_one(self, indices):
        backbone, x = fold(tiny(out_indices=indices)).backbone, images()
        maps = one_by_one(backbone, x)
        assert all(map(torch.equal, backbone(x), [maps[i] for i in indices]))
        assert torch.equal(backbone.last(x), maps[-1])

    @pytest.mark.parametrize("name", PARTS)
    def test_a_hook_is_heard(self, name):
        model, x, heard = fold(tiny()), images(), []
        want = model(x)
        handle = model.backbone.get_submodule(name).register_forward_hook(lambda *call: heard.append(call[2].shape))
        assert torch.equal(model(x), want)
        assert len(heard) == 1
        handle.remove()
        model(x)
        assert len(heard) == 1

    @pytest.mark.parametrize("name", PARTS)
    def test_weights_that_are_written_count(self, name):
        model, x = fold(tiny()), images()
        before = model(x)
        next(model.backbone.get_submodule(name).parameters()).mul_(1.5)
        assert gap(model(x), exact(model, x)) < 1e-5
        assert gap(model(x), before) > 1e-3

    def test_weights_that_are_loaded_count(self):
        model, other, x = fold(tiny()), fold(tiny(seed=1)), images()
        model(x)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(x), other(x))

    def test_a_stage_that_is_replaced_counts(self):
        model, x = fold(tiny()), images()
        want = model(x)
        model.backbone.stages[2] = nn.Sequential(model.backbone.stages[2], nn.Tanh())
        assert gap(model(x), exact(model, x)) < 1e-5
        assert gap(model(x), want) > 1e-3

    def test_a_patched_class_counts(self, monkeypatch):
        model, x = fold(tiny()), images()
        want, forward = model(x), FoldedStage.forward
        monkeypatch.setattr(FoldedStage, "forward", lambda self, x: 2 * forward(self, x))
        assert gap(model(x), want) > 1e-3

    def test_a_backbone_of_another_class_keeps_its_methods(self):
        model, x = tiny().eval(), images()
        want = fold(model).backbone.last(x)
        model.backbone.__class__ = Doubled
        assert torch.equal(fold(model).backbone.last(x), 2 * want)

    def test_copies_and_pickles(self):
        model, x = fold(tiny()), images()
        assert torch.equal(copy.deepcopy(model)(x), model(x))
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))

    def test_half_precision(self):
        model, x = fold(tiny().bfloat16()), images()
        logits = model(x.bfloat16())
        assert logits.dtype == torch.bfloat16
        assert gap(logits.float(), exact(model, x.bfloat16())) < 0.05


class Doubled(Backbone):
    """A backbone that is not what is written."""

    def pyramid(self, x, last=False):
        return super().pyramid(x, last) * 2
