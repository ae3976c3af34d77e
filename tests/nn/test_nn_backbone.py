"""The backbone: configurations, ablations, freezing, initialisation, drop path, precision."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from networks import TINY, batch_norms, gap, images, tiny
from torch import nn

import van
from van.configs.backbone import ATTENTION_OPTIONS, VARIANTS, VanConfig
from van.errors import ConfigError
from van.nn import Backbone
from van.nn.layers import DropPath


def sizes(maps):
    return [tuple(m.shape[1:]) for m in maps]


def backbone(**options):
    return Backbone(TINY.with_options(**options))


class TestConfigurations:
    """Rows of the peers' own tests (reference facts/behaviours.json) carry their ids in the names."""

    def test_blocks_and_widths_follow_the_configuration_mmpretrain_03(self):
        model = Backbone(VanConfig(embed_dims=(32, 64, 160, 256), depths=(3, 3, 5, 2), mlp_ratios=(8, 8, 4, 4)))
        for stage, depth, width in zip(model.stages, (3, 3, 5, 2), (32, 64, 160, 256), strict=True):
            assert len(stage.blocks) == depth
            assert stage.blocks[-1].feed_forward.project.out_channels == width

    def test_last_stage_alone_mmpretrain_05(self):
        model = Backbone(VARIANTS["van_b0"].with_options(out_indices=(3,))).to("meta")
        assert sizes(model(torch.empty(3, 3, 224, 224, device="meta"))) == [(256, 7, 7)]

    def test_patch_sizes_set_strides_mmpretrain_06(self):
        model = Backbone(VARIANTS["van_b0"].with_options(patch_sizes=(7, 5, 5, 5), out_indices=(3,))).to("meta")
        assert model.config.strides == (4, 3, 3, 3)
        assert [stage.patch_embed.conv.padding for stage in model.stages] == [(3, 3), (2, 2), (2, 2), (2, 2)]
        assert sizes(model(torch.empty(3, 3, 224, 224, device="meta"))) == [(256, 3, 3)]

    def test_four_maps_in_order_mmpretrain_07(self):
        maps = Backbone(VARIANTS["van_b0"]).to("meta")(torch.empty(3, 3, 224, 224, device="meta"))
        assert isinstance(maps, tuple)
        assert sizes(maps) == [(32, 56, 56), (64, 28, 28), (160, 14, 14), (256, 7, 7)]

    @pytest.mark.parametrize(("size", "last"), [((224, 224), (7, 7)), ((256, 256), (8, 8)), ((256, 309), (8, 10))])
    def test_sizes_round_up_mmpretrain_08(self, size, last):
        maps = Backbone(VARIANTS["van_b0"]).to("meta")(torch.empty(3, 3, *size, device="meta"))
        assert tuple(maps[-1].shape[2:]) == last

    def test_small_network_transformers_01_02_03(self):
        model = tiny(embed_dims=(16, 32, 64, 128), depths=(1, 1, 1, 1), num_classes=3).eval()
        maps = model.backbone(images(2, 3, 224, 224))
        assert sizes(maps) == [(16, 56, 56), (32, 28, 28), (64, 14, 14), (128, 7, 7)]
        assert model.forward_head(maps[-1]).shape == (2, 3)

    def test_chosen_maps_are_those_of_the_whole_pyramid(self):
        model, x = tiny().backbone.eval(), images()
        whole = model(x)
        model.config = model.config.with_options(out_indices=(1, 2))
        assert all(torch.equal(a, b) for a, b in zip(model(x), whole[1:3], strict=True))
        assert (model.channels, model.strides) == ((16, 24), (8, 16))

    def test_stages_after_the_last_map_are_not_run(self):
        model = backbone(out_indices=(0, 1)).eval()
        model.stages[2] = nn.Conv2d(999, 1, 1)  # would raise
        assert len(model(images())) == 2

    @pytest.mark.parametrize("stages", [1, 3, 5])
    def test_any_number_of_stages(self, stages):
        options = {"embed_dims": (8, 8, 16, 16, 24)[:stages], "depths": (1,) * stages, "mlp_ratios": (2,) * stages}
        model = tiny(**options, patch_sizes=(7, 3, 3, 3, 3)[:stages], strides=None, out_indices=None).eval()
        maps = model.backbone(images(1, 3, 100, 72))
        assert [tuple(m.shape[2:]) for m in maps] == [(25, 18), (13, 9), (7, 5), (4, 3), (2, 2)][:stages]
        assert model.backbone.strides == (4, 8, 16, 32, 64)[:stages]
        assert model(images(1, 3, 100, 72)).shape == (1, 5)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_input_channels(self, channels):
        model = tiny(in_chans=channels)
        model(images(2, channels, 64, 64)).sum().backward()
        assert model.backbone.stages[0].patch_embed.conv.weight.grad.shape == (8, channels, 7, 7)

    def test_strides_without_shrinking_as_in_hamnet(self):
        model = backbone(strides=(4, 2, 1, 1))
        assert model.strides == (4, 8, 8, 8)
        assert [m.shape[-1] for m in model(images(1, 3, 64, 64))] == [16, 8, 8, 8]

    def test_even_patches_are_padded_as_in_the_original(self):
        model = backbone(patch_sizes=(4, 2, 2, 2), strides=(4, 2, 2, 2))
        assert [m.shape[-1] for m in model(images(1, 3, 64, 64))] == [17, 9, 5, 3]

    def test_layer_norm_epsilon_is_the_configurations(self):
        assert all(stage.norm.eps == 1e-5 for stage in backbone(layer_norm_eps=1e-5).stages)
        assert all(norm.eps == 1e-5 for norm in batch_norms(backbone()))

    def test_maps_lie_in_the_fast_layout_from_the_first_stage_on(self):
        model, layouts = tiny().backbone.eval(), []
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda *call: layouts.append(call[2].permute(0, 2, 3, 1).is_contiguous()))
        assert all(m.permute(0, 2, 3, 1).is_contiguous() for m in model(images()))
        assert layouts
        assert all(layouts)

    @pytest.mark.parametrize(
        ("shape", "words"),
        [
            ((2, 1, 64, 64), r"\(2, 1, 64, 64\); this network expects \(N, 3, H, W\): convert .* in_chans=1"),
            ((3, 64, 64), r"\(3, 64, 64\); this network expects \(N, 3, H, W\): images\[None\]"),
            ((3,), r"expects \(N, 3, H, W\)"),
        ],
    )
    def test_wrong_images_are_refused(self, shape, words):
        model = tiny()
        for call in (model, model.backbone):
            with pytest.raises(ConfigError, match=words):
                call(torch.zeros(shape))


class TestAttention:
    def test_published_attention_is_the_papers_formula(self):
        block = tiny().backbone.stages[0].blocks[0].eval()
        attention, x = block.attention, images(2, 8, 16, 16)
        y = F.gelu(F.conv2d(x, attention.proj_in.weight, attention.proj_in.bias))
        near, far, mix = attention.spatial.near, attention.spatial.far, attention.spatial.mix
        z = F.conv2d(y, near.weight, near.bias, padding=2, groups=8)
        z = F.conv2d(z, far.weight, far.bias, padding=9, dilation=3, groups=8)
        z = y * F.conv2d(z, mix.weight, mix.bias)
        want = x + F.conv2d(z, attention.proj_out.weight, attention.proj_out.bias)
        assert torch.allclose(attention(x), want, atol=1e-5)

    @pytest.mark.parametrize("option", ATTENTION_OPTIONS)
    def test_ablations_run_and_every_parameter_learns(self, option):
        model = tiny(attention=option)
        model(images()).square().sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            if not key.endswith("patch_embed.conv.bias"):
                assert parameter.grad.abs().max() > 0, key

    @pytest.mark.parametrize(("option", "missing"), [("no_dw", "near"), ("no_dw_d", "far"), ("no_1x1", "mix")])
    def test_ablations_leave_their_convolution_out(self, option, missing):
        keys = set(tiny().state_dict()) - set(tiny(attention=option).state_dict())
        assert keys == {key for key in tiny().state_dict() if f"spatial.{missing}." in key}
        kept = {"near", "far", "mix"} - {missing}
        spatial = tiny(attention=option).backbone.stages[0].blocks[0].attention.spatial
        calls = []
        for name in kept:
            getattr(spatial, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        spatial(images(1, 8, 16, 16))
        assert set(calls) == kept

    @pytest.mark.parametrize(
        ("option", "gate"),
        [
            ("lka", lambda x, a: x * a),
            ("add", lambda x, a: x + a),
            ("sigmoid", lambda x, a: x / (1 + (-a).exp())),
            ("none", lambda x, a: a),
        ],
    )
    def test_gates(self, option, gate):
        spatial, x = tiny(attention=option).backbone.stages[0].blocks[0].attention.spatial, images(1, 8, 16, 16)
        assert torch.allclose(spatial(x), gate(x, spatial.mix(spatial.far(spatial.near(x)))), atol=1e-6)

    @pytest.mark.parametrize(
        ("kernel", "dilation", "near", "far"), [(7, 2, 3, 4), (14, 3, 5, 5), (21, 3, 5, 7), (28, 4, 7, 7), (4, 1, 1, 4)]
    )
    def test_kernels_of_the_paper_keep_the_size(self, kernel, dilation, near, far):
        model = tiny(kernel_size=kernel, dilation=dilation)
        spatial = model.backbone.stages[0].blocks[0].attention.spatial
        assert (spatial.near.kernel_size[0], spatial.near.dilation[0]) == (near, 1)
        assert (spatial.far.kernel_size[0], spatial.far.dilation[0]) == (far, dilation)
        assert sizes(model.backbone(images(2, 3, 75, 101))) == [(8, 19, 26), (16, 10, 13), (24, 5, 7), (32, 3, 4)]

    def test_reach_of_the_published_kernel(self):
        spatial = tiny().backbone.stages[0].blocks[0].attention.spatial
        x = images(1, 8, 41, 41).requires_grad_()
        spatial.far(spatial.near(x))[0, 0, 20, 20].backward()
        rows = x.grad[0, 0].abs().sum(1).nonzero()
        assert (rows.min().item(), rows.max().item()) == (20 - 11, 20 + 11)  # 5 // 2 + 3 * (7 // 2) pixels each way


class TestFreezing:
    def frozen(self, **options):
        return backbone(frozen_stages=0, **options).train()

    def test_a_frozen_stage_does_not_train_mmpretrain_11(self):
        stage = self.frozen().stages[0]
        assert not any(module.training for module in stage.modules())
        assert not any(parameter.requires_grad for parameter in stage.parameters())

    def test_later_stages_still_train_mmpretrain_12(self):
        model = self.frozen()
        assert all(parameter.requires_grad for parameter in model.stages[1:].parameters())
        assert all(module.training for module in model.stages[1:].modules())

    def test_norms_stay_in_eval_mode_mmpretrain_10(self):
        model = backbone(norm_eval=True).train()
        assert batch_norms(model)
        assert not any(norm.training for norm in batch_norms(model))
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
        model.eval().train()
        assert not any(norm.training for norm in batch_norms(model))

    def test_frozen_weights_and_statistics_do_not_move(self):
        model = tiny(frozen_stages=1, drop_path_rate=0.5)
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model.train()(images()).square().mean().backward()
        optimizer.step()
        moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        assert not any(key.startswith(("backbone.stages.0", "backbone.stages.1")) for key in moved)
        assert {key.split(".")[2] for key in moved if key.startswith("backbone")} == {"2", "3"}

    def test_freeze_holds_after_train_and_unfreeze_undoes_it(self):
        model = tiny().backbone
        model.freeze(1)
        model.train()
        assert [stage.training for stage in model.stages] == [False, False, True, True]
        model.freeze(0)  # never thaws what is frozen
        assert [stage.training for stage in model.stages] == [False, False, True, True]
        model.freeze()
        assert not any(stage.training for stage in model.stages)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.unfreeze()
        assert all(module.training for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_freezing_in_eval_mode_leaves_eval_mode(self):
        model = backbone().eval()
        model.freeze(0)
        model.unfreeze()
        assert not any(module.training for module in model.modules())

    @pytest.mark.parametrize("stage", [-1, 4])
    def test_there_is_nothing_to_freeze_there(self, stage):
        with pytest.raises(ConfigError, match=f"cannot freeze up to stage {stage}; expected 0 to 3"):
            backbone().freeze(stage)


class TestInitialisation:
    def test_published_rules_transformers_05(self):
        torch.manual_seed(0)
        model = van.create_model("van_b0")
        for key, tensor in model.state_dict().items():
            if key.endswith((".scale1", ".scale2")):
                assert (tensor == 0.01).all(), key
            elif key.endswith((".bias", "running_mean")):
                assert (tensor == 0).all(), key
            elif tensor.ndim == 1 and key.endswith((".weight", "running_var")):
                assert (tensor == 1).all(), key
            elif tensor.ndim == 4:
                convolution = model.get_submodule(key.removesuffix(".weight"))
                fan_out = convolution.weight[:, 0].numel() // convolution.groups
                self.check_normal(tensor, math.sqrt(2 / fan_out), key)
        self.check_normal(model.head.weight, 0.02, "head.weight")

    def check_normal(self, tensor, std, key):
        count = tensor.numel()
        assert abs(tensor.mean()) < 5 * std / count**0.5, key
        assert tensor.std().item() == pytest.approx(std, rel=5 / (2 * count) ** 0.5), key

    def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(self):
        torch.manual_seed(1)
        one = van.create_model("van_b0", seed=7, **SMALL)
        torch.manual_seed(2)
        two = van.create_model("van_b0", seed=7, **SMALL)
        other = van.create_model("van_b0", seed=8, **SMALL)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        for key, value in one.named_parameters():
            if value.ndim > 1:
                assert not torch.equal(value, other.get_parameter(key)), key

    def test_reset_changes_the_first_kernel_mmpretrain_04(self):
        model = backbone()
        before = model.stages[0].patch_embed.conv.weight.clone()
        model.reset_parameters()
        assert not torch.equal(model.stages[0].patch_embed.conv.weight, before)

    def test_layer_scale_is_an_option(self):
        assert (backbone(layer_scale_init=0.5).stages[2].blocks[1].scale2 == 0.5).all()

    def test_meta_device_with_a_seed(self):
        with torch.device("meta"):
            model = van.create_model("van_b0", seed=0)
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


SMALL = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "num_classes": 5}


class TestDropPath:
    def rates(self, model):
        paths = [block.drop_path for stage in model.stages for block in stage.blocks]
        return [path.rate if isinstance(path, DropPath) else None for path in paths]

    def test_linear_over_all_blocks_mmpretrain_09(self):
        rates = self.rates(Backbone(VARIANTS["van_b0"].with_options(drop_path_rate=0.2)))
        assert rates[0] is None
        assert rates[1:] == pytest.approx(torch.linspace(0, 0.2, 13, dtype=torch.float64).tolist()[1:])

    def test_none_for_rate_zero(self):
        assert self.rates(backbone()) == [None] * 5

    def test_it_drops_branches_in_training_only(self):
        model, x = tiny(depths=(1, 1, 1, 2), drop_path_rate=0.9).backbone, images(64, 3, 32, 32)
        block, features = model.stages[3].blocks[1], images(64, 32, 1, 1)
        model.train()
        kept = [(block(features) == features).flatten(1).all(1) for _ in range(3)]
        assert torch.stack(kept).float().mean().item() == pytest.approx(0.81, abs=0.12)
        model.eval()
        assert torch.equal(model.last(x), model.last(x))


class TestDropout:
    def test_inside_the_feed_forward_layers_after_gelu_and_after_the_projection(self):
        layer, x = tiny(drop_rate=0.5).backbone.stages[0].blocks[0].feed_forward, images(2, 8, 16, 16)
        entered = []
        layer.project.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        torch.manual_seed(0)
        y = layer.train()(x)
        assert (entered[0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert (y == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert not (layer.eval()(x) == 0).any()

    def test_none_by_default(self):
        model = tiny().train()
        for norm in batch_norms(model):
            norm.momentum = 0.0
        assert torch.equal(model(images()), model(images()))


class TestPrecision:
    def test_float64(self):
        model = tiny().eval()
        want = model.double()(images(dtype=torch.float64))
        assert want.dtype == torch.float64
        assert gap(model.float()(images()).double(), want) < 1e-5

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_weights(self, dtype):
        model = tiny().eval()
        want, got = model(images()), model.to(dtype)(images().to(dtype))
        assert got.dtype == dtype
        assert gap(got.float(), want) < (0.1 if dtype == torch.bfloat16 else 0.02)

    def test_autocast_trains_and_keeps_the_residual_stream_in_float32(self):
        model = tiny(drop_path_rate=0.2).train()
        streams = []
        model.backbone.stages[1].blocks[0].register_forward_hook(lambda *arguments: streams.append(arguments[2]))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images())
        assert streams[0].dtype == torch.float32
        assert logits.dtype == torch.bfloat16
        logits.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rough = model(images())
        assert gap(rough.float(), model(images())) < 0.1
