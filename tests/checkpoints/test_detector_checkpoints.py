"""Files of models that find objects: written and read bit for bit, damaged, converted, described; bare state dicts."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")

pytest.importorskip("transformers")

from torchvision_detectors import ALL_NAMES, NAMES, noise, state_of_version_0_1, tiny

import van
from van.checkpoints.files import write_safetensors
from van.errors import CheckpointError, VanNotice
from van.nn.object_model import ObjectModel

every_model = pytest.mark.parametrize("name", ALL_NAMES)
with_torchvision = pytest.mark.parametrize("name", NAMES)


@pytest.mark.promise("22")
@every_model
def test_a_file_gives_the_same_model_back(name, tmp_path):
    model = tiny(name)
    model.classes, model.provenance = ("cat", "dog", "bird"), {"scores": {"AP": 0.25}}
    van.save(model, tmp_path / "m.safetensors")
    again = van.load(tmp_path / "m.safetensors")
    assert isinstance(again, ObjectModel)
    assert not again.training
    assert (again.config, again.metadata) == (model.config, model.metadata)
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    with torch.inference_mode():
        for key, value in model.raw(noise(1, 3, 64, 64)).items():
            assert torch.equal(value, again.raw(noise(1, 3, 64, 64))[key])


@every_model
@pytest.mark.parametrize("damage", ["drop", "add", "misshape"])
def test_a_damaged_file_is_refused_by_the_name_of_its_tensor(name, damage, tmp_path):
    model = tiny(name)
    van.save(model, tmp_path / "m.safetensors")
    content = van.checkpoints.files.open_content(tmp_path / "m.safetensors")
    arrays = dict(content.tree)
    key = next(key for key in reversed(arrays) if not key.startswith("backbone.") and arrays[key].ndim)
    if damage == "drop":
        del arrays[key]
    elif damage == "add":
        key = "head.more.weight"
        arrays[key] = np.zeros(3, np.float32)
    else:
        arrays[key] = arrays[key][:-1]
    write_safetensors(tmp_path / "damaged.safetensors", arrays, content.metadata)
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        van.load(tmp_path / "damaged.safetensors")


@every_model
def test_conversion_compares_tensors_and_outputs(name, tmp_path):
    van.save(tiny(name), tmp_path / "m.safetensors")
    done = van.convert(tmp_path / "m.safetensors", tmp_path / "n.safetensors", to="van")
    assert (done.tensors, done.outputs) == (len(tiny(name).state_dict()), "logits")
    with pytest.raises(CheckpointError, match=r"mmseg can hold only the backbone of a .*; use van for the whole"):
        van.convert(tmp_path / "m.safetensors", tmp_path / "n.pth", to="mmseg")


@every_model
def test_info_says_what_it_is(name, tmp_path):
    model = tiny(name)
    van.save(model, tmp_path / "m.safetensors")
    info = van.info(tmp_path / "m.safetensors")
    assert info.parameters == sum(p.numel() for p in model.parameters())
    assert (info.model, info.task) == (model.config, model.config.task)
    assert f"{model.config.method}, num_classes 3" in str(info)
    assert f"{model.config.min_size}" in dict(info.rows())["preprocessing"]
    assert info.to_dict()[model.config.section] == model.config.to_dict()


@every_model
def test_a_file_starts_other_models(name, tmp_path):
    model = tiny(name)
    van.save(model, tmp_path / "m.safetensors")
    with pytest.warns(VanNotice, match=f"{model.config.output_layers} of 3 classes are left out"):
        other = van.load(tmp_path / "m.safetensors", num_classes=5)
    assert other.num_classes == 5
    with pytest.warns(VanNotice) as said:
        trunk = van.load(tmp_path / "m.safetensors", backbone_only=True)
    assert any(f"tensors of the {model.config.method} head left out" in str(each.message) for each in said)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in trunk.state_dict().items())


@every_model
def test_options_change_what_is_in_no_tensor(name, tmp_path):
    van.save(tiny(name), tmp_path / "m.safetensors")
    model = van.load(tmp_path / "m.safetensors", min_size=96, max_size=128, drop_path_rate=0.1)
    assert (model.config.min_size, model.config.backbone.drop_path_rate) == (96, 0.1)
    width = "channels" if name in NAMES else "hidden_size"
    with pytest.raises(CheckpointError, match="does not fit the network"):
        van.load(tmp_path / "m.safetensors", **{width: 64})


@with_torchvision
@pytest.mark.parametrize("version", ["now", "0.1"])
def test_a_bare_state_dict_is_known_by_its_shapes(name, version, tmp_path):
    if version == "0.1" and name not in ("retinanet_van_b0", "mask_rcnn_van_b0"):
        pytest.skip("version 0.1 had none")
    model = tiny(name)
    torch.save(model.state_dict() if version == "now" else state_of_version_0_1(model), tmp_path / "m.pth")
    with pytest.warns(VanNotice, match="does not contain the sizes of images and anchors"):
        again = van.load(tmp_path / "m.pth", min_size=64, max_size=96, smallest_anchor=8)
    assert (again.config.method, again.num_classes) == (model.config.method, 3)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_bare_state_dict_with_a_tensor_missing_is_refused(tmp_path):
    state = state_of_version_0_1(tiny("mask_rcnn_van_b0"))
    del state["backbone.fpn.inner_blocks.1.0.bias"]
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: pyramid\.laterals\.1\.bias"):
        van.load(tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["retinanet_van_b0", "mask_rcnn_van_b0"])
def test_any_checkpoints_backbone_starts_one(name, tmp_path):
    sizes = {field: NAMES[name][field] for field in ("embed_dims", "depths", "mlp_ratios")}
    classifier = van.create_model("van_b0", seed=3, num_classes=7, **sizes)
    van.save(classifier, tmp_path / "c.safetensors")
    model = tiny(name)
    with pytest.warns(VanNotice):
        trunk = van.load(tmp_path / "c.safetensors", backbone_only=True)
    model.backbone.load_state_dict(trunk.backbone.state_dict())
    assert torch.equal(model.backbone.stages[3].norm.weight, classifier.backbone.stages[3].norm.weight)


@every_model
def test_optimised_it_finds_the_same(name):
    model = tiny(name)
    for norm in model.backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    fast = van.optimize(model)
    assert van.nn.is_folded(fast)
    with torch.inference_mode():
        for one, two in zip(model.backbone(noise(1, 3, 64, 96)), fast.backbone(noise(1, 3, 64, 96)), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
        one, two = model.raw(noise(1, 3, 64, 64)), fast.raw(noise(1, 3, 64, 64))
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], rtol=1e-3, atol=1e-2 if key == "boxes" else 1e-3)
    with pytest.raises(CheckpointError, match="a folded network cannot be saved"):
        van.save(fast, "never.safetensors")


@pytest.mark.parametrize("name", ["dfine_van_b0", "mask2former_van_b0"])
def test_a_record_that_asks_for_thousands_of_layers_is_refused_at_once(name, tmp_path):
    model = tiny(name)
    van.save(model, tmp_path / "m.safetensors")
    content = van.checkpoints.files.open_content(tmp_path / "m.safetensors")
    own = json.loads(content.metadata[model.config.section]) | {"decoder_layers": 60000}
    write_safetensors(
        tmp_path / "h.safetensors", content.tree, content.metadata | {model.config.section: json.dumps(own)}
    )
    with pytest.raises(CheckpointError, match="decoder_layers is 60000; expected 1 to 64"):
        van.load(tmp_path / "h.safetensors")
