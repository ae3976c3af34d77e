"""A copy stands for a network until something shows that the network is another one."""

import pytest
import torch
from networks import tiny
from torch import nn

from van.nn import fold, is_folded
from van.nn.stand_in import StandIn


def in_place(model):
    with torch.no_grad():
        model.backbone.stages[1].blocks[0].scale1.mul_(2)


def optimizer_step(model):
    model.head.weight.grad = torch.ones_like(model.head.weight)
    torch.optim.SGD([model.head.weight], lr=0.1).step()


def statistics(model):
    model.backbone.stages[0].blocks[0].norm1.running_mean.add_(1)


def another_head(model):
    model.head = nn.Linear(32, 2)


def hook(model):
    model.backbone.stages[2].register_forward_hook(lambda *_: None)


def replaced_forward(model):
    model.head.forward = lambda x: x


CHANGES = [in_place, optimizer_step, statistics, another_head, hook, replaced_forward, nn.Module.train]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change):
    model = tiny().eval()
    stand_in = StandIn(model, fold(model))
    assert is_folded(stand_in.chosen())
    change(model)
    assert stand_in.chosen() is model
    assert not stand_in.holds


def test_hooks_that_are_removed_leave_the_copy_in_place():
    model = tiny().eval()
    stand_in = StandIn(model, fold(model))
    handle = model.head.register_forward_hook(lambda *_: None)
    assert not stand_in.holds
    handle.remove()
    assert stand_in.holds


def test_running_and_reading_change_nothing():
    model = tiny().eval()
    stand_in = StandIn(model, fold(model))
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))
    model.state_dict()
    model.eval()
    assert stand_in.holds
