"""What becomes of a backbone's BatchNorm while a head on it is trained."""

import pytest
import torch
from gloo import over_two_processes
from torch import nn

import van
from van.errors import ConfigError, UnknownNameError
from van.nn.batch_norm import set_batch_norm, sync_on_cpu

SIZES = {"embed_dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2), "num_classes": 3}


def trained(policy, **options):
    """A small network after one backward pass in training mode, and its running means before."""
    model = van.create_model("light_ham_van_b0", seed=0, channels=32, ham_channels=32, **SIZES, **options)
    norm = model.backbone.stages[2].blocks[0].norm1
    before = norm.running_mean.clone()
    set_batch_norm(model, policy)
    model.train()
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    return norm, before


def test_trained_statistics_follow_the_batches():
    norm, before = trained("trained")
    assert not torch.equal(norm.running_mean, before)


def test_frozen_statistics_stay_while_scales_are_trained():
    norm, before = trained("frozen")
    assert torch.equal(norm.running_mean, before)
    assert not norm.training
    assert norm.weight.grad is not None


def test_the_last_policy_counts():
    model = van.create_model("van_b0", seed=0, **SIZES).train()
    set_batch_norm(model, "frozen")
    assert model.config.norm_eval
    set_batch_norm(model, "trained")
    assert not model.config.norm_eval
    assert model.backbone.stages[0].patch_embed.norm.training


def test_frozen_stages_stay_frozen_whatever_the_policy():
    model = van.create_model("van_b0", seed=0, frozen_stages=1, **SIZES).train()
    set_batch_norm(model, "trained")
    assert not model.backbone.stages[1].blocks[0].norm1.training
    assert model.backbone.stages[2].blocks[0].norm1.training


def test_synchronised_norms_have_the_same_keys_and_alone_the_same_values():
    torch.manual_seed(0)
    plain, synchronised = (van.create_model("van_b0", seed=0, **SIZES).train() for _ in range(2))
    set_batch_norm(synchronised, "sync")
    assert type(synchronised.backbone.stages[0].patch_embed.norm) is not nn.BatchNorm2d
    assert list(plain.state_dict()) == list(synchronised.state_dict())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(plain(images), synchronised(images))
    with pytest.raises(ConfigError, match="synchronised already; build the model again for 'frozen' ones"):
        set_batch_norm(synchronised, "frozen")


def test_other_policies_and_models_are_refused():
    with pytest.raises(UnknownNameError, match="unknown batch norm policy 'frosen'; did you mean 'frozen'"):
        set_batch_norm(van.create_model("van_b0", **SIZES), "frosen")
    with pytest.raises(ConfigError, match=r"Linear has no van\.nn\.Backbone"):
        set_batch_norm(nn.Linear(1, 1), "frozen")


def _normalised(rank):
    """Outputs and gradient of synchronised norms on images of two sizes, and the running statistics."""
    norm = sync_on_cpu(nn.Sequential(nn.BatchNorm2d(2)))
    images = pictures()[rank].requires_grad_()
    out = norm(images)
    (out.sin().sum()).backward()
    return out.detach(), images.grad, norm[0].running_mean, norm[0].running_var


def pictures():
    return [torch.randn(1, 2, side, 3, generator=torch.Generator().manual_seed(side)) + side for side in (2, 5)]


@pytest.mark.long
def test_images_of_processes_may_differ_in_size():
    shares, norm = over_two_processes(_normalised), nn.BatchNorm2d(2)
    whole = torch.cat(pictures(), 2).requires_grad_()  # one below the other: the same pixels
    out = norm(whole)
    (out.sin().sum()).backward()
    for k, expected in enumerate((out.detach(), whole.grad)):
        assert torch.allclose(torch.cat([share[k] for share in shares], 2), expected, atol=1e-5)
    for share in shares:
        assert torch.allclose(share[2], norm.running_mean)
        assert torch.allclose(share[3], norm.running_var)
