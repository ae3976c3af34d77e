"""Layer-wise decay, clipping and schedules: what timm is told, and what comes of it."""

from types import SimpleNamespace

import pytest
import torch
from timm.optim import create_optimizer_v2
from tiny_training import SLIM, make_stripes, slim_recipe, training_of

import van
from van.errors import ConfigError
from van.recipes import RECIPES, Recipe, get_recipe
from van.tasks.parameter_groups import stage_and_block
from van.train import run
from van.train.optimizer import base_lr, build_optimizer, clip_gradients
from van.train.schedule import build_schedule

CUSTOM = {name.removeprefix("model."): value for name, value in SLIM.items()}


def network():
    return van.create_model("van_b0", seed=0, num_classes=3, **CUSTOM)


def test_layers_sort_from_image_to_logits():
    names = [
        "backbone.stages.0.patch_embed.conv.weight", "backbone.stages.0.blocks.2.scale1", "backbone.stages.0.norm.bias",
        "backbone.stages.1.patch_embed.norm.weight", "backbone.stages.3.blocks.10.scale1",
        "backbone.stages.3.norm.bias",
        "head.weight",
    ]  # fmt: skip
    assert sorted(names, key=stage_and_block) == names
    assert stage_and_block("backbone.stages.1.blocks.2.scale1") < stage_and_block("backbone.stages.1.blocks.10.scale1")


def test_layer_decay_scales_every_layer_once():
    model = network()
    recipe = Recipe().with_options(**{"optim.layer_decay": 0.5, "optim.lr": 1.0, "schedule.name": "constant"})
    optimizer = build_optimizer(model, training_of(recipe))
    build_schedule(optimizer, recipe, 10)
    groups = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    assert len(groups) == len(list(model.parameters()))
    for name, value in model.named_parameters():  # 4 stages of a patch embedding, a block and a norm, then the head
        place = sorted({stage_and_block(other) for other, _ in model.named_parameters()}).index(stage_and_block(name))
        assert groups[id(value)]["lr"] == pytest.approx(0.5 ** (12 - place)), name
        assert groups[id(value)]["weight_decay"] == (0.05 if value.ndim > 1 else 0), name
    assert groups[id(model.head.weight)]["lr"] == 1.0
    assert base_lr(optimizer) == pytest.approx(1.0)


def gradients(**options):
    model = network()
    generator = torch.Generator().manual_seed(0)
    for value in model.parameters():
        value.grad = torch.randn(value.shape, generator=generator) * 10
    clip_gradients(model, training_of(Recipe().with_options(**options)))
    return {name: value.grad for name, value in model.named_parameters()}, dict(model.named_parameters())


def test_clipping_by_norm_value_and_unit():
    free, _ = gradients()
    by_norm, _ = gradients(**{"optim.clip_norm": 2.0})
    assert torch.cat([each.flatten() for each in by_norm.values()]).norm() == pytest.approx(2.0, rel=1e-4)
    by_value, _ = gradients(**{"optim.clip_value": 0.5})
    assert max(each.abs().max() for each in by_value.values()) == 0.5
    by_unit, weights = gradients(**{"optim.clip_agc": 0.1})
    for name in ("head.weight", "head.bias"):
        assert torch.equal(by_unit[name], free[name])
    name = "backbone.stages.0.blocks.0.attention.proj_in.weight"
    norms = by_unit[name].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, weights[name].detach().flatten(1).norm(dim=1).clamp(min=1e-3) * 0.1)


@pytest.mark.parametrize("name", ["clip_norm", "clip_value", "clip_agc"])
def test_clipping_acts_in_a_run(name, tmp_path):
    data = make_stripes(tmp_path / "data")
    recipe = slim_recipe(
        data, tmp_path / "run",
        **{f"optim.{name}": 1e-12, "optim.name": "sgd", "optim.weight_decay": 0.0, "trainer.epochs": 1},
    )  # fmt: skip
    from van.tasks.classification.network import build_network

    start = build_network(recipe.model, ("across", "along"), seed=0).state_dict()
    moved = {
        key: (value - start[key]).abs().max().item()
        for key, value in van.load(run(recipe) / "model.safetensors").state_dict().items()
    }
    assert moved["backbone.stages.0.patch_embed.conv.weight"] < 1e-7
    assert (moved["head.weight"] < 1e-7) is (name != "clip_agc")  # adaptive clipping spares the head


def rates(updates_per_epoch=10, epochs=10, **options):
    recipe = Recipe().with_options(**{"optim.lr": 1.0, "schedule.min_lr": 0.0, "trainer.epochs": epochs, **options})
    optimizer = build_optimizer(torch.nn.Linear(2, 2), training_of(recipe))
    schedule = build_schedule(optimizer, recipe, updates_per_epoch)
    seen = []
    for epoch in range(recipe.total_epochs):
        schedule.before_epoch(epoch)
        for step in range(updates_per_epoch):
            seen.append(base_lr(optimizer))
            schedule.after_step(epoch * updates_per_epoch + step + 1)
    return seen


def test_step_and_multistep():
    options = {"schedule.name": "step", "schedule.decay_epochs": 3, "schedule.decay_rate": 0.5, "schedule.per": "epoch"}
    assert rates(**options)[::10] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125])
    options = {"schedule.name": "multistep", "schedule.milestones": (2, 7), "schedule.per": "epoch"}
    seen = rates(**options)[::10]
    assert seen[0] == 1
    assert seen[8:] == pytest.approx([0.01, 0.01])
    assert sorted(set(seen), reverse=True) == pytest.approx([1, 0.1, 0.01])


def test_wsd_is_stable_then_decays():
    seen = rates(**{"schedule.name": "wsd", "schedule.decay_epochs": 0.3, "schedule.warmup_epochs": 1.0})
    assert seen[0] < 0.01
    assert seen[10:70] == [1.0] * 60
    assert seen[99] < 0.05
    with pytest.raises(ConfigError, match="wsd"):
        rates(**{"schedule.name": "wsd", "schedule.decay_epochs": 30})


def test_tanh_falls():
    seen = rates(**{"schedule.name": "tanh"})
    assert seen[0] == pytest.approx(1, abs=1e-2)
    assert seen[-1] < 0.05
    assert seen == sorted(seen, reverse=True)


def test_k_decay_holds_the_rate_longer():
    assert rates(**{"schedule.k_decay": 2.0})[50] > rates()[50] + 0.2


def test_cycles_start_again_lower():
    seen = rates(epochs=5, **{"schedule.cycles": 3, "schedule.cycle_decay": 0.5, "schedule.cooldown_epochs": 1})
    assert len(seen) == 160
    assert [seen[0], seen[50], seen[100]] == pytest.approx([1, 0.5, 0.25])
    assert seen[49] < 0.01
    assert max(seen[150:]) == 0


def test_noise_follows_from_step_and_seed_alone():
    options = {"schedule.name": "constant", "schedule.noise": (0.5, 0.8), "schedule.noise_limit": 0.2}
    seen, again, other = rates(**options), rates(**options), rates(**options, **{"trainer.seed": 1})
    assert seen == again != other
    assert seen[:50] == [1.0] * 50
    assert seen[81:] == [1.0] * 19
    assert len(set(seen[50:80])) > 25
    assert max(abs(rate - 1) for rate in seen) <= 0.2
    # a schedule that begins in the middle gives the same rate
    recipe = Recipe().with_options(**{"optim.lr": 1.0, "schedule.min_lr": 0.0, "trainer.epochs": 10, **options})
    optimizer = build_optimizer(torch.nn.Linear(2, 2), training_of(recipe))
    build_schedule(optimizer, recipe, 10).after_step(63)
    assert base_lr(optimizer) == seen[63]


def batch(recipe):
    return torch.rand(2 * recipe.augment.splits, 3, 32, 32), torch.tensor([0, 1] * recipe.augment.splits)


def test_groups_are_those_of_timm():
    """Optimizer states in checkpoints go by the order of the groups and of the parameters in them."""
    model = network()
    for weight_decay in (0.05, 0.0):
        recipe = Recipe().with_options(**{"optim.weight_decay": weight_decay})
        ours = build_optimizer(model, training_of(recipe))
        theirs = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=weight_decay)
        assert ours.state_dict() == theirs.state_dict()
        for mine, timms in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert all(a is b for a, b in zip(mine["params"], timms["params"], strict=True))


@pytest.mark.parametrize("name", [name for name in RECIPES if isinstance(get_recipe(name), Recipe)])
def test_every_recipe_has_an_optimizer_and_a_schedule(name):
    recipe = get_recipe(name)
    model, training = network(), training_of(recipe)
    optimizer = build_optimizer(model, training)
    build_schedule(optimizer, recipe, 100)
    data = SimpleNamespace(classes=("a", "b", "c"), labels=(0, 1, 2))
    assert training.objective(data, model).losses(model.eval(), batch(recipe), epoch=0)["labels"].isfinite()
