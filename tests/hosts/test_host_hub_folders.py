"""Folders for the Hub in timm and transformers: heads, channels, preprocessing and names are the folder's."""

import json

import published
import pytest
import reference_data as reference
import torch

import van
from van.errors import VanNotice
from van.hosts import register
from van.images.preprocess import Preprocess

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
register("timm", "transformers")

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "mlp_ratios": (2, 2, 2, 2)}
LIKE_B0 = {"layer_norm_eps": 1e-5, "num_classes": 7}
GRAY = Preprocess(size=(48, 48), mean=(0.4,), std=(0.2,), crop_pct=0.8, interpolation="bilinear")


def trained(**options):
    torch.manual_seed(0)
    model = van.create_model("van_b0", **options).eval()
    with torch.no_grad():
        model.head.bias.normal_()
    model.classes = tuple(f"kind {i}" for i in range(options["num_classes"]))
    return model


def folder_of(model, path):
    van.save(model, path, format="transformers")
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """An offline hub cache into which a folder is put as a repository."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(folder, repository):
        storage = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        (storage / "refs").mkdir(parents=True)
        (storage / "refs" / "main").write_text("0" * 40)
        (storage / "snapshots").mkdir()
        (storage / "snapshots" / ("0" * 40)).symlink_to(folder)
        return tmp_path / "cache"

    return put


@pytest.mark.promise("5")
def test_a_card_with_the_overlay_of_before_gives_the_files_head(tmp_path, cached):
    model = trained(num_classes=7)
    options = {
        "pretrained_cfg_overlay": {"hf_hub_id": "someone/digits"},
        "cache_dir": cached(folder_of(model, tmp_path / "folder"), "someone/digits"),
    }
    theirs = timm.create_model("van_b0", pretrained=True, num_classes=7, **options).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs(images), model(images))


@pytest.mark.promise("5")
@pytest.mark.parametrize("kind", ["safetensors", "state", "custom"])
def test_a_file_in_the_overlay_gives_the_files_head(tmp_path, kind):
    model = trained(num_classes=7)
    path = tmp_path / "van.safetensors"
    if kind == "state":
        path = tmp_path / "van.pth"
        torch.save(model.state_dict(), path)
    else:
        van.save(model, path)
    overlay = {"file": str(path)} | ({"custom_load": True} if kind == "custom" else {})
    theirs = timm.create_model("van_b0", pretrained=True, num_classes=7, pretrained_cfg_overlay=overlay).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs(images), model(images))
    assert theirs.pretrained_cfg["num_classes"] == 7


@pytest.mark.promise("5")
@pytest.mark.parametrize("kind", ["file", "official", "mmpretrain", "transformers", "hf_hub_id"])
def test_what_no_tensor_tells_comes_from_the_files_record(tmp_path, cached, kind):
    model = trained(num_classes=7, layer_norm_eps=1e-2)
    model.preprocess = Preprocess(size=(32, 32), crop_pct=0.7, mean=(0.1, 0.2, 0.3))
    path, options = tmp_path / ("van.safetensors" if kind == "file" else "van.pth"), {}
    van.save(model, path, format={"file": "van", "hf_hub_id": "transformers"}.get(kind, kind))
    overlay = {"file": str(path / "model.safetensors" if kind == "transformers" else path)}
    if kind == "hf_hub_id":
        overlay, options = {"hf_hub_id": "someone/digits"}, {"cache_dir": cached(path, "someone/digits")}
    with pytest.warns(VanNotice, match=r"epsilon is now 0\.01, as the weights' own file says; it was 1e-06"):
        theirs = timm.create_model("van_b0", pretrained=True, num_classes=7, pretrained_cfg_overlay=overlay, **options)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs.eval()(images), model(images))
    data = timm.data.resolve_model_data_config(theirs)
    assert (data["input_size"], data["mean"], data["crop_pct"]) == ((3, 32, 32), (0.1, 0.2, 0.3), 0.7)
    assert tuple(theirs.pretrained_cfg["label_names"]) == model.classes
    overlay |= {"mean": (0.9, 0.9, 0.9)}  # what the user says wins
    options |= {"num_classes": 7, "layer_norm_eps": 1e-3}
    theirs = timm.create_model("van_b0", pretrained=True, pretrained_cfg_overlay=overlay, **options)
    assert (theirs.config.layer_norm_eps, theirs.pretrained_cfg["mean"]) == (1e-3, (0.9, 0.9, 0.9))


@pytest.mark.promise("5")
def test_a_pyramid_has_no_head_to_speak_of(tmp_path, recwarn):
    model = trained(num_classes=7)
    van.save(model, tmp_path / "van.safetensors")
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "van.safetensors")}}
    pyramid, images = timm.create_model("van_b0", features_only=True, **options).eval(), torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model.backbone(images), pyramid(images), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not [w for w in recwarn if isinstance(w.message, VanNotice)]


@pytest.mark.promise("5")
def test_a_head_of_another_size_is_said_unless_it_was_asked_for(tmp_path, recwarn):
    van.save(trained(num_classes=7), tmp_path / "van.safetensors")
    overlay = {"file": str(tmp_path / "van.safetensors")}
    timm.create_model("van_b0", pretrained=True, num_classes=5, pretrained_cfg_overlay=overlay)
    assert not [w for w in recwarn if isinstance(w.message, VanNotice)]
    with pytest.warns(VanNotice, match="head has 7 classes, the model's 1000"):
        timm.create_model("van_b0", pretrained=True, pretrained_cfg_overlay=overlay)


@pytest.mark.promise("5")
def test_a_file_for_gray_images_is_not_adapted_as_if_it_were_coloured(tmp_path):
    model = trained(num_classes=7, in_chans=1)
    van.save(model, tmp_path / "van.safetensors")
    overlay = {"file": str(tmp_path / "van.safetensors")}
    theirs = timm.create_model("van_b0", pretrained=True, num_classes=7, in_chans=1, pretrained_cfg_overlay=overlay)
    images = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(theirs.eval()(images), model(images))


@pytest.mark.promise("18")
@pytest.mark.parametrize(
    "options", [{"num_classes": 7}, LIKE_B0, {**TINY, "num_classes": 3, "in_chans": 1, "attention": "sigmoid"}]
)
@pytest.mark.parametrize("source", ["hf-hub", "local-dir"])
def test_timm_builds_the_model_that_a_folder_describes(tmp_path, cached, options, source):
    model = trained(**options)
    model.preprocess = GRAY if options.get("in_chans") == 1 else Preprocess(size=(32, 32), crop_pct=0.7)
    folder = folder_of(model, tmp_path / "folder")
    cache = cached(folder, "someone/digits")
    name = f"local-dir:{folder}" if source == "local-dir" else "hf-hub:someone/digits"
    theirs = timm.create_model(name, pretrained=True, cache_dir=cache).eval()
    images = torch.randn(2, options.get("in_chans", 3), 64, 64)
    torch.testing.assert_close(theirs(images), model(images))
    assert theirs.config.layer_norm_eps == model.config.layer_norm_eps
    data = timm.data.resolve_model_data_config(theirs)
    assert data["input_size"] == (model.preprocess.channels, *model.preprocess.size)
    assert (tuple(data["mean"]), tuple(data["std"])) == (model.preprocess.mean, model.preprocess.std)
    assert data["crop_pct"] == model.preprocess.crop_pct
    assert tuple(theirs.pretrained_cfg["label_names"]) == model.classes


@pytest.mark.promise("18")
def test_timm_adapts_a_folder_to_other_classes_and_channels(tmp_path):
    folder = folder_of(trained(num_classes=7), tmp_path / "folder")
    other = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=2, in_chans=1).eval()
    assert other.head.weight.shape == (2, 256)
    assert other(torch.randn(1, 1, 32, 32)).shape == (1, 2)


@pytest.mark.promise("18")
def test_what_timm_reads_is_not_carried_on_by_transformers(tmp_path):
    folder = folder_of(trained(num_classes=7), tmp_path / "folder")
    assert json.loads((folder / "config.json").read_text())["architecture"] == "van_b0"
    automatic = transformers.AutoModelForImageClassification
    again = automatic.from_pretrained(folder, num_labels=2, ignore_mismatched_sizes=True)
    again.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert not {"architecture", "pretrained_cfg", "model_args", "num_classes", "van"} & set(saved)


@pytest.mark.promise("18")
def test_automatic_backbone_comes_from_the_cache_without_a_network(tmp_path, cached):
    state, config = reference.state("hf_van_tiny"), published.hub_config("hf_van_tiny")
    cache = cached(published.transformers(tmp_path / "van-tiny", state, config), "someone/van-tiny")
    model = transformers.AutoBackbone.from_pretrained("someone/van-tiny", cache_dir=cache, out_features=["stage4"])
    whole = transformers.AutoModel.from_pretrained(tmp_path / "van-tiny").eval()
    images = torch.randn(1, 3, 64, 64)
    maps = model.eval()(images).feature_maps
    torch.testing.assert_close(maps[0], whole(images).last_hidden_state, rtol=0, atol=0)


@pytest.mark.promise("18")
def test_automatic_backbone_comes_from_a_subfolder_in_the_cache(tmp_path, cached):
    (tmp_path / "repository").mkdir()
    folder_of(trained(num_classes=7), tmp_path / "repository" / "deep")
    cache = cached(tmp_path / "repository", "someone/several")
    model = transformers.AutoBackbone.from_pretrained("someone/several", cache_dir=cache, subfolder="deep")
    assert model.eval()(torch.randn(1, 3, 64, 64)).feature_maps[0].shape == (1, 256, 2, 2)


@pytest.mark.promise("4")
@pytest.mark.promise("18")
@pytest.mark.parametrize("recomputed", [False, True])
def test_models_of_transformers_are_optimised(tmp_path, recomputed):
    from van.nn.fold import is_folded

    folder, images = folder_of(trained(num_classes=7), tmp_path / "folder"), torch.randn(1, 3, 64, 64)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    if recomputed:
        (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    fast = van.optimize(model.eval(), example=images)
    assert is_folded(fast)
    with torch.no_grad():
        torch.testing.assert_close(fast(images).logits, model(images).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.promise("4")
@pytest.mark.parametrize("kind", ["AutoModelForImageClassification", "AutoBackbone"])
def test_models_of_transformers_that_do_not_fit_into_memory(tmp_path, kind):
    pytest.importorskip("accelerate")
    folder, images = folder_of(trained(num_classes=7), tmp_path / "folder"), torch.randn(1, 3, 64, 64)
    automatic = getattr(transformers, kind)
    places = {"device_map": "auto", "max_memory": {"cpu": "4MB"}, "offload_folder": tmp_path / "offloaded"}
    model, whole = automatic.from_pretrained(folder, **places).eval(), automatic.from_pretrained(folder).eval()
    assert any(parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        ours, theirs = (getattr(m(images), "logits", None) for m in (model, whole))
        if kind == "AutoBackbone":
            ours, theirs = model(images).feature_maps[0], whole(images).feature_maps[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.promise("18")
@pytest.mark.parametrize("options", [{}, {"use_reentrant": True}, {"use_reentrant": False}])
def test_checkpointed_blocks_leave_statistics_and_gradients_as_they_were(options):
    from transformers.modeling_layers import GradientCheckpointingLayer

    from van.hosts.transformers import VanConfig, VanForImageClassification

    config = VanConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 2, 1], mlp_ratios=[2, 2, 2, 2], num_labels=3, drop_path_rate=0.3
    )
    models = [VanForImageClassification(config).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].gradient_checkpointing_enable(gradient_checkpointing_kwargs=options or None)
    assert [m for m in models[1].modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    images = torch.randn(4, 3, 64, 64)
    for model in models:
        torch.manual_seed(3)
        model(images, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    plain, recomputed = models
    for (name, ours), theirs in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    for (name, ours), theirs in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)
