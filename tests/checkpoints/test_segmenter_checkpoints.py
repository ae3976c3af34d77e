"""Segmenters as files: the originals' checkpoints in, the same logits out, and every format they have a place in."""

import functools
import json

import numpy as np
import published
import pytest
import torch
from metadata import set_metadata
from reference_data import golden, inputs
from reference_data import state as published_state
from segmentation_reference import GOLDENS, METHODS, reference_bases, small

import van
from van import checkpoints
from van.checkpoints import head_keys, head_layout, layout
from van.checkpoints.head_keys import BASES
from van.cli import main
from van.configs.published_weights import WEIGHTS
from van.configs.segmenter import SEGMENTERS, name_of, resolve
from van.errors import CheckpointError, ConfigError, UnknownNameError, VanNotice
from van.images.preprocess import IMAGENET
from van.nn import Classifier, fold
from van.nn.hamburger import reseed_bases
from van.nn.segmenter import Segmenter

NAMES = ("wall", "sky", "tree", "road", "car")
COLORS = ((120, 120, 120), (6, 230, 230), (4, 200, 3), (140, 140, 140), (0, 102, 200))
CONFIG_0 = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
ham_kwargs = dict(SPATIAL=True, MD_S=1, MD_D=512, MD_R={rank}, TRAIN_STEPS=6, EVAL_STEPS=7, INV_T=100)
model = dict(backbone=dict(type='van_tiny'), decode_head=dict(type='LightHamHead', dropout_ratio=0.2, ham_kwargs=ham_kwargs))
"""  # noqa: E501  # as the tools write it

every_method = pytest.mark.parametrize("method", METHODS)


@functools.cache
def network(method, **options):
    return small(method, **options)


def theirs(model, *, version_1=False):
    """The state of a segmenter under mmsegmentation's keys."""
    table = head_keys.mmseg(model.config.method, version_1=version_1)
    return {table.foreign(key): value.numpy() for key, value in model.state_dict().items() if key != BASES}


def mmseg_file(path, state, **meta):
    return published.openmmlab(path, state, **{"iter": 160000, **meta})


def written(folder, method, **meta):
    return mmseg_file(folder / "x.pth", theirs(network(method)), **meta)


def same(one, two, *, but=()):
    a, b = one.state_dict(), two.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a if key not in but)


# -- the originals


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Manifest -> its checkpoint as a file, made once."""
    folder, made = tmp_path_factory.mktemp("mmseg"), {}

    def file(manifest):
        if manifest not in made:
            made[manifest] = published.openmmlab(folder / manifest, published_state(manifest), iter=160000)
        return made[manifest]

    return file


@pytest.mark.parametrize("name", GOLDENS)
def test_loaded_files_give_the_originals_logits(files, name):
    manifest, expected, eps = GOLDENS[name]
    guessed = 1e-5 if "upernet" in name else 1e-6
    model = van.load(files(manifest), **({} if eps == guessed else {"layer_norm_eps": eps}))
    assert isinstance(model, Segmenter)
    assert not model.training
    assert name_of(model.config) == expected
    assert model.config.backbone.layer_norm_eps == eps
    assert model.config.ham_rank == (SEGMENTERS[expected].ham_rank if "ham" in expected else 64)
    arrays, (tag, x) = golden(name), inputs(name)[0]
    for dtype, suffix, tolerance in ((torch.float32, "", 5e-5), (torch.float64, "64", 1e-8)):
        model.to(dtype)
        for key, bases in model.named_buffers():
            if key.endswith("bases"):
                bases.copy_(reference_bases(1, *bases.shape, dtype=dtype)[0])
        with torch.inference_mode():
            logits, auxiliary = model.decode_with_auxiliary(torch.from_numpy(x).to(dtype))
        near(logits, arrays, f"{tag}/decode", suffix, tolerance)
        assert (auxiliary is None) == (f"{tag}/aux/step" not in arrays)
        if auxiliary is not None:  # in float32 only
            near(auxiliary, arrays, f"{tag}/aux", "", 5e-5)


def near(logits, arrays, key, suffix, tolerance):
    got = logits.reshape(-1)[:: int(arrays[f"{key}/step"])]
    assert (got - torch.from_numpy(arrays[f"{key}/sample{suffix}"])).abs().max().item() <= tolerance


def test_a_published_file_comes_back_bit_for_bit(files, tmp_path):
    manifest = "mmseg_lightham_van_tiny_d256"
    there = van.convert(files(manifest), tmp_path / "x.safetensors", to="van")
    again = van.convert(there.destination, tmp_path / "x.pth", to="mmseg")
    assert (there.outputs, again.outputs, there.lost, again.lost) == ("logits", "logits", (), ())
    tree = torch.load(tmp_path / "x.pth", weights_only=True)["state_dict"]
    want = published_state(manifest)
    assert tree.keys() == want.keys()
    assert all(tree[key].numpy().tobytes() == value.tobytes() for key, value in want.items())


# -- keys and shapes


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_name_builds_and_its_shapes_are_known(name):
    with torch.device("meta"):
        model = van.create_model(name, num_classes=7)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert list(shapes.items()) == list(layout.shapes(model.config).items())
    arrays = {key: np.broadcast_to(np.zeros((), np.float32), shape) for key, shape in shapes.items()}
    found, origins = head_layout.config_of(arrays, model.config.backbone)
    assert found == model.config
    assert found.num_classes == 7
    assert origins["channels"] == "shapes"
    assert name_of(found) == name == resolve(name.upper().replace("_", "-"))
    assert (model.classes, model.palette, model.provenance) == (None, None, {})
    assert model.preprocess == IMAGENET
    assert name in van.list_models()


@every_method
@pytest.mark.parametrize("version_1", [False, True])
def test_keys_translate_both_ways(method, version_1):
    table = head_keys.mmseg(method, version_1=version_1)
    for key in network(method, auxiliary=True).state_dict():
        if key != BASES:
            assert table.foreign(key) != key
            assert table.canonical(table.foreign(key)) == key
        assert head_keys.NATIVE.canonical(key) == key
    assert table.foreign(BASES) == BASES
    assert table.canonical(BASES) is None


def test_published_rows_of_weights_have_a_network():
    for row in WEIGHTS:
        assert row.task != "segmentation" or row.model in SEGMENTERS


# -- what a file tells


@every_method
def test_loading_is_complete_and_repeats(tmp_path, method):
    model = network(method)
    path = written(tmp_path, method, CLASSES=NAMES, PALETTE=[list(color) for color in COLORS])
    first, second = van.load(path, ham_rank=4), van.load(path, ham_rank=4, drop_path_rate=0.3)
    assert not first.training
    assert same(first, model)
    assert (first.classes, first.palette, first.preprocess) == (NAMES, COLORS, IMAGENET)
    assert (first.provenance["format"], first.provenance["iter"]) == ("mmseg", 160000)
    assert second.config.backbone.drop_path_rate == 0.3
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(first(images), second(images))
        assert torch.equal(first(images), model(images)) == (method != "upernet")  # read with epsilon 1e-5
        torch.testing.assert_close(first(images), model(images), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("options", "config", "argument", "rank", "origin"),
    [
        ({"ham_channels": 256}, None, None, 16, "lineage"),
        ({"ham_channels": 32}, None, None, 64, "lineage"),
        ({"ham_channels": 256}, 24, None, 24, "metadata"),
        ({"ham_channels": 256}, 24, 8, 8, "argument"),
        ({"ham_channels": 256}, None, 8, 8, "argument"),
        ({"ham_channels": 256}, "f(3)", None, 16, "lineage"),
    ],
)
def test_the_rank_of_the_factorisation(tmp_path, options, config, argument, rank, origin):
    meta = {} if config is None else {"config": CONFIG_0.format(rank=config)}
    path = mmseg_file(tmp_path / "x.pth", theirs(network("light_ham", **options)), **meta)
    told = van.info(path, **({} if argument is None else {"ham_rank": argument}))
    assert (told.segmenter.ham_rank, told.origins["ham_rank"]) == (rank, origin)
    assert f"rank {rank} (from {origin})" in str(told)
    assert told.segmenter.drop_rate == (0.1 if config is None else 0.2)
    model = van.load(path, **({} if argument is None else {"ham_rank": argument}))
    assert tuple(model.head.hamburger.ham.bases.shape) == (options["ham_channels"], rank)


def test_names_and_colors_of_mmsegmentation_1_x(tmp_path):
    dataset = {"classes": NAMES, "palette": [list(color) for color in COLORS]}
    state = theirs(network("light_ham"), version_1=True)
    path = mmseg_file(tmp_path / "x.pth", state, dataset_meta=dataset, cfg=CONFIG_0.format(rank=4))
    model = van.load(path, layer_norm_eps=1e-6)
    assert (model.classes, model.palette) == (NAMES, COLORS)
    assert same(model, network("light_ham"))
    assert van.info(mmseg_file(tmp_path / "y.pth", state)).layer_norm_eps == 1e-5
    van.convert(path, tmp_path / "x.safetensors", to="van")
    van.convert(tmp_path / "x.safetensors", tmp_path / "z.pth", to="mmseg")  # in its own generation's keys
    again = torch.load(tmp_path / "z.pth", weights_only=True)
    assert again["state_dict"].keys() == state.keys()
    assert again["meta"]["dataset_meta"] == {"classes": list(NAMES), "palette": dataset["palette"]}


def test_names_that_do_not_fit_are_left_out_loudly(tmp_path):
    path = written(tmp_path, "semantic_fpn", CLASSES=NAMES[:3], PALETTE=[[1, 2, 3]])
    with pytest.warns(VanNotice, match="names 3 classes"), pytest.warns(VanNotice, match="colors for 1 classes"):
        model = van.load(path)
    assert (model.classes, model.palette) == (None, None)


@pytest.mark.parametrize("method", ["hamnet", "upernet"])
def test_a_file_without_its_auxiliary_head(tmp_path, method):
    state = {key: v for key, v in theirs(network(method)).items() if not key.startswith("auxiliary_head.")}
    path = mmseg_file(tmp_path / "x.pth", state)
    with pytest.warns(VanNotice, match="has no auxiliary head"):
        model = van.load(path, ham_rank=4) if method == "hamnet" else van.load(path)
    assert model.auxiliary is None
    assert not model.config.auxiliary
    van.save(model, tmp_path / "x.safetensors")
    assert van.load(tmp_path / "x.safetensors").auxiliary is None  # known by now, so nothing is said
    with pytest.raises(CheckpointError, match=r"argument auxiliary=True contradicts the tensors.*False"):
        van.load(path, auxiliary=True)


def test_our_record_does_not_bring_a_stripped_auxiliary_head_back(tmp_path):
    van.save(network("upernet"), tmp_path / "x.pth", format="mmseg")
    tree = torch.load(tmp_path / "x.pth")
    tree["state_dict"] = {key: v for key, v in tree["state_dict"].items() if not key.startswith("auxiliary_head.")}
    torch.save(tree, tmp_path / "x.pth")
    with pytest.warns(VanNotice, match="has no auxiliary head"):
        assert not van.load(tmp_path / "x.pth").config.auxiliary


def test_other_heads_are_left_out_loudly(tmp_path):
    state = {key: v for key, v in theirs(network("upernet")).items() if key.startswith("backbone.")}
    path = mmseg_file(tmp_path / "x.pth", state | {"decode_head.queries": np.zeros((3, 4), np.float32)})
    with (
        pytest.warns(VanNotice, match="1 tensors of heads that van"),
        pytest.warns(VanNotice, match="feature backbone"),
    ):
        model = van.load(path)
    assert isinstance(model, Classifier)
    assert model.provenance["head"] == "unknown"


# -- nothing is forgiven

VICTIMS = {
    "light_ham": "decode_head.hamburger.ham_out.gn.weight",
    "hamnet": "decode_head.ham_in.conv.weight",
    "upernet": "decode_head.psp_modules.2.1.bn.running_var",
    "semantic_fpn": "decode_head.scale_heads.3.4.conv.weight",
}


@every_method
@pytest.mark.parametrize("change", ["dropped", "added", "misshapen", "mistyped"])
def test_strict(tmp_path, method, change):
    victim, state = VICTIMS[method], theirs(network(method))
    message = {
        "dropped": f"1 missing: {victim}$",
        "added": r"1 unexpected: decode_head\.extra\.weight$",
        "misshapen": rf"1 of the wrong shape: {victim} \(got \(1,.*expected",
        "mistyped": rf"1 of the wrong type: {victim}",
    }[change]
    if change == "dropped":
        del state[victim]
    elif change == "added":
        state["decode_head.extra.weight"] = np.zeros(3, np.float32)
    else:
        state[victim] = state[victim][None] if change == "misshapen" else state[victim].astype(np.int64)
    with pytest.raises(CheckpointError, match=message):
        van.load(mmseg_file(tmp_path / "x.pth", state))


def test_heads_of_two_methods_do_not_mix(tmp_path):
    state = theirs(network("upernet")) | {"decode_head.scale_heads.0.0.conv.weight": np.zeros((3, 4), np.float32)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: decode_head\.scale_heads\.0\.0\.conv\.weight"):
        van.load(mmseg_file(tmp_path / "x.pth", state))


def test_arguments_are_checked(tmp_path):
    path = written(tmp_path, "light_ham")
    with pytest.raises(CheckpointError, match="channels=64 contradicts the tensors, which say 32"):
        van.load(path, channels=64)
    with pytest.raises(UnknownNameError, match="ham_rnk"):
        van.load(path, ham_rnk=3)
    with pytest.raises(ConfigError, match="num_classes is 0"):
        van.load(path, num_classes=0)
    with pytest.raises(CheckpointError, match="leave ema out"):
        van.load(path, ema=True)
    van.save(network("light_ham"), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="ham_rank=8 contradicts the tensors, which say 4"):
        van.load(tmp_path / "x.safetensors", ham_rank=8)


# -- other widths, and the backbone alone


def test_another_number_of_classes(tmp_path):
    path = written(tmp_path, "upernet", CLASSES=NAMES, PALETTE=COLORS)
    with pytest.warns(VanNotice, match="pixel classifiers of 5 classes are left out; a new one of 3"):
        model = van.load(path, num_classes=3)
    assert (model.num_classes, model.classes, model.palette) == (3, None, None)
    logits, auxiliary = model.decode_with_auxiliary(torch.randn(1, 3, 64, 64))
    assert logits.shape[1] == auxiliary.shape[1] == 3
    fresh = ("head.classify.conv", "auxiliary.classify.conv")
    want = network("upernet").state_dict()
    assert all(torch.equal(v, want[key]) for key, v in model.state_dict().items() if not key.startswith(fresh))
    assert van.load(path, num_classes=5).classes == NAMES
    done = van.convert(path, tmp_path / "x.safetensors", to="van", num_classes=3)
    assert "new one of 3" in done.notes[0]
    assert van.load(done.destination).num_classes == 3


def test_the_backbone_alone(tmp_path):
    path = written(tmp_path, "hamnet")
    with (
        pytest.warns(VanNotice, match="tensors of the hamnet head left out"),
        pytest.warns(VanNotice, match="a new one of"),
    ):
        model = van.load(path, backbone_only=True, num_classes=4)
    assert isinstance(model, Classifier)
    assert model.num_classes == 4
    assert model.config.strides == (4, 2, 1, 1)
    want = network("hamnet").backbone.state_dict()
    assert all(torch.equal(v, want[key]) for key, v in model.backbone.state_dict().items())
    done = van.convert(path, tmp_path / "x.pth.tar", to="official", backbone_only=True)
    assert done.outputs == "features"


# -- writing


@every_method
@pytest.mark.parametrize("to", ["van", "mmseg"])
def test_saved_and_loaded_it_is_the_same(tmp_path, method, to):
    model = small(method, drop_path_rate=0.2, layer_norm_eps=3e-6)
    set_metadata(model, classes=NAMES, palette=COLORS, preprocess=IMAGENET, provenance={"trained": "here"})
    van.save(model, tmp_path / "x", format=to)
    back = van.load(tmp_path / "x")
    assert same(back, model)
    assert back.config == model.config
    assert (back.classes, back.palette, back.preprocess) == (NAMES, COLORS, IMAGENET)
    assert back.provenance == {"trained": "here"}
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(back(images), model(images))


def test_bases_stay_in_our_files_and_out_of_mmsegs(tmp_path):
    model = small("light_ham")
    usual = model.head.hamburger.ham.bases.clone()
    reseed_bases(model, 3)
    van.save(model, tmp_path / "x.safetensors")
    assert torch.equal(van.load(tmp_path / "x.safetensors").head.hamburger.ham.bases, model.head.hamburger.ham.bases)
    with pytest.warns(VanNotice, match="mmseg cannot carry the bases of the Hamburger"):
        van.save(model, tmp_path / "x.pth", format="mmseg")
    assert not [key for key in torch.load(tmp_path / "x.pth")["state_dict"] if "bases" in key]
    assert torch.equal(van.load(tmp_path / "x.pth").head.hamburger.ham.bases, usual)
    assert "bases" in van.convert(tmp_path / "x.safetensors", tmp_path / "y.pth", to="mmseg").lost[0]
    van.convert(tmp_path / "x.pth", tmp_path / "y.safetensors", to="van")
    with __import__("safetensors").safe_open(tmp_path / "y.safetensors", "np") as file:
        assert file.get_tensor(BASES).tobytes() == usual.numpy().tobytes()


def test_a_file_of_ours_without_bases_gets_the_seeded_ones(tmp_path):
    state = {key: value for key, value in network("hamnet").state_dict().items() if key != BASES}
    torch.save(state, tmp_path / "x.pt")
    model = van.load(tmp_path / "x.pt", ham_rank=4, strides=(4, 2, 1, 1))
    assert same(model, network("hamnet"))
    assert model.preprocess == IMAGENET


def test_broadcast_bases_are_saved(tmp_path):
    model = small("light_ham")
    model.head.hamburger.ham.bases = model.head.hamburger.ham.bases[None].clone()
    van.save(model, tmp_path / "x.safetensors")
    assert tuple(van.load(tmp_path / "x.safetensors").head.hamburger.ham.bases.shape) == (32, 4)


@pytest.mark.parametrize("to", ["official", "mmpretrain", "transformers", "keras", "tfvan", "paddle", "flax"])
def test_formats_without_a_place_for_heads(tmp_path, to):
    with pytest.raises(CheckpointError, match=f"the format {to} can hold only the backbone .*; use van or mmseg"):
        van.save(network("upernet"), tmp_path / "x", format=to)
    assert not list(tmp_path.iterdir())


def test_conversion_notices_wrong_heads(tmp_path, monkeypatch):
    from dataclasses import replace

    from van.checkpoints import native

    original = native.write

    def forgetful(one, path):
        key = "head.classify.conv.bias"
        return original(replace(one, arrays=one.arrays | {key: one.arrays[key] + 1}), path)

    monkeypatch.setattr(native, "write", forgetful)
    with pytest.raises(CheckpointError, match=r"does not reproduce 1 tensors: head\.classify\.conv\.bias"):
        van.convert(written(tmp_path, "upernet"), tmp_path / "x.safetensors", to="van")


def test_folded_segmenters_are_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="folded network cannot be saved"):
        van.save(fold(network("upernet")), tmp_path / "x")


def test_optimize_keeps_the_attributes(tmp_path):
    path = written(tmp_path, "semantic_fpn", CLASSES=NAMES, PALETTE=COLORS)
    model = van.load(path)
    fast = van.optimize(model)
    assert (fast.classes, fast.palette, fast.preprocess) == (NAMES, COLORS, IMAGENET)
    assert fast.provenance == model.provenance


# -- names


def test_create_model_takes_options_of_both_kinds_and_a_seed():
    options = {"ham_rank": 8, "embed_dims": (8, 16, 24, 32), "drop_path_rate": 0.2, "num_classes": 3}
    one, two = (van.create_model("light-ham-van-tiny-d256", seed=5, **options) for _ in range(2))
    assert same(one, two)
    assert not same(one, van.create_model("light_ham_van_b0_d256", seed=6, **options))
    assert one.training
    assert (one.config.ham_rank, one.config.backbone.drop_path_rate, one.num_classes) == (8, 0.2, 3)
    with pytest.raises(UnknownNameError, match="did you mean 'light_ham_van_b4'"):
        van.create_model("light_ham_vam_b4")
    with pytest.raises(UnknownNameError, match="ham_rnk"):
        van.create_model("light_ham_van_b0", ham_rnk=8)


def test_lists_show_aliases_only_where_nothing_else_matches():
    assert van.list_models("van_b*") == [*(f"van_b{i}" for i in range(7)), "van_b6_480"]
    assert van.list_models("hamnet*") == [f"hamnet_van_b{i}" for i in range(4)]
    assert van.list_models("*van_tiny") == ["van_tiny", *(f"{method}_van_tiny" for method in METHODS)]
    assert van.list_models("resnet*") == []


def test_info_on_files(tmp_path, capsys):
    path = written(tmp_path, "hamnet", CLASSES=NAMES)
    told = van.info(path, ham_rank=4)
    assert (told.task, told.num_classes, told.classes, told.name) == ("segmentation", 5, NAMES, "hamnet_van_custom")
    assert told.parameters == sum(p.numel() for p in network("hamnet").parameters())
    assert told.segmenter == network("hamnet").config.with_options(neck_channels=256, drop_path_rate=0.0)
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["segmenter"]["method"] == "hamnet"
    assert checkpoints.read(path).config.ham_rank == 64


def test_info_on_names(capsys):
    assert main(["info", "light_ham_van_b1", "--size", "512"]) == 0
    out = capsys.readouterr().out
    assert "14,707,286" in out
    assert "14.7 M" in out
    assert "21.357 G" in out
    assert "21.4 G" in out
    assert main(["info", "upernet-van-base", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["size"], told["published"][1]["giga"]) == ("upernet_van_b2", [512, 512], "948")
    assert main(["info", "light_ham_van_b9"]) == 2
    assert "did you mean 'light_ham_van_b" in capsys.readouterr().err
    assert main(["info", "upernet_van_b0", "--ablations"]) == 2
