"""VAN in timm: what timm's own tests/test_models.py asks of a convolutional feature model, and published weights."""

import json
import math
import re

import numpy as np
import published
import pytest
import reference_data as reference
import torch

from van.configs.backbone import VARIANTS
from van.errors import CheckpointError, ConfigError, UnknownNameError, VanNotice
from van.hosts import register

timm = pytest.importorskip("timm")
register("timm")

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 2, 2, 1), "mlp_ratios": (2, 2, 2, 2)}
IMAGES = torch.from_numpy(reference.image("x", (2, 3, 64, 96)))


def create(name="van_b0", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **{**TINY, **options})


def with_weights(model, seed=0):
    """Weights far from the initial ones, so that outputs tell modules apart."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.eval()


# ---- timm's tests/test_models.py, behaviour by behaviour


def test_model_forward_gives_finite_logits_and_grad_checkpointing_changes_nothing():
    model = with_weights(create())
    logits = model(IMAGES)
    assert logits.shape == (2, 1000)
    assert logits.isfinite().all()
    model.train()
    before = model(IMAGES)
    statistics = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    model.set_grad_checkpointing()
    assert all(stage.grad_checkpointing for stage in model.backbone.stages)
    torch.testing.assert_close(model(IMAGES), before)
    assert any(not torch.equal(model.state_dict()[key], value) for key, value in statistics.items())


def test_model_backward_reaches_every_parameter():
    model = create(num_classes=42).train()
    logits = model(IMAGES)
    assert logits.shape == (2, 42)
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_model_default_cfgs_describe_the_maps_and_what_removing_the_head_leaves():
    model = create().eval()
    images = torch.randn(1, *model.default_cfg["input_size"])
    features = model.forward_features(images)
    pre_logits = model.forward_head(features, pre_logits=True)
    assert features.shape[1:] == (model.num_features, *model.default_cfg["pool_size"])
    assert pre_logits.shape == (1, model.head_hidden_size)
    torch.testing.assert_close(model.get_classifier()(pre_logits), model(images))

    model.reset_classifier(0)
    assert model.num_classes == 0
    torch.testing.assert_close(model(images), pre_logits)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(images), features)
    assert create(num_classes=0, global_pool="").eval()(images).shape == features.shape


@pytest.mark.parametrize("name", VARIANTS)
def test_model_default_cfgs_name_the_first_convolution_and_the_classifier(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    keys, cfg = model.state_dict().keys(), model.default_cfg
    assert f"{cfg['first_conv']}.weight" in keys
    assert f"{cfg['classifier']}.weight" in keys
    assert model.num_classes == 1000
    assert next(model.parameters()).is_meta
    assert model.config.embed_dims == VARIANTS[name].embed_dims


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax", "fastavg"])
def test_global_pool_variants_pool_as_timm_does(pool):
    model = with_weights(create(global_pool=pool, num_classes=5))
    features = model.forward_features(IMAGES)
    mean, most = features.mean((2, 3)), features.amax((2, 3))
    expected = {"avg": mean, "fastavg": mean, "max": most, "avgmax": (mean + most) / 2}.get(
        pool, torch.cat([mean, most], 1)
    )
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), expected)
    assert model(IMAGES).shape == (2, 5)


def test_a_head_without_pooling_is_refused():
    with pytest.raises(ConfigError, match="needs pooling"):
        create(global_pool="", num_classes=5)
    with pytest.raises(ConfigError, match="-1"):
        create().reset_classifier(-1)


def test_reset_classifier_starts_a_head_of_the_published_initialisation():
    model = create().eval()
    model.reset_classifier(2000)
    assert model(IMAGES).shape == (2, 2000)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.head.bias.any()
    assert not model.head.training
    model.double().reset_classifier(7, "max")
    assert model.head.weight.dtype == torch.float64
    assert model.global_pool.pool_type == "max"


@pytest.mark.parametrize("feature_cls", ["getter", "hook", "fx"])
def test_model_forward_features_only_gives_the_pyramid(feature_cls):
    model = create(features_only=True, feature_cls=feature_cls).eval()
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert (channels, reductions) == ([8, 16, 24, 32], [4, 8, 16, 32])
    maps = model(IMAGES)
    assert [m.shape for m in maps] == [
        (2, c, math.ceil(64 / r), math.ceil(96 / r)) for c, r in zip(channels, reductions, strict=True)
    ]


def test_features_only_takes_out_indices_also_from_the_end_and_drops_later_stages():
    full = with_weights(create()).forward_intermediates(IMAGES, intermediates_only=True)
    for indices, expected in [((1, 2), (1, 2)), ((-3,), (1,)), (2, (2, 3))]:
        model = with_weights(create(features_only=True, out_indices=indices))
        assert [m.shape for m in model(IMAGES)] == [full[i].shape for i in expected]
        assert len(model.model.backbone.stages) == max(expected) + 1
        assert model.feature_info.channels() == [full[i].shape[1] for i in expected]


def test_model_forward_intermediates_agrees_with_forward_features():
    model = with_weights(create())
    last, maps = model.forward_intermediates(IMAGES)
    torch.testing.assert_close(last, model.forward_features(IMAGES))
    torch.testing.assert_close(last, maps[-1])
    info = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
    assert [m.shape[1] for m in maps] == info.channels()
    torch.testing.assert_close(model.forward_intermediates(IMAGES, norm=True)[1], maps)


def test_forward_intermediates_options():
    model = with_weights(create())
    _, maps = model.forward_intermediates(IMAGES)
    for indices, expected in [(1, [3]), ([0, 2], [0, 2]), ([-1], [3]), (None, [0, 1, 2, 3])]:
        got = model.forward_intermediates(IMAGES, indices=indices, intermediates_only=True)
        torch.testing.assert_close(got, [maps[i] for i in expected])
    last, got = model.forward_intermediates(IMAGES, indices=[1], stop_early=True)
    torch.testing.assert_close(last, maps[1])
    assert len(got) == 1
    assert model.forward_intermediates(IMAGES, indices=[1])[0].shape == maps[3].shape
    with pytest.raises(ConfigError, match="NLC"):
        model.forward_intermediates(IMAGES, output_fmt="NLC")


def test_prune_intermediate_layers_drops_what_the_indices_do_not_need():
    model = with_weights(create())
    _, maps = model.forward_intermediates(IMAGES)
    assert model.prune_intermediate_layers([0, -2]) == [0, 2]
    assert len(model.backbone.stages) == 3
    assert model.num_classes == 0
    assert model.num_features == model.head_hidden_size == 24
    torch.testing.assert_close(model(IMAGES), maps[2])
    whole = create()
    assert whole.prune_intermediate_layers([3], prune_head=False) == [3]
    assert whole.num_classes == 1000


def test_model_forward_and_backward_fx_equal_eager():
    tracer = {
        "leaf_modules": timm.layers.get_notrace_modules(),
        "autowrap_functions": timm.layers.get_notrace_functions(),
        "param_shapes_constant": True,
    }
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = with_weights(create(num_classes=42))
    nodes = extraction.get_graph_node_names(model, tracer_kwargs=tracer)
    traced = extraction.create_feature_extractor(
        model, train_return_nodes=[nodes[0][-1]], eval_return_nodes=[nodes[1][-1]], tracer_kwargs=tracer
    )
    with torch.inference_mode():
        (logits,) = traced.eval()(IMAGES).values()
        assert torch.equal(logits, model.eval()(IMAGES))
    (logits,) = traced.train()(IMAGES).values()
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())


def test_group_matcher_orders_layers_from_stem_to_head():
    from timm.models._manipulate import group_parameters

    model = create()
    fine = group_parameters(model, model.group_matcher())
    assert len(fine) == 1 + sum(TINY["depths"]) + 1
    assert all(name.startswith("backbone.stages.0.patch_embed.") for name in fine[0])
    assert "backbone.stages.1.patch_embed.conv.weight" in fine[2]
    assert "backbone.stages.1.blocks.0.scale1" in fine[2]
    assert "backbone.stages.1.norm.weight" in fine[3]
    assert fine[7] == ["head.weight", "head.bias"]
    coarse = group_parameters(model, model.group_matcher(coarse=True))
    assert [len({name.split(".")[2] for name in coarse[i]}) for i in range(1, 5)] == [1, 1, 1, 1]
    assert sum(map(len, fine.values())) == len(list(model.parameters()))


def test_layer_decay_and_weight_decay_through_timms_optimizer():
    from timm.optim import create_optimizer_v2

    model = create(num_classes=10)
    assert model.no_weight_decay() == set()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert scale[id(model.head.weight)] == 1.0
    assert scale[id(model.backbone.stages[0].patch_embed.conv.weight)] == pytest.approx(0.5**7)
    assert decay[id(model.backbone.stages[0].blocks[0].scale1)] == 0.0
    assert decay[id(model.backbone.stages[0].blocks[0].attention.proj_in.weight)] == 0.05


def test_drop_rates_go_where_timm_expects_them():
    model = create(drop_rate=0.1, proj_drop_rate=0.2, drop_path_rate=0.3)
    assert model.head_drop.p == 0.1
    blocks = [block for stage in model.backbone.stages for block in stage.blocks]
    assert {block.feed_forward.dropout.p for block in blocks} == {0.2}
    rates = [getattr(block.drop_path, "rate", 0.0) for block in blocks]
    assert rates == pytest.approx(np.linspace(0, 0.3, 6))


def test_output_stride_stops_the_later_stages_from_shrinking():
    assert create(output_stride=16).forward_features(IMAGES).shape[2:] == (4, 6)
    assert create(output_stride=8).feature_info[3]["reduction"] == 8
    with pytest.raises(ConfigError, match="output_stride is 4"):
        create(output_stride=4)


def test_unknown_options_and_wrong_channels_are_refused():
    with pytest.raises(UnknownNameError, match="embed_dims"):
        timm.create_model("van_b0", embed_dim=(1, 2, 3, 4))
    with pytest.raises(ConfigError, match=re.escape("(N, 4, H, W)")):
        create(in_chans=4)(IMAGES)


def test_device_and_dtype_reach_every_parameter():
    model = create(device="meta", dtype=torch.float16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float16)}


def test_save_for_hf_and_local_dir_round_trip(tmp_path):
    model = with_weights(create(num_classes=7, in_chans=1))
    timm.models._hub.save_for_hf(model, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **TINY).eval()
    images = IMAGES[:, :1]
    torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)


# ---- the registry


def test_every_variant_is_listed_once_and_registering_again_changes_nothing(recwarn):
    before = timm.model_entrypoint("van_b3")
    assert register("timm") == ("timm",)
    assert timm.model_entrypoint("van_b3") is before
    assert timm.list_models(module="van") == list(VARIANTS)
    assert not [w for w in recwarn if "Overwriting" in str(w.message)]


def test_a_van_that_timm_has_itself_is_kept(monkeypatch):
    def van_b0(pretrained=False, **kwargs):
        return "native"

    registry = timm.models._registry
    monkeypatch.setitem(registry._model_entrypoints, "van_b0", van_b0)
    with pytest.warns(VanNotice, match="van_b0 of its own"):
        register("timm")
    assert timm.create_model.__globals__["model_entrypoint"]("van_b0") is van_b0


def test_pretrained_cfgs_carry_the_evaluation_protocol():
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(create())
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert (config["crop_pct"], config["interpolation"], config["input_size"]) == (0.9, "bicubic", (3, 224, 224))
    cfg = timm.models.get_pretrained_cfg
    assert cfg("van_b0").hf_hub_id == "Visual-Attention-Network/van-tiny"
    assert cfg("van_b3").hf_hub_id == "Visual-Attention-Network/van-large"
    assert cfg("van_b4").url.endswith("van-b4_3rdparty_in1k_20220909-f4665b92.pth")
    assert cfg("van_b5").tag == "untrained"
    assert cfg("van_b5.in21k").url.endswith("van-b5_3rdparty_in21k_20220909-18e904e3.pth")
    assert cfg("van_b5.in21k").mean == (0.485, 0.456, 0.406)
    assert timm.is_model_pretrained("van_b6.in21k")
    assert not timm.is_model_pretrained("van_b6")


# ---- published weights


@pytest.mark.parametrize("name", ["official_van_b0", "official_van_b1"])
def test_checkpoint_path_of_an_official_file_gives_the_originals_logits(tmp_path, name):
    path = published.official(tmp_path / "van.pth.tar", reference.state(name), metric=75.4)
    model = timm.create_model(name.removeprefix("official_"), checkpoint_path=str(path)).eval()
    golden = reference.golden(name)
    for tag, images in reference.inputs(name)[1:]:
        with torch.inference_mode():
            logits, maps = model(torch.from_numpy(images)), model.forward_intermediates(torch.from_numpy(images))[1]
        np.testing.assert_allclose(logits, golden[f"{tag}/logits"], rtol=0, atol=1e-5)
        for i, values in enumerate(maps, start=1):
            sample = values.contiguous().flatten()[:: int(golden[f"{tag}/stage{i}/step"])]
            np.testing.assert_allclose(sample, golden[f"{tag}/stage{i}/sample"], rtol=1e-5, atol=1e-5)


def test_checkpoint_path_of_mmpretrain_brings_its_epsilon_along(tmp_path):
    published.openmmlab(tmp_path / "van.pth", reference.state("mmpretrain_van_tiny", "eps"))
    with pytest.warns(VanNotice, match="epsilon is now 1e-05"):
        model = timm.create_model("van_b0", checkpoint_path=str(tmp_path / "van.pth")).eval()
    assert model.config.layer_norm_eps == 1e-5
    ((tag, images),) = reference.inputs("mmpretrain_van_tiny_eps")
    with torch.inference_mode():
        logits = model(torch.from_numpy(images))
    np.testing.assert_allclose(logits, reference.golden("mmpretrain_van_tiny_eps")[f"{tag}/logits"], rtol=0, atol=1e-5)


def test_checkpoint_path_of_a_segmenter_takes_the_backbone_and_says_what_it_left(tmp_path):
    state = reference.state("mmseg_lightham_van_tiny_d256")
    published.openmmlab(tmp_path / "ham.pth", state, epoch=1)
    with pytest.warns(VanNotice, match="head left out"):
        model = timm.create_model("van_b0", num_classes=0, checkpoint_path=str(tmp_path / "ham.pth"))
    theirs = state["backbone.block3.4.mlp.dwconv.dwconv.weight"]
    assert np.array_equal(model.backbone.stages[2].blocks[4].feed_forward.depthwise.weight.detach(), theirs)


def test_our_own_files_load_by_checkpoint_path(tmp_path):
    from safetensors.torch import save_file

    model = with_weights(create())
    save_file(model.state_dict(), tmp_path / "van.safetensors")
    again = create(checkpoint_path=str(tmp_path / "van.safetensors")).eval()
    assert torch.equal(again(IMAGES), model(IMAGES))


def test_a_foreign_state_with_a_missing_or_added_key_is_refused():
    state = published.tensors(reference.state("official_van_b0"))
    model = timm.create_model("van_b0", device="meta")
    with pytest.raises(CheckpointError, match=r"missing: norm4\.bias"):
        model.load_state_dict({key: value for key, value in state.items() if key != "norm4.bias"})
    with pytest.raises(CheckpointError, match="unexpected: intruder"):
        model.load_state_dict({**state, "intruder": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no Visual Attention Network"):
        model.load_state_dict({"conv1.weight": torch.zeros(1)})


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An offline hub cache that holds van-tiny as it was published: pytorch_model.bin and config.json."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    storage = tmp_path / "models--Visual-Attention-Network--van-tiny"
    folder = storage / "snapshots" / "0123456789012345678901234567890123456789"
    folder.mkdir(parents=True)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(folder.name)
    torch.save(published.tensors(reference.state("hf_van_tiny")), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(reference.manifest("hf_van_tiny")["config"]))
    return tmp_path


def test_pretrained_weights_come_through_the_hub(hub_cache):
    model = timm.create_model("van_b0", pretrained=True, cache_dir=hub_cache).eval()
    tag, images = reference.inputs("hf_van_tiny")[2]
    with torch.inference_mode():
        logits = model(torch.from_numpy(images))
    np.testing.assert_allclose(logits, reference.golden("hf_van_tiny")[f"{tag}/logits"], rtol=0, atol=1e-5)


def test_model_load_pretrained_adapts_channels_and_head_and_features(hub_cache):
    whole = timm.create_model("van_b0", pretrained=True, cache_dir=hub_cache)
    gray = timm.create_model("van_b0", pretrained=True, cache_dir=hub_cache, in_chans=1, num_classes=5)
    summed = whole.backbone.stages[0].patch_embed.conv.weight.sum(1, keepdim=True)
    torch.testing.assert_close(gray.backbone.stages[0].patch_embed.conv.weight, summed)
    assert gray.head.weight.shape == (5, 256)
    timm.create_model("van_b0", pretrained=True, cache_dir=hub_cache, in_chans=1, num_classes=0)
    features = timm.create_model("van_b0", pretrained=True, cache_dir=hub_cache, features_only=True).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(features(images)[3], whole.eval().forward_features(images))


def test_custom_load_reads_any_format_through_our_reader(tmp_path):
    path = published.official(tmp_path / "van.pth.tar", reference.state("official_van_b0"))
    overlay = {"file": str(path), "custom_load": True}
    with pytest.warns(VanNotice, match="1000 classes, the model's 5"):
        model = timm.create_model("van_b0", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1)
    theirs = torch.from_numpy(reference.state("official_van_b0")["patch_embed1.proj.weight"])
    torch.testing.assert_close(model.backbone.stages[0].patch_embed.conv.weight, theirs.sum(1, keepdim=True))
    with pytest.raises(CheckpointError, match="the file holds van_b0"):
        timm.create_model("van_b1", pretrained=True, pretrained_cfg_overlay=overlay)


def test_keras_weights_load_by_custom_load(tmp_path):
    pytest.importorskip("h5py")
    from van import checkpoints

    source = checkpoints.read(published.official(tmp_path / "van.pth.tar", reference.state("official_van_b0")))
    checkpoints.write(source, tmp_path / "van.weights.h5", "keras")
    overlay = {"file": str(tmp_path / "van.weights.h5"), "custom_load": True}
    model = timm.create_model("van_b0", pretrained=True, pretrained_cfg_overlay=overlay)
    assert np.array_equal(model.head.weight.detach(), source.arrays["head.weight"])
