"""What a file tells, what its lineage implies, and what the caller says: heads, epsilons, preprocessing, averages."""

import argparse
import json
import re
import warnings

import numpy as np
import published
import pytest
import torch
from checkpoint_files import CLASSES, SMALL, arrays_of, checkpoint, headless, theirs, write
from reference_data import entries

import van
from van import checkpoints
from van.checkpoints import head_keys, keys, layout
from van.configs.segmenter import SegmenterConfig
from van.errors import CheckpointError, ConfigError, UnknownNameError, VanNotice
from van.images.preprocess import IMAGENET, OFFICIAL, Preprocess

OFFICIAL_IN1K = SMALL.with_options(num_classes=1000, layer_norm_eps=1e-6, drop_path_rate=0.0)


def segmenter(method=None, *, inner=True):
    """A segmenter's state, or that of its backbone alone: random backbone, heads of zeros and ones."""
    state = headless(keys.MMSEG if inner else keys.MMSEG_1)
    if method is None:
        return state
    backbone = SMALL.with_options(num_classes=0)
    sizes = {"channels": 32, "ham_channels": 32, "neck_channels": 8, "auxiliary_channels": 32, "num_classes": 2}
    shapes = layout.shapes(SegmenterConfig(backbone=backbone, method=method, **sizes))
    table = head_keys.mmseg(method, version_1=not inner)
    heads = {key: shape for key, shape in shapes.items() if not key.startswith("backbone.") and key != head_keys.BASES}
    return state | {table.foreign(key): np.ones(shape, np.float32) for key, shape in heads.items()}


# -- containers and wrappers


def test_every_official_container(tmp_path):
    state = theirs(keys.OFFICIAL, OFFICIAL_IN1K)
    bare = published.tensors(state)
    legacy = tmp_path / "legacy.pth"
    torch.save(bare, legacy, _use_new_zipfile_serialization=False)
    torch.save(bare, tmp_path / "bare.weights")
    torch.save({"state_dict": {f"module.{key}": value for key, value in bare.items()}}, tmp_path / "parallel.tar")
    safe = tmp_path / "official.anything"
    __import__("safetensors.torch").torch.save_file(bare, safe)
    files = [legacy, tmp_path / "bare.weights", tmp_path / "parallel.tar", safe]
    files.append(published.official(tmp_path / "x.pth.tar", state))
    for path in files:
        found = checkpoints.read(path)
        assert found.format == "official"
        assert found.config == OFFICIAL_IN1K
        assert found.preprocess == OFFICIAL
        assert found.origins["layer_norm_eps"] == "lineage"
        assert found.notes == ()
    assert found.provenance["epoch"] == 309
    assert found.provenance["metric"] == 75.4
    assert found.provenance["source"] == "x.pth.tar"


def test_a_folder_with_one_checkpoint_is_that_checkpoint(tmp_path):
    published.official(tmp_path / "van_tiny_754.pth.tar", theirs(keys.OFFICIAL, OFFICIAL_IN1K))
    (tmp_path / "README.md").write_text("weights")
    assert van.load(tmp_path).num_classes == 1000
    published.official(tmp_path / "van_small.pth.tar", theirs(keys.OFFICIAL))
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints \(van_small.pth.tar, van_tiny_754.pth.tar\)"):
        van.load(tmp_path)


def test_training_checkpoints_of_ours(tmp_path):
    state = {f"model.{key}": value for key, value in published.tensors(arrays_of(SMALL)).items()}
    record = {"config": SMALL.to_dict(), "classes": list(CLASSES)}
    torch.save({"state_dict": state, "hyper_parameters": {"van": record}, "epoch": 3}, tmp_path / "last.ckpt")
    found = checkpoints.read(tmp_path / "last.ckpt")
    assert (found.format, found.config, found.classes) == ("van", SMALL, CLASSES)


# -- averaged weights


def test_averaged_weights_on_request(tmp_path):
    raw, averaged = theirs(keys.OFFICIAL, seed=1), theirs(keys.OFFICIAL, seed=2)
    ema = {f"module.{key}": value for key, value in published.tensors(averaged).items()}
    files = [
        published.official(tmp_path / "timm.pth.tar", raw, state_dict_ema=ema),
        published.lineage_22k(tmp_path / "22k.pth", raw, averaged),
    ]
    for path in files:
        assert np.array_equal(checkpoints.read(path).arrays["head.bias"], raw["head.bias"])
        found = checkpoints.read(path, ema=True)
        assert np.array_equal(found.arrays["head.bias"], averaged["head.bias"])
        assert van.load(path, ema=True).provenance["averaged"] is True


def test_averaged_weights_that_are_not_there(tmp_path):
    files = [
        published.official(tmp_path / "x.pth.tar", theirs(keys.OFFICIAL)),
        published.openmmlab(tmp_path / "y.pth", theirs(keys.MMPRETRAIN)),
        write(tmp_path, "van"),
        write(tmp_path, "transformers"),
        write(tmp_path, "mmseg"),
    ]
    for path in files:
        with pytest.raises(CheckpointError, match="leave ema out"):
            van.load(path, ema=True)


def test_only_averaged_weights(tmp_path):
    torch.save({"state_dict_ema": published.tensors(theirs(keys.OFFICIAL))}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds averaged weights only"):
        van.load(tmp_path / "x.pth")
    assert van.load(tmp_path / "x.pth", ema=True).num_classes == 5


# -- lineages


def test_22k_lineage(tmp_path):
    path = published.lineage_22k(tmp_path / "x.pth", theirs(keys.OFFICIAL))
    assert checkpoints.read(path).preprocess == IMAGENET
    wide = SMALL.with_options(num_classes=21841)
    found = checkpoints.read(published.openmmlab(tmp_path / "y.pth", theirs(keys.MMPRETRAIN, wide)))
    assert found.config.num_classes == 21841
    assert found.preprocess == IMAGENET


def test_openmmlab_classifiers(tmp_path):
    state = theirs(keys.MMPRETRAIN)
    bare = checkpoints.read(published.openmmlab(tmp_path / "a.pth", state))
    assert (bare.format, bare.config.layer_norm_eps, bare.preprocess) == ("mmpretrain", 1e-5, OFFICIAL)
    assert bare.origins["layer_norm_eps"] == "lineage"
    old = checkpoints.read(
        published.openmmlab(tmp_path / "b.pth", state, CLASSES=list(CLASSES), mmcls_version="0.23.0")
    )
    assert old.classes == CLASSES
    assert old.provenance["mmcls_version"] == "0.23.0"
    config = "norm = dict(type='LN', eps=1e-06)\nmodel = dict(backbone=dict(type='VAN', arch='tiny', norm_cfg=norm))\n"
    new = checkpoints.read(
        published.openmmlab(tmp_path / "c.pth", state, dataset_meta={"classes": CLASSES}, cfg=config, seed=0)
    )
    assert new.classes == CLASSES
    assert (new.config.layer_norm_eps, new.origins["layer_norm_eps"]) == (1e-6, "metadata")


def test_a_backbone_taken_out_of_its_classifier(tmp_path):
    state = {key.removeprefix("backbone."): array for key, array in headless(keys.MMPRETRAIN).items()}
    found = checkpoints.read(published.openmmlab(tmp_path / "a.pth", state))
    assert (found.format, found.config.num_classes) == ("mmpretrain", 0)


VAN_TINY = "model = dict(type='EncoderDecoder', backbone=dict(type='van_tiny', style='pytorch'))"
VAN_2022_07 = (
    "norm_cfg = dict(type='SyncBN')\nmodel = dict(backbone=dict(type='VAN', norm_cfg=norm_cfg, depths=[3, 3]))"
)
STRIDES = "model = dict(backbone=dict(type='van_tiny', strides=(4, 2, 1, 1), out=f(3), pretrained=None))"


@pytest.mark.parametrize(
    ("method", "config", "epsilon", "strides", "origin"),
    [
        ("light_ham", None, 1e-6, (4, 2, 2, 2), "lineage"),
        ("hamnet", None, 1e-6, (4, 2, 1, 1), "lineage"),
        ("semantic_fpn", None, 1e-6, (4, 2, 2, 2), "lineage"),
        ("upernet", None, 1e-5, (4, 2, 2, 2), "lineage"),
        ("upernet", VAN_TINY, 1e-6, (4, 2, 2, 2), "metadata"),
        ("upernet", VAN_2022_07, 1e-5, (4, 2, 2, 2), "metadata"),
        ("semantic_fpn", VAN_2022_07, 1e-5, (4, 2, 2, 2), "metadata"),
        ("light_ham", STRIDES, 1e-6, (4, 2, 1, 1), "metadata"),
        ("upernet", "def f(:", 1e-5, (4, 2, 2, 2), "lineage"),
        (None, None, 1e-6, (4, 2, 2, 2), "lineage"),
    ],
)
def test_segmenters_epsilon_and_strides(tmp_path, method, config, epsilon, strides, origin):
    meta = {"config": config} if config else {}
    path = published.openmmlab(tmp_path / "x.pth", segmenter(method), epoch=1, CLASSES=["wall", "sky"], **meta)
    found = checkpoints.read(path)
    assert (found.format, found.backbone.layer_norm_eps, found.backbone.strides) == ("mmseg", epsilon, strides)
    assert found.origins["layer_norm_eps"] == origin
    assert found.preprocess == IMAGENET
    assert found.config.method == (method or "classification")
    assert found.classes == (("wall", "sky") if method else None)
    assert checkpoints.read(path, layer_norm_eps=1e-4).origins["layer_norm_eps"] == "argument"


def test_mmsegmentation_1_x(tmp_path):
    found = checkpoints.read(published.openmmlab(tmp_path / "x.pth", segmenter("light_ham", inner=False), iter=1))
    assert found.backbone.layer_norm_eps == 1e-5


OTHER_HEADS = ("neck.conv.weight", "decode_head.queries.weight", "auxiliary_head.queries.weight")


def test_heads_of_others_are_left_out_loudly_and_kept_in_their_format(tmp_path):
    state = segmenter() | {key: np.zeros((3, 4), np.float32) for key in OTHER_HEADS}
    path = published.openmmlab(tmp_path / "x.pth", state, epoch=1, CLASSES=["wall", "sky"])
    with pytest.warns(
        VanNotice, match=r"3 tensors of heads that van does not have \(auxiliary_head, decode_head, neck\)"
    ):
        model = van.load(path, num_classes=0)
    assert model.provenance["head_classes"] == ("wall", "sky")
    again = tmp_path / "again.pth"
    assert van.convert(path, again, to="mmseg").lost == ()
    assert set(checkpoints.read(again).extra) == set(OTHER_HEADS)
    assert "3 tensors that belong to no classifier" in van.convert(path, tmp_path / "y", to="van").lost[0]


# -- transformers


def hub(tmp_path, config=OFFICIAL_IN1K, *, processor=None, shards=0, state=None, **more):
    state = state or theirs(keys.TRANSFORMERS, config)
    state |= {key: np.ones(32, np.float32) for key in ("van.layernorm.weight", "van.layernorm.bias")}
    folder = tmp_path / f"hub{len(list(tmp_path.iterdir()))}"
    values = {"model_type": "van", "hidden_act": "gelu", "layer_norm_eps": 1e-6, "hidden_sizes": [8, 16, 24, 32]}
    return published.transformers(folder, state, values | more, processor=processor, shards=shards)


PROCESSOR = {
    "size": 224,
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def test_hub_folder(tmp_path):
    labels = {str(i): f"class {i}" for i in range(1000)}
    folder = hub(tmp_path, id2label=labels, layer_norm_eps=1e-3, drop_path_rate=0.2, _name_or_path="org/van-x")
    found = checkpoints.read(folder)
    assert found.config == OFFICIAL_IN1K.with_options(layer_norm_eps=1e-3, drop_path_rate=0.2)
    assert found.classes == tuple(labels.values())
    assert found.origins["layer_norm_eps"] == "metadata"
    assert found.notes == ()
    assert found.provenance["name_or_path"] == "org/van-x"


def test_hub_shards_and_bare_files(tmp_path):
    whole, parts = hub(tmp_path), hub(tmp_path, shards=3)
    arrays = checkpoints.read(whole).arrays
    for path in (parts, whole / "pytorch_model.bin"):
        found = checkpoints.read(path).arrays
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[key], arrays[key]) for key in arrays)
    (parts / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no such file.*00002-of-00003"):
        van.load(parts)
    index = parts / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    with pytest.raises(CheckpointError, match="names no weight files in its folder"):
        van.load(parts)


def test_hub_placeholders_are_no_class_names(tmp_path):
    assert checkpoints.read(hub(tmp_path, SMALL, id2label={str(i): f"LABEL_{i}" for i in range(5)})).classes is None
    found = checkpoints.read(hub(tmp_path, SMALL, id2label={"0": "cat", "1": "dog"}))
    assert found.classes is None
    assert "the file names 2 classes, its head has 5; the names are left out" in found.notes[0]


def test_hub_processor_contradicts_the_published_weights(tmp_path):
    folder = hub(tmp_path, processor=PROCESSOR)
    with pytest.warns(VanNotice, match=r"crop_pct 0\.875; these weights were trained and evaluated with mean \(0\.5"):
        assert van.load(folder).preprocess == OFFICIAL
    agreeing = PROCESSOR | {"crop_pct": 0.9, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert checkpoints.read(hub(tmp_path, processor=agreeing)).notes == ()


def test_hub_processor_of_fine_tuned_weights_counts(tmp_path):
    found = checkpoints.read(hub(tmp_path, SMALL, processor=PROCESSOR))
    assert (found.preprocess, found.origins["preprocess"]) == (IMAGENET, "metadata")
    large = PROCESSOR | {"size": {"shortest_edge": 384}, "resample": 2}
    found = checkpoints.read(hub(tmp_path, SMALL, processor=large))
    assert (found.preprocess.size, found.preprocess.resize, found.preprocess.interpolation) == (
        (384, 384),
        "squash",
        "bilinear",
    )


def test_a_folder_of_ours_that_transformers_changed(tmp_path):
    """transformers keeps unknown fields of config.json, our record among them, whatever becomes of the network."""
    folder = write(tmp_path, "transformers", checkpoint(SMALL.with_options(attention="add")))
    state = theirs(keys.TRANSFORMERS, SMALL.with_options(num_classes=2))
    (folder / "model.safetensors").unlink()
    torch.save(published.tensors(state), folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "no", "1": "yes"}, "layer_norm_eps": 1e-3}
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": [0.1, 0.2, 0.3]}))
    found = checkpoints.read(folder)
    assert found.config == SMALL.with_options(num_classes=2, layer_norm_eps=1e-3, attention="add")
    assert found.classes == ("no", "yes")
    assert found.preprocess.mean == (0.1, 0.2, 0.3)
    assert found.notes == ()


def test_hub_model_without_classifier(tmp_path):
    state = {key.removeprefix("van."): array for key, array in headless(keys.TRANSFORMERS).items()}
    torch.save(published.tensors(state), tmp_path / "x.bin")
    with pytest.warns(VanNotice, match="feature backbone"):
        assert van.load(tmp_path / "x.bin").num_classes == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model_type": "resnet"}, "says model_type 'resnet'"),
        ({"hidden_act": "relu"}, "says hidden_act 'relu'"),
        (
            {"depths": [1, 1, 1, 1]},
            r"metadata depths=\(1, 1, 1, 1\) contradicts the tensors, whose shapes say \(1, 2, 1, 1\)",
        ),
        ({"depths": [1, 1]}, "metadata cannot be used: depths has 2 entries"),
    ],
)
def test_hub_config_that_does_not_fit(tmp_path, more, message):
    with pytest.raises(CheckpointError, match=message):
        van.load(hub(tmp_path, **more))


# -- heads and options


def test_no_head_makes_a_feature_backbone_said_aloud(tmp_path):
    path = published.official(tmp_path / "x.pth.tar", headless(keys.OFFICIAL))
    with pytest.warns(VanNotice, match=r"x\.pth\.tar: the file has no head, so this is a feature backbone"):
        model = van.load(path)
    assert model.num_classes == 0
    images = torch.zeros(1, 3, 64, 64)
    assert [tuple(stage.shape) for stage in model.backbone(images)] == [
        (1, 8, 16, 16),
        (1, 16, 8, 8),
        (1, 24, 4, 4),
        (1, 32, 2, 2),
    ]
    assert model(images).shape == (1, 32)


def test_num_classes_keeps_or_renews_the_head(tmp_path):
    path = write(tmp_path, "van")
    arrays = arrays_of(SMALL)
    same = van.load(path, num_classes=5)
    assert torch.equal(same.head.weight, torch.from_numpy(arrays["head.weight"]))
    assert same.classes == CLASSES
    with pytest.warns(VanNotice, match="the file's head of 5 classes is left out; a new one of 7 classes is used"):
        other = van.load(path, num_classes=7)
    assert other.head.weight.shape == (7, 32)
    assert other.head.weight.std() > 0
    assert other.classes is None
    assert other.config.num_classes == 7
    assert not other.training
    kept = {key: value for key, value in other.state_dict().items() if not key.startswith("head.")}
    assert all(torch.equal(value, torch.from_numpy(arrays[key])) for key, value in kept.items())
    with pytest.warns(VanNotice, match="head of 5 classes is left out"):
        assert van.load(path, num_classes=0).num_classes == 0


def test_num_classes_puts_a_head_on_a_backbone(tmp_path):
    path = published.official(tmp_path / "x.pth.tar", headless(keys.OFFICIAL))
    with pytest.warns(VanNotice, match="the file has no head; a new one of 3 classes is used") as caught:
        assert van.load(path, num_classes=3).num_classes == 3
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert van.load(path, num_classes=0).num_classes == 0


def test_options_that_shapes_cannot_tell(tmp_path):
    path = write(tmp_path, "official")
    model = van.load(path, layer_norm_eps=1e-4, drop_path_rate=0.3, out_indices=(1, 3), frozen_stages=1, norm_eval=True)
    assert model.config.layer_norm_eps == model.backbone.stages[2].norm.eps == 1e-4
    assert model.backbone.channels == (16, 32)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if not re.match(r"backbone\.stages\.[01]", name)}
    assert model.backbone.stages[3].blocks[0].drop_path.rate == pytest.approx(0.3)


def test_options_that_contradict(tmp_path):
    path = write(tmp_path, "official")
    with pytest.raises(CheckpointError, match="in_chans=1 contradicts the tensors, whose shapes say 3"):
        van.load(path, in_chans=1)
    with pytest.raises(UnknownNameError, match="unknown architecture option 'layer_norm_epsilon'"):
        van.load(path, layer_norm_epsilon=1e-5)
    with pytest.raises(ConfigError, match="num_classes is -1"):
        van.load(path, num_classes=-1)
    with pytest.raises(ConfigError, match="revision='main' is for hub ids"):
        van.load(path, revision="main")


def test_gray_and_multispectral_networks(tmp_path):
    for channels, record in ((1, Preprocess(mean=(0.5,), std=(0.5,))), (4, None)):
        config = SMALL.with_options(in_chans=channels)
        found = checkpoints.read(published.official(tmp_path / "x.pth", theirs(keys.OFFICIAL, config)))
        assert found.config.in_chans == channels
        assert found.preprocess == record


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    path, before = write(tmp_path, "van"), torch.random.get_rng_state()
    van.load(path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_loaded_network_trains(tmp_path):
    model = van.load(write(tmp_path, "van")).train()
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    torch.optim.SGD(model.parameters(), 0.1).step()


def test_one_pair_of_numbers_per_file(tmp_path):
    told = van.info(write(tmp_path, "mmpretrain", checkpoint(SMALL.with_options(layer_norm_eps=1e-6))))
    assert (told.format, told.name, told.task, told.num_classes) == ("mmpretrain", "van_custom", "classification", 5)
    with torch.device("meta"):
        network = van.nn.Classifier(SMALL)
    assert told.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert told.layer_norm_eps == 1e-6
    assert "layer_norm_eps  1e-06 (from metadata)" in str(told)
    assert "5: ant, bee, cat, dog, eel" in str(told)
    assert json.loads(json.dumps(told.to_dict()))["config"]["num_classes"] == 5


def test_published_sizes_by_name(tmp_path):
    sizes = {"official_van_b0": 4105800, "hf_van_tiny": 4105800, "mmpretrain_van_tiny": 4105800}
    for name, parameters in sizes.items():
        state = {
            key: np.zeros(shape, np.int64 if key.endswith("tracked") else np.float32)
            for key, shape in entries(name).items()
        }
        told = van.info(published.written(name, tmp_path, state))
        assert (told.name, told.parameters, told.num_classes) == ("van_b0", parameters, 1000)


@pytest.mark.slow
def test_the_wide_b6(tmp_path):
    state = {
        key: torch.zeros(shape)
        for key, shape in checkpoints.layout.shapes(van.configs.backbone.VARIANTS["van_b6_480"]).items()
    }
    torch.save({keys.OFFICIAL.foreign(key): value for key, value in state.items()}, tmp_path / "x.pth")
    model = van.load(tmp_path / "x.pth")
    assert sum(parameter.numel() for parameter in model.parameters()) == 283_897_096
    assert van.info(tmp_path / "x.pth").name == "van_b6_480"


def test_namespace_is_harmless(tmp_path):
    path = published.official(tmp_path / "x.pth", theirs(keys.OFFICIAL), args=argparse.Namespace(lr=1, path=tmp_path))
    assert van.load(path).num_classes == 5
