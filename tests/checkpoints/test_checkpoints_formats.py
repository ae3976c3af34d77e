"""Every format written and read back: bit-identical tensors, equal outputs, and nothing forgiven."""

import json
import warnings
from dataclasses import replace

import numpy as np
import published
import pytest
import torch
from checkpoint_files import CLASSES, PREPROCESS, SMALL, SUFFIX, checkpoint, write

import van
from van import checkpoints
from van.checkpoints import FORMATS, keys, layout
from van.configs.backbone import VanConfig
from van.errors import CheckpointError, UnknownNameError, VanNotice
from van.images.preprocess import Preprocess

HEADLESS = "mmseg"


def quiet_load(path, **options):
    """van.load where notices are expected and beside the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VanNotice)
        return van.load(path, **options)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_reads_back(tmp_path, name):
    source = checkpoint()
    back = checkpoints.read(write(tmp_path, name, source))
    headless = name == HEADLESS
    assert back.format == name
    assert back.config == (SMALL.with_options(num_classes=0) if headless else SMALL)
    assert back.classes == (None if headless else CLASSES)
    assert back.preprocess == PREPROCESS
    assert back.provenance == source.provenance
    assert back.origins["layer_norm_eps"] == "metadata"
    for key, array in back.arrays.items():
        if not (name == "keras" and key.endswith("num_batches_tracked")):
            assert array.dtype == source.arrays[key].dtype
            assert array.tobytes() == source.arrays[key].tobytes()


def test_preprocessing_that_no_other_tool_knows_survives(tmp_path):
    squashed = Preprocess(size=(96, 160), resize="squash", interpolation="lanczos")
    for name in FORMATS:
        assert checkpoints.read(write(tmp_path, name, checkpoint(preprocess=squashed))).preprocess == squashed


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_format_converts_to_every_other(tmp_path, source, to):
    first = write(tmp_path, source)
    done = van.convert(first, tmp_path / f"out{SUFFIX.get(to, '.pth')}", to=to)
    assert done.outputs == ("features" if HEADLESS in (source, to) else "logits")
    assert done.tensors >= len(layout.shapes(SMALL)) // 2
    one, two = quiet_load(first), quiet_load(done.destination)
    images = torch.randn(2, 3, 65, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(one.forward_features(images), two.forward_features(images))
    shared = one.state_dict().keys() & two.state_dict().keys()
    skip = "num_batches_tracked" if "keras" in (source, to) else "nothing"
    assert all(torch.equal(one.state_dict()[key], two.state_dict()[key]) for key in shared if not key.endswith(skip))


def test_conversion_tells_what_is_not_carried(tmp_path):
    source = write(tmp_path, "van")
    lost = {to: " ".join(van.convert(source, tmp_path / f"x{SUFFIX.get(to, '.pth')}", to=to).lost) for to in FORMATS}
    assert lost["van"] == lost["transformers"] == lost["mmpretrain"] == ""
    assert "layer_norm_eps=1e-05: the official code assumes 1e-06" in lost["official"]
    assert "the classifier of 5 classes" in lost["mmseg"]
    assert "num_batches_tracked" in lost["keras"]


def test_conversion_notices_a_format_that_forgets(tmp_path, monkeypatch):
    source = write(tmp_path, "van")
    from van.checkpoints import official

    def forgetful(one, path):
        arrays = one.arrays | {"head.bias": one.arrays["head.bias"] + 1}
        return original(replace(one, arrays=arrays), path)

    original = official.write
    monkeypatch.setattr(official, "write", forgetful)
    with pytest.raises(CheckpointError, match=r"does not reproduce 1 tensors: head\.bias"):
        van.convert(source, tmp_path / "x.pth", to="official")
    monkeypatch.setattr(
        official, "write", lambda one, path: original(replace(one, config=SMALL.with_options(layer_norm_eps=0.1)), path)
    )
    with pytest.raises(CheckpointError, match="reads back as another network"):
        van.convert(source, tmp_path / "x.pth", to="official")


ABLATIONS = ("no_dw", "no_dw_d", "no_1x1", "add", "sigmoid", "none")


@pytest.mark.parametrize("attention", ABLATIONS)
@pytest.mark.parametrize("name", ["van", "official", "transformers"])
def test_ablations_and_kernels_survive(tmp_path, name, attention):
    config = SMALL.with_options(attention=attention, kernel_size=9, dilation=2, in_chans=1, strides=(2, 2, 1, 1))
    one = checkpoint(config, preprocess=Preprocess(mean=(0.5,), std=(0.5,)))
    assert checkpoints.read(write(tmp_path, name, one)).config == config


# -- one key too few, too many, or of another shape


def files(folder, name, change):
    """A file of a format whose arrays went through `change` after their keys became the format's own."""
    tables = {
        "official": keys.OFFICIAL,
        "mmpretrain": keys.MMPRETRAIN,
        "mmseg": keys.MMSEG,
        "transformers": keys.TRANSFORMERS,
    }
    state = {tables[name].foreign(key): array for key, array in checkpoint().arrays.items()}
    if name == "mmseg":
        state = {key: array for key, array in state.items() if not key.startswith("head.")}
    change(state)
    if name == "official":
        return published.official(folder / "x.pth.tar", state)
    if name == "transformers":
        return published.transformers(folder / "x", state, {"model_type": "van"})
    return published.openmmlab(folder / "x.pth", state, epoch=1)


VICTIMS = {
    "official": "block2.1.attn.spatial_gating_unit.conv_spatial.weight",
    "mmpretrain": "backbone.patch_embed1.projection.weight",
    "mmseg": "backbone.norm4.weight",
    "transformers": "van.encoder.stages.0.layers.0.pre_normomalization.num_batches_tracked",
}


@pytest.mark.parametrize("name", VICTIMS)
class TestStrict:
    def test_complete(self, tmp_path, name):
        quiet_load(files(tmp_path, name, lambda state: None))

    def test_dropped(self, tmp_path, name):
        path = files(tmp_path, name, lambda state: state.pop(VICTIMS[name]))
        with pytest.raises(CheckpointError, match=f"1 missing: {VICTIMS[name]}$"):
            van.load(path)

    def test_added(self, tmp_path, name):
        extra = VICTIMS[name].replace(".weight", ".gamma").replace("num_batches", "num")
        path = files(tmp_path, name, lambda state: state.update({extra: np.zeros(3, np.float32)}))
        with pytest.raises(CheckpointError, match=f"1 unexpected: {extra}$"):
            van.load(path)

    def test_misshapen(self, tmp_path, name):
        path = files(tmp_path, name, lambda state: state.update({VICTIMS[name]: state[VICTIMS[name]][None]}))
        with pytest.raises(CheckpointError, match=rf"1 of the wrong shape: {VICTIMS[name]} \(got \(1.*expected"):
            van.load(path)


def test_our_own_format_is_as_strict(tmp_path):
    from safetensors.numpy import load_file, save_file

    path = write(tmp_path, "van")
    with __import__("safetensors").safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    without = {key: array for key, array in arrays.items() if key != "backbone.stages.3.norm.bias"}
    for changed, message in (
        (without, "1 missing: backbone.stages.3.norm.bias"),
        (
            arrays | {"backbone.stages.4.norm.bias": np.zeros(3, np.float32)},
            "1 unexpected: backbone.stages.4.norm.bias",
        ),
        (arrays | {"tail.bias": np.zeros(3, np.float32)}, "1 unexpected: tail.bias"),
        (arrays | {"head.bias": np.zeros(3, np.float32)}, r"head.bias \(got \(3,\), expected \(5,\)\)|contradicts"),
    ):
        save_file(changed, path, metadata)
        with pytest.raises(CheckpointError, match=message):
            van.load(path)


def test_a_key_of_another_format_is_unexpected(tmp_path):
    path = files(
        tmp_path, "official", lambda state: state.update({"backbone.stages.0.norm.weight": np.zeros(8, np.float32)})
    )
    with pytest.raises(CheckpointError, match=r"1 unexpected: backbone\.stages\.0\.norm\.weight"):
        van.load(path)


def test_half_a_head_is_no_feature_backbone(tmp_path):
    path = files(tmp_path, "official", lambda state: state.pop("head.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing: head\.weight"):
        van.load(path)


# -- our own metadata


def test_what_is_written_beats_lineage(tmp_path):
    for name, lineage in (("official", 1e-6), ("mmpretrain", 1e-5), ("mmseg", 1e-6), ("transformers", 1e-6)):
        assert lineage != 1e-3
        one = checkpoint(SMALL.with_options(layer_norm_eps=1e-3))
        back = checkpoints.read(write(tmp_path, name, one))
        assert back.config.layer_norm_eps == 1e-3, name
        assert (
            checkpoints.read(tmp_path / write(tmp_path, name, one).name, layer_norm_eps=1e-4).config.layer_norm_eps
            == 1e-4
        )


def test_a_broken_record_is_an_error(tmp_path):
    path = tmp_path / "x.pth"
    state = {keys.OFFICIAL.foreign(key): array for key, array in checkpoint().arrays.items()}
    for record, message in (
        ("text", "van record is a str"),
        ({"config": {"embed_dim": [1]}}, "unknown architecture option 'embed_dim'"),
        ({"config": SMALL.to_dict() | {"depths": [1, 1, 1, 1]}}, "metadata depths=.* contradicts"),
        ({"config": SMALL.to_dict(), "preprocess": {"crop": 1}}, "unknown preprocessing option 'crop'"),
        ({}, "van record cannot be used: 'config'"),
    ):
        published.official(path, state, van=record)
        with pytest.raises(CheckpointError, match=message):
            van.load(path)


def test_metadata_of_safetensors_is_json_text(tmp_path):
    from safetensors import safe_open

    with safe_open(write(tmp_path, "van"), "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "van"
    assert VanConfig.from_dict(json.loads(metadata["config"])) == SMALL
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert Preprocess.from_dict(json.loads(metadata["preprocess"])) == PREPROCESS


def test_torch_files_that_we_write_need_no_allow_list(tmp_path):
    for name in ("official", "mmpretrain", "mmseg"):
        tree = torch.load(write(tmp_path, name), weights_only=True)
        assert tree["state_dict"]


def test_transformers_folder_is_what_transformers_reads(tmp_path):
    from safetensors import safe_open

    folder = write(tmp_path, "transformers")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "van"
    assert config["architectures"] == ["VanForImageClassification"]
    assert config["hidden_sizes"] == [8, 16, 24, 32]
    assert config["layer_norm_eps"] == 1e-5
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.4, 0.5, 0.6]
    assert processor["size"] == {"shortest_edge": 160}
    with safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert {"van.layernorm.weight", "van.layernorm.bias"} <= set(file.keys())


def test_half_precision_is_kept(tmp_path):
    one = checkpoint()
    half = {key: array.astype(np.float16) if array.dtype.kind == "f" else array for key, array in one.arrays.items()}
    for name in FORMATS:
        back = checkpoints.read(write(tmp_path, name, replace(one, arrays=half)))
        assert {array.dtype for array in back.arrays.values()} == {np.dtype(np.float16), np.dtype(np.int64)}


@pytest.mark.parametrize("container", ["torch", "safetensors"])
def test_bfloat16_is_widened_and_said(tmp_path, container):
    from safetensors.torch import save_file

    state = published.tensors(checkpoint().arrays)
    state = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(state, tmp_path / "x") if container == "torch" else save_file(state, tmp_path / "x")
    with pytest.warns(VanNotice, match="bfloat16 tensors were widened to float32"):
        model = van.load(tmp_path / "x")
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key].float() if value.is_floating_point() else state[key])


# -- saving a model


def test_save_keeps_what_the_model_knows(tmp_path):
    model = van.create_model("van_b0", embed_dims=(8, 16, 24, 32), num_classes=3, seed=0)
    model.classes, model.provenance = ("a", "b", "c"), {"trained": "here"}
    van.save(model, tmp_path / "x.safetensors")
    back = van.load(tmp_path / "x.safetensors")
    assert (back.classes, back.provenance) == (("a", "b", "c"), {"trained": "here"})
    assert back.preprocess == model.preprocess == Preprocess()
    assert not back.training
    assert all(parameter.requires_grad for parameter in back.parameters())
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in model.state_dict().items())


def test_save_looks_through_wrappers(tmp_path):
    model = van.create_model("van_b0", embed_dims=(8, 16, 24, 32), num_classes=3)
    for k, wrapped in enumerate((torch.nn.DataParallel(model), torch.compile(model), model.backbone)):
        van.save(wrapped, tmp_path / f"{k}.safetensors")
        assert van.info(tmp_path / f"{k}.safetensors").num_classes == (0 if k == 2 else 3)


def test_save_says_what_is_lost(tmp_path):
    model = van.create_model("van_b0", embed_dims=(8, 16, 24, 32), num_classes=3)
    with pytest.warns(VanNotice, match="mmseg cannot carry the classifier of 3 classes"):
        van.save(model, tmp_path / "x.pth", format="mmseg")
    with pytest.warns(VanNotice, match="bfloat16 tensors are written as float32"):
        van.save(model.bfloat16(), tmp_path / "x.safetensors")


def test_save_is_quiet_about_what_reads_back(tmp_path):
    model = van.create_model("van_b0", embed_dims=(8, 16, 24, 32), num_classes=3, layer_norm_eps=1e-3, attention="add")
    for name in ("official", "mmpretrain", "transformers"):  # a notice would be an error here
        van.save(model, tmp_path / name, format=name)
        assert van.load(tmp_path / name).config == model.config


def test_what_cannot_be_saved(tmp_path):
    model = van.create_model("van_b0", embed_dims=(8, 16, 24, 32), num_classes=3)
    with pytest.raises(CheckpointError, match="folded network cannot be saved"):
        van.save(van.nn.fold(model), tmp_path / "x")
    with pytest.raises(van.VanError, match="cannot save a Linear"):
        van.save(torch.nn.Linear(1, 1), tmp_path / "x")
    with pytest.raises(UnknownNameError, match="did you mean 'official'"):
        van.save(model, tmp_path / "x", format="offical")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_a_place_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "x", tmp_path / "missing" / "x"):
        with pytest.raises(CheckpointError, match="cannot write"):
            checkpoints.write(checkpoint(), place, name)
    in_the_way = tmp_path / "file" if name == "transformers" else tmp_path
    with pytest.raises(CheckpointError, match="choose another name" if name == "transformers" else "a folder is there"):
        checkpoints.write(checkpoint(), in_the_way, name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path, "official")
    before = path.read_bytes()

    def dies(tree, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(tmp_path, "official")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
