"""VAN in transformers 5: published folders load with the original's numbers, and the peers' expectations hold by id."""

import json
import os
import subprocess
import warnings

import numpy as np
import published
import pytest
import reference_data as reference
import torch
from PIL import Image

from van import checkpoints
from van.configs.backbone import VARIANTS
from van.errors import ConfigError, VanNotice
from van.hosts import register

transformers = pytest.importorskip("transformers", minversion="5.17")
register("transformers")

from transformers import (  # noqa: E402
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
)

from van.hosts.transformers import VanBackbone, VanConfig, VanForImageClassification, VanModel  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SMALL = {"num_channels": 3, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "num_labels": 3}
TINY = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 2, 2, 1], "mlp_ratios": [2, 2, 2, 2], "num_labels": 3}
HUB_PROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
IMAGES = torch.from_numpy(reference.image("x", (2, 3, 64, 96)))


def with_weights(model, seed=0):
    """Weights far from the initial ones, so that outputs tell modules apart; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """van-tiny as it was published, its processor file included."""
    folder = tmp_path_factory.mktemp("published") / "van-tiny"
    state, config = reference.state("hf_van_tiny"), published.hub_config("hf_van_tiny")
    return published.transformers(folder, state, config, processor=HUB_PROCESSOR)


def folder_of(name, path, salt=""):
    return published.transformers(path / name, reference.state(name, salt), published.hub_config(name))


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=tolerance, atol=tolerance)


# ---- published folders


@pytest.mark.parametrize(
    ("name", "salt"),
    [
        ("hf_van_tiny", ""),
        ("hf_van_tiny", "eps"),
        ("hf_van_small", ""),
        pytest.param("hf_van_base", "", marks=pytest.mark.slow),
        pytest.param("hf_van_large", "", marks=pytest.mark.slow),
    ],
)
def test_automatic_model_gives_the_originals_logits_and_hidden_states(tmp_path, name, salt):
    folder = folder_of(name, tmp_path, salt)
    model, told = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values())
    assert type(model) is VanForImageClassification
    golden_name = f"{name}_{salt}" if salt else name
    golden = reference.golden(golden_name)
    for tag, images in reference.inputs(golden_name):
        if len(images) > 1 and name != "hf_van_tiny":
            continue
        with torch.inference_mode():
            out = model.eval()(torch.from_numpy(images), output_hidden_states=True)
        np.testing.assert_allclose(out.logits, golden[f"{tag}/logits"], rtol=0, atol=1e-5)
        for i, values in enumerate(out.hidden_states, start=1):
            assert list(values.shape) == list(golden[f"{tag}/stage{i}/shape"])
            sample = values.contiguous().flatten()[:: int(golden[f"{tag}/stage{i}/step"])]
            close(sample, golden[f"{tag}/stage{i}/sample"])


def test_float64_agrees_to_nine_digits(hub):
    model = AutoModelForImageClassification.from_pretrained(hub, dtype=torch.float64).eval()
    tag, images = reference.inputs("hf_van_tiny")[2]
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).double()).logits
    np.testing.assert_allclose(logits, reference.golden("hf_van_tiny")[f"{tag}/logits64"], rtol=0, atol=1e-9)


def test_automatic_feature_model_gives_the_originals_pooled_output(hub):
    model = AutoModel.from_pretrained(hub).eval()
    assert type(model) is VanModel
    tag, images = reference.inputs("hf_van_tiny")[2]
    out = model(torch.from_numpy(images))
    close(out.pooler_output, reference.golden("hf_van_tiny")[f"{tag}/pooled"])
    assert out.hidden_states is None


def test_automatic_configuration_reads_what_the_hub_has(hub):
    config = AutoConfig.from_pretrained(hub)
    assert type(config) is VanConfig
    assert (config.hidden_sizes, config.num_labels, config.id2label[7]) == ([32, 64, 160, 256], 1000, "class 7")
    assert config.to_van() == VARIANTS["van_b0"]


@pytest.mark.parametrize("as_text", [True, False])
def test_automatic_backbone_reads_folders(hub, as_text):
    model = AutoBackbone.from_pretrained(str(hub) if as_text else hub, out_features=["stage2", "stage4"]).eval()
    assert type(model) is VanBackbone
    golden = reference.golden("hf_van_tiny")
    tag, images = reference.inputs("hf_van_tiny")[2]
    maps = model(torch.from_numpy(images)).feature_maps
    assert [m.shape[1] for m in maps] == model.channels == [64, 256]
    for i, values in zip((2, 4), maps, strict=True):
        sample = values.contiguous().flatten()[:: int(golden[f"{tag}/stage{i}/step"])]
        close(sample, golden[f"{tag}/stage{i}/sample"])


def test_automatic_backbone_still_asks_the_original_for_everything_else(monkeypatch):
    from transformers.models.auto import auto_factory

    class Hub:
        def repo_exists(self, name):
            raise LookupError(name)

    monkeypatch.setattr(auto_factory, "hf_api", Hub)
    with pytest.raises(LookupError, match="some/where"):
        AutoBackbone.from_pretrained("some/where")


# ---- files


def test_saved_files_have_the_originals_keys_and_bits(hub, tmp_path):
    from safetensors.torch import load_file

    AutoModelForImageClassification.from_pretrained(hub).save_pretrained(tmp_path)
    saved, original = load_file(tmp_path / "model.safetensors"), reference.state("hf_van_tiny")
    assert set(saved) == set(original)
    assert all(np.array_equal(saved[key], original[key]) for key in original)
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["architectures"] == ["VanForImageClassification"]
    assert told["model_type"] == "van"


def test_a_model_that_was_never_loaded_saves_the_originals_keys_too(tmp_path):
    from safetensors.torch import load_file

    config = AutoConfig.for_model("van", **TINY)
    AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    keys = {key for file in tmp_path.glob("*.safetensors") for key in load_file(file)}
    assert {"van.layernorm.weight", "classifier.bias", "van.encoder.stages.3.normalization.bias"} <= keys
    assert "van.encoder.stages.1.layers.1.attention.attention_layer.attention.depth_wise_dilated.weight" in keys
    assert not any("backbone" in key or "blocks" in key for key in keys)


def test_load_state_dict_takes_the_originals_keys_and_ours():
    state = published.tensors(reference.state("hf_van_tiny"))
    model = VanForImageClassification(VanConfig.from_van(VARIANTS["van_b0"]))
    model.load_state_dict(state)
    theirs = state["van.encoder.stages.2.layers.4.mlp_scaling.weight"]
    assert torch.equal(model.van.backbone.stages[2].blocks[4].scale2, theirs)
    model.load_state_dict(model.state_dict())
    bare = {key.removeprefix("van."): value for key, value in state.items() if not key.startswith("classifier")}
    VanModel(model.config).load_state_dict(bare)


def test_our_own_folders_load_and_what_transformers_saves_is_read_back(tmp_path):
    path = published.official(tmp_path / "van.pth.tar", reference.state("official_van_b0"))
    source = checkpoints.read(path)
    assert checkpoints.write(source, tmp_path / "written", "transformers") == []
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "written").eval()
    tag, images = reference.inputs("official_van_b0")[2]
    np.testing.assert_allclose(
        model(torch.from_numpy(images)).logits.detach(),
        reference.golden("official_van_b0")[f"{tag}/logits"],
        rtol=0,
        atol=1e-5,
    )
    model.save_pretrained(tmp_path / "saved")
    again = checkpoints.read(tmp_path / "saved")
    assert again.config == source.config
    assert all(np.array_equal(again.arrays[key], source.arrays[key]) for key in source.arrays)


def test_our_record_brings_what_the_original_cannot_say_and_is_not_copied_on(tmp_path):
    from van.nn import Classifier

    config = VARIANTS["van_b0"].with_options(
        embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_classes=3, attention="sigmoid"
    )
    network = with_weights(Classifier(config))
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    checkpoint = checkpoints.Checkpoint(arrays=arrays, config=config, format="van")
    checkpoints.write(checkpoint, tmp_path / "gated", "transformers")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "gated").eval()
    torch.testing.assert_close(model(IMAGES).logits, network(IMAGES))
    model.save_pretrained(tmp_path / "again")
    assert "van" not in json.loads((tmp_path / "again" / "config.json").read_text())
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(IMAGES).logits, model(IMAGES).logits)


def test_a_new_head_keeps_the_backbone(hub):
    model = AutoModelForImageClassification.from_pretrained(hub, num_labels=5, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape == (5, 256)
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.15)
    theirs = torch.from_numpy(reference.state("hf_van_tiny")["van.encoder.stages.0.embeddings.convolution.weight"])
    assert torch.equal(model.van.backbone.stages[0].patch_embed.conv.weight, theirs)


def test_weights_that_a_file_lacks_start_as_published(tmp_path):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    with_weights(VanForImageClassification(VanConfig(**SMALL))).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gone = [
        "van.encoder.stages.0.embeddings.convolution.weight",
        "van.encoder.stages.0.layers.0.mlp_scaling.weight",
        "van.encoder.stages.1.embeddings.normalization.running_var",
        "van.layernorm.weight",
    ]
    save_file({key: value for key, value in state.items() if key not in gone}, tmp_path / "model.safetensors")
    backbone = VanForImageClassification.from_pretrained(tmp_path).van.backbone
    assert backbone.stages[0].patch_embed.conv.weight.std().item() == pytest.approx((2 / (49 * 16)) ** 0.5, rel=0.1)
    assert torch.all(backbone.stages[0].blocks[0].scale2 == 0.01)
    assert torch.all(backbone.stages[1].patch_embed.norm.running_var == 1)
    assert torch.equal(backbone.stages[0].blocks[0].scale1.detach(), state[gone[1].replace("mlp", "attention")])


# ---- the peers' expectations, by id


def test_transformers_tests_01_last_hidden_state():
    out = VanModel(VanConfig(**SMALL)).eval()(torch.zeros(2, 3, 224, 224))
    assert out.last_hidden_state.shape == (2, 128, 7, 7)


def test_transformers_tests_02_logits_and_a_scalar_loss():
    out = VanForImageClassification(VanConfig(**SMALL)).eval()(torch.zeros(2, 3, 224, 224), labels=torch.tensor([0, 2]))
    assert out.logits.shape == (2, 3)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, torch.tensor([0, 2])))


@pytest.mark.parametrize("how", ["argument", "configuration"])
def test_transformers_tests_03_four_hidden_states(how):
    config = VanConfig(**SMALL, output_hidden_states=how == "configuration")
    ask = {"output_hidden_states": True} if how == "argument" else {}
    for model in (VanModel(config), VanForImageClassification(config)):
        states = model.eval()(torch.zeros(2, 3, 64, 64), **ask).hidden_states
        assert len(states) == 4
        assert states[0].shape == (2, 16, 16, 16)


def test_transformers_tests_04_the_first_argument_is_pixel_values():
    import inspect

    for model in (VanModel, VanForImageClassification, VanBackbone):
        assert list(inspect.signature(model.forward).parameters)[1] == "pixel_values"
    with pytest.raises(ValueError, match="pixel_values is missing"):
        VanModel(VanConfig(**TINY))()


def test_transformers_tests_05_initialisation():
    torch.manual_seed(0)
    model = VanForImageClassification(
        VanConfig(hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 1, 1], initializer_range=1e-10)
    )
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            assert torch.all(module.weight == 1), name
            assert not module.bias.any(), name
        if isinstance(module, torch.nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            scaled = module.weight.detach() / (2 / fan_out) ** 0.5
            assert abs(scaled.mean()) < 6 / scaled.numel() ** 0.5, name
            assert abs(scaled.std() - 1) < 6 / scaled.numel() ** 0.5, name
    assert model.classifier.weight.abs().max() < 1e-8


def test_transformers_tests_06_the_configuration_round_trips(tmp_path):
    config = VanConfig(**SMALL, legacy=True, out_features=["stage2", "stage3"])
    assert VanConfig.from_dict(json.loads(config.to_json_string())).to_dict() == config.to_dict()
    config.to_json_file(tmp_path / "file.json")
    assert VanConfig.from_json_file(tmp_path / "file.json").to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict() | {"_name_or_path": again.to_dict().get("_name_or_path")} or (
        again.to_diff_dict() == config.to_diff_dict()
    )
    assert VanConfig().hidden_sizes == (64, 128, 320, 512)
    assert VanConfig(num_labels=7).num_labels == 7
    assert VanConfig.from_van(VARIANTS["van_b1"]).to_van() == VARIANTS["van_b1"]


@pytest.mark.parametrize("cls", [VanModel, VanForImageClassification, VanBackbone])
def test_transformers_tests_07_save_load_determinism_and_tuples(cls, tmp_path):
    model = with_weights(cls(VanConfig(**TINY)))
    with torch.inference_mode():
        first = model(IMAGES, output_hidden_states=True)
        second = model(IMAGES, output_hidden_states=True)
        assert all(torch.equal(a, b) for a, b in zip(_flat(first), _flat(second), strict=True))
        as_tuple = model(IMAGES, output_hidden_states=True, return_dict=False)
        assert isinstance(as_tuple, tuple)
        assert all(torch.equal(a, b) for a, b in zip(_flat(first), _flat(as_tuple), strict=True))
        model.save_pretrained(tmp_path)
        again = cls.from_pretrained(tmp_path).eval()(IMAGES, output_hidden_states=True)
    assert all(torch.equal(a, b) for a, b in zip(_flat(first), _flat(again), strict=True))


def _flat(out):
    values = out if isinstance(out, tuple) else out.to_tuple()
    return [t for value in values for t in (value if isinstance(value, tuple) else (value,))]


def test_transformers_tests_07_load_from_the_base_model(tmp_path):
    base = with_weights(VanModel(VanConfig(**TINY)))
    base.save_pretrained(tmp_path)
    model = VanForImageClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(model.van(IMAGES).pooler_output, base(IMAGES).pooler_output)


def test_transformers_tests_07_hidden_states_keep_gradients():
    model = VanModel(VanConfig(**TINY))
    out = model(IMAGES, output_hidden_states=True)
    for state in out.hidden_states:
        state.retain_grad()
    out.last_hidden_state.sum().backward()
    assert all(state.grad is not None for state in out.hidden_states)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_transformers_tests_07_training_with_and_without_gradient_checkpointing(checkpointing):
    torch.manual_seed(0)
    model = VanForImageClassification(VanConfig(**TINY)).train()
    twin = VanForImageClassification(VanConfig(**TINY)).train()
    twin.load_state_dict(model.state_dict())
    if checkpointing:
        _switch(model, True)
        assert model.is_gradient_checkpointing
    runs = []
    for stage in model.van.backbone.stages:
        for block in stage.blocks:
            block.attention.register_forward_pre_hook(lambda *_: runs.append(1))
    for network in (model, twin):
        network(IMAGES, labels=torch.tensor([0, 1])).loss.backward()
    assert len(runs) == sum(TINY["depths"]) * (2 if checkpointing else 1)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    if checkpointing:
        _switch(model, False)
        assert not model.is_gradient_checkpointing


def _switch(model, enable):
    """The present name of transformers' switch, else the one it had until 5.2x."""
    for kind in ("activation", "gradient"):
        if method := getattr(model, f"{kind}_checkpointing_{'enable' if enable else 'disable'}", None):
            return method()
    raise AssertionError("no switch")


@pytest.mark.parametrize(
    ("problem", "labels", "expected"),
    [
        ("regression", torch.tensor([[0.1, 0.2, 0.3]] * 2), torch.nn.MSELoss()),
        ("single_label_classification", torch.tensor([1, 2]), torch.nn.CrossEntropyLoss()),
        ("multi_label_classification", torch.tensor([[1.0, 0.0, 1.0]] * 2), torch.nn.BCEWithLogitsLoss()),
    ],
)
def test_transformers_tests_07_problem_types_choose_the_loss(problem, labels, expected):
    model = with_weights(VanForImageClassification(VanConfig(**TINY, problem_type=problem)))
    out = model(IMAGES, labels=labels)
    torch.testing.assert_close(out.loss, expected(out.logits, labels))


def test_transformers_tests_08_no_attentions():
    out = VanForImageClassification(VanConfig(**TINY)).eval()(IMAGES)
    assert not hasattr(out, "attentions")
    assert VanBackbone.has_attentions is False


@pytest.mark.parametrize(("legacy", "shared"), [(False, False), (True, True)])
def test_measured_06_drop_path_over_blocks_and_over_stages_in_legacy(legacy, shared):
    config = VanConfig(hidden_sizes=[8, 8, 8, 8], depths=[3, 3, 5, 2], drop_path_rate=0.1, legacy=legacy)
    schedule = np.linspace(0, 0.1, 13)
    stages = VanModel(config).backbone.stages
    got = [[getattr(block.drop_path, "rate", 0.0) for block in stage.blocks] for stage in stages]
    if shared:
        assert [sorted(set(np.round(rates, 9))) for rates in got] == [[round(r, 9)] for r in schedule[:4]]
    else:
        np.testing.assert_allclose([rate for rates in got for rate in rates], schedule)


def test_measured_07_the_unused_norm_is_kept_and_changes_nothing(hub):
    model = AutoModelForImageClassification.from_pretrained(hub).eval()
    before = model(IMAGES).logits
    model.van.layernorm.weight.fill_(7)
    assert torch.equal(model(IMAGES).logits, before)
    in_file = sum(np.prod(shape) for key, shape in reference.entries("hf_van_tiny").items() if _is_parameter(key))
    unused = sum(b.numel() for b in model.van.layernorm.buffers())
    assert sum(p.numel() for p in model.parameters()) + unused == in_file
    assert unused == 2 * 256


def _is_parameter(key):
    return "running" not in key and "tracked" not in key


def test_measured_08_no_labels_no_classifier():
    model = VanForImageClassification(VanConfig(**TINY | {"num_labels": 0})).eval()
    torch.testing.assert_close(model(IMAGES).logits, model.van(IMAGES).pooler_output)


def test_measured_09_one_label_is_a_regression():
    model = with_weights(VanForImageClassification(VanConfig(**TINY | {"num_labels": 1})))
    out = model(IMAGES, labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(out.loss, torch.nn.functional.mse_loss(out.logits[:, 0], torch.tensor([0.5, -1.0])))


# ---- backbone and configuration


def test_backbone_stem_hidden_states_and_selection():
    config = VanConfig(**TINY)
    assert config.stage_names == ["stem", "stage1", "stage2", "stage3", "stage4"]
    model = with_weights(VanBackbone(config))
    assert model.out_features == ["stage4"]
    model.out_indices = (0, 1, 3)
    maps = model(IMAGES).feature_maps
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 24), (8, 16, 24), (24, 4, 6)]
    assert [m.shape[1] for m in maps] == model.channels
    torch.testing.assert_close(maps[0], model.backbone.stages[0].patch_embed(IMAGES))
    assert len(model(IMAGES, output_hidden_states=True).hidden_states) == 5
    assert not model.backbone.stages[0].patch_embed._forward_hooks
    model.train()
    model(IMAGES)
    assert model.backbone.stages[0].patch_embed.norm.num_batches_tracked == 1


def test_impossible_configurations_are_refused():
    with pytest.raises(ValueError, match="'relu'"):
        VanConfig(hidden_act="relu")
    with pytest.raises(ConfigError, match="depths has 3 entries"):
        VanConfig(depths=[1, 1, 1], hidden_sizes=[8, 8, 8, 8])
    with pytest.raises(Exception, match="stage9"):
        VanConfig(out_features=["stage9"])


def test_a_van_that_transformers_has_is_kept(monkeypatch):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    class Native(transformers.PreTrainedConfig):
        model_type = "van"

    monkeypatch.setitem(CONFIG_MAPPING._extra_content, "van", Native)
    with pytest.warns(VanNotice, match="of its own"):
        register("transformers")
    assert CONFIG_MAPPING["van"] is Native


def test_registering_again_changes_nothing():
    before = AutoBackbone.from_pretrained
    assert register("transformers") == ("transformers",)
    assert AutoBackbone.from_pretrained == before
    assert AutoConfig.for_model("van").__class__ is VanConfig


# ---- image processing, pipelines, Trainer


@pytest.mark.parametrize("backend", ["pil", "torchvision"])
def test_the_processor_file_is_kept_and_its_contradiction_said_once(hub, backend):
    with pytest.warns(VanNotice, match="image_mean=.*0.485.*evaluated with.*0.5") as told:
        processor = AutoImageProcessor.from_pretrained(hub, backend=backend)
    assert len([w for w in told if w.category is VanNotice]) == 1
    assert list(processor.image_mean) == HUB_PROCESSOR["image_mean"]
    assert processor.crop_pct == 0.875
    assert type(processor).__module__.startswith("transformers.")


def test_a_right_processor_file_and_other_models_are_not_warned_about(tmp_path):
    checkpoint = checkpoints.read(published.official(tmp_path / "van.pth.tar", reference.state("official_van_b0")))
    checkpoints.write(checkpoint, tmp_path / "right", "transformers")
    (tmp_path / "other").mkdir()
    convnext = published.hub_config("hf_van_tiny") | {"model_type": "convnext"}
    (tmp_path / "other" / "config.json").write_text(json.dumps(convnext))
    (tmp_path / "other" / "preprocessor_config.json").write_text(json.dumps(HUB_PROCESSOR))
    config = published.hub_config("hf_van_tiny") | {"id2label": {0: "a", 1: "b"}}
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.json").write_text(json.dumps(config))
    (tmp_path / "tuned" / "preprocessor_config.json").write_text(json.dumps(HUB_PROCESSOR))
    for name, mean in (("right", 0.5), ("other", 0.485), ("tuned", 0.485)):
        assert AutoImageProcessor.from_pretrained(tmp_path / name).image_mean[0] == mean  # notices are errors here


def test_the_published_repositories_are_known_by_name(hub):
    from van.hosts.transformers import processing

    processor = transformers.ConvNextImageProcessorPil(**HUB_PROCESSOR | {"size": {"shortest_edge": 224}})
    with pytest.warns(VanNotice, match="Visual-Attention-Network/van-base has image_mean"):
        processing.warn_of_contradiction("Visual-Attention-Network/van-base", processor, {})
    processing.warn_of_contradiction("facebook/convnext-tiny-224", processor, {})


def test_the_written_processor_gives_our_pixels(tmp_path):
    checkpoint = checkpoints.read(published.official(tmp_path / "van.pth.tar", reference.state("official_van_b0")))
    checkpoints.write(checkpoint, tmp_path / "folder", "transformers")
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    image = Image.fromarray(noise).resize((800, 600))  # of 330 x 248; an odd margin they crop one pixel further left
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "folder", backend="pil")(image)["pixel_values"][0]
    np.testing.assert_allclose(pixels, checkpoint.preprocess(image), rtol=0, atol=2e-2)  # a gray level is 8e-3


def test_pipeline_labels_an_image_offline(hub, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.warns(VanNotice, match="It is kept"):
        classify = transformers.pipeline("image-classification", model=str(hub), device="cpu")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 300, 3), np.uint8))
    answers = classify(image, top_k=3)
    assert [sorted(answer) for answer in answers] == [["label", "score"]] * 3
    assert answers[0]["label"].startswith("class ")
    model, processor = classify.model, classify.image_processor
    probabilities = model(**processor(image, return_tensors="pt")).logits.softmax(1)[0]
    assert answers[0]["score"] == pytest.approx(probabilities.max().item(), abs=1e-6)


def test_trainer_fine_tunes_saves_and_resumes(tmp_path):
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    images = torch.randn(16, 3, 32, 32)
    labels = torch.arange(16) % 2
    images[labels == 1] += 1.0
    data = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    config = VanConfig(**TINY | {"num_labels": 2})
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_train_epochs=6,
        learning_rate=5e-3,
        gradient_checkpointing=True,
        save_strategy="epoch",
        save_total_limit=2,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = VanForImageClassification(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        result = transformers.Trainer(model=model, args=arguments, train_dataset=data).train()
    model.eval()
    assert result.training_loss < 0.6
    assert (model(images).logits.argmax(1) == labels).float().mean() >= 0.9
    last = sorted(tmp_path.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))[-1]
    again = AutoModelForImageClassification.from_pretrained(last).eval()
    assert torch.equal(again(images).logits, model(images).logits)
    resumed = VanForImageClassification(config)
    arguments.num_train_epochs = 6
    transformers.Trainer(model=resumed, args=arguments, train_dataset=data).train(resume_from_checkpoint=str(last))
    assert torch.equal(resumed.eval()(images).logits, model(images).logits)


# ---- transformers 4.57 itself, in its own environment: VAN_PEER_PYTHON names its interpreter

PEER = """
import sys, numpy, torch
from transformers import AutoModelForImageClassification, VanConfig, VanForImageClassification
source, images, answers, target = sys.argv[1:]
model = AutoModelForImageClassification.from_pretrained(source).eval()
with torch.inference_mode():
    out = model(torch.from_numpy(numpy.load(images)), output_hidden_states=True)
numpy.savez(answers, logits=out.logits, **{f"stage{i}": s for i, s in enumerate(out.hidden_states)})
model.save_pretrained(target)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    "VAN_PEER_PYTHON" not in os.environ, reason="VAN_PEER_PYTHON names no python with transformers 4.57"
)
@pytest.mark.parametrize("name", ["tiny", "published"])
def test_transformers_4_reads_what_we_save_and_we_read_what_it_saves(tmp_path, hub, name):
    if name == "tiny":
        torch.manual_seed(0)
        model = with_weights(VanForImageClassification(VanConfig(**TINY, drop_path_rate=0.1)))
    else:
        model = AutoModelForImageClassification.from_pretrained(hub).eval()
    model.save_pretrained(tmp_path / "ours")
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    command = [os.environ["VAN_PEER_PYTHON"], "-c", PEER]
    paths = [str(tmp_path / file) for file in ("ours", "images.npy", "answers.npz", "theirs")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "newly initialized" not in done.stderr
    with torch.inference_mode():
        ours = model(IMAGES, output_hidden_states=True)
        again = AutoModelForImageClassification.from_pretrained(tmp_path / "theirs").eval()
        assert torch.equal(again(IMAGES).logits, ours.logits)
    answers = np.load(tmp_path / "answers.npz")
    np.testing.assert_allclose(ours.logits, answers["logits"], rtol=0, atol=1e-5)
    for i, state in enumerate(ours.hidden_states):
        close(state, answers[f"stage{i}"])
