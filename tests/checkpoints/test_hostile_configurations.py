"""Wrong types and absurd numbers in every configuration: one line, before anything is built."""

import contextlib
import json
import shutil
from functools import partial

import h5py
import numpy as np
import published
import pytest
import torch
from checkpoint_files import theirs
from mutations import check
from networks import lived_in, tiny
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import van
from van import checkpoints
from van.checkpoints import checked, keys
from van.cli import main
from van.configs.backbone import VanConfig
from van.data.index import Folder, list_classes
from van.errors import CheckpointError, ConfigError, VanNotice
from van.files import parse_json
from van.images.preprocess import Preprocess
from van.inference.description import Description
from van.tasks.segmentation.views import Inference

pytestmark = pytest.mark.promise("configurations")

ABSURD = ("x", "", None, True, -1, 0, 1.5, 10**9, 10**30, float("nan"), float("inf"), 1e308, [], {}, ["x"], "\0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    model = tiny().eval()
    model.classes, model.preprocess = tuple("abcde"), Preprocess(size=32)
    van.save(model, folder / "van.safetensors")
    van.save(model, folder / "hub", format="transformers")
    van.save(model, folder / "keras.weights.h5", format="keras")
    return folder


def with_record(whole, path, **changed):
    with safe_open(whole / "van.safetensors", "np") as file:
        metadata = file.metadata()
    save_file(load_file(whole / "van.safetensors"), path, metadata | changed)
    return path


@pytest.mark.parametrize("field", VanConfig().to_dict())
def test_fields_of_our_record(whole, tmp_path, field):
    config = tiny().config.to_dict()
    for value in ABSURD:
        path = with_record(whole, tmp_path / "x.safetensors", config=json.dumps(config | {field: value}))
        check(partial(van.load, path), f"{field}={value!r}")
        listed = [value, *config[field][1:]] if isinstance(config[field], list) and config[field] else [value]
        path = with_record(whole, tmp_path / "x.safetensors", config=json.dumps(config | {field: listed}))
        check(partial(van.load, path), f"{field}={listed!r}")


@pytest.mark.parametrize("field", ["depths", "embed_dims", "num_classes", "mlp_ratios", "in_chans", "patch_sizes"])
def test_sizes_are_those_of_the_tensors(whole, tmp_path, field):
    config = tiny().config.to_dict()
    huge = [10**6] * 4 if isinstance(config[field], list) else 10**6
    path = with_record(whole, tmp_path / "x.safetensors", config=json.dumps(config | {field: huge}))
    with pytest.raises(CheckpointError, match=f"{field}.*(contradicts the tensors|beyond what a network)"):
        van.load(path)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("classes", {"a": 1}, "class names are a dict"),
        ("classes", [["a"]] * 5, "a class name is a list"),
        ("classes", ["a" * 10**6] * 5, "1,000,000 characters"),
        ("provenance", [1], "provenance is a list"),
        ("provenance", {"split": 3}, "a int as split"),
        ("provenance", {"split": {"seed": "x"}}, "the seed 'x'"),
        ("provenance", {"split": {"val_fraction": float("nan")}}, "val_fraction nan"),
        ("provenance", {"inference": ["x"]}, "a list as inference"),
        ("preprocess", {"size": 10**9}, "gigabytes"),
        ("preprocess", {"crop_pct": 1e-300}, "gigabytes"),
        ("preprocess", {"crop_pct": 10**400}, "crop_pct is 1000"),
        ("preprocess", {"std": [1e-308] * 3}, "no image has such statistics"),
        ("preprocess", {"mean": [1e308] * 3}, "no image has such statistics"),
        ("preprocess", {"interpolation": ["x"]}, "unknown interpolation"),
        ("preprocess", 3, "van record cannot be used|truncated"),
    ],
)
def test_the_rest_of_our_record(whole, tmp_path, part, value, says):
    text = json.dumps(value) if value != {"crop_pct": 10**400} else '{"crop_pct": 1' + "0" * 400 + "}"
    with pytest.raises(CheckpointError, match=says):
        van.load(with_record(whole, tmp_path / "x.safetensors", **{part: text}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 10**5, "nested too deeply"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "'a' stands there twice"),
        ("[1" + "0" * 5000 + "]", "4300 digits"),
        ("[1e999]", "beyond what a float holds"),
        ('["\\ud800"]', "surrogates not allowed"),
        ("\0", "Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_json_that_python_cannot_read(whole, tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        parse_json(text)
    shutil.copytree(whole / "hub", tmp_path / "hub")
    (tmp_path / "hub" / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON") as error:
        van.load(tmp_path / "hub")
    assert "\n" not in str(error.value)


def test_nan_and_infinity_stay_what_python_wrote():
    assert str(parse_json("[NaN, Infinity, -Infinity]")) == "[nan, inf, -inf]"


FIELDS = ("hidden_sizes", "depths", "mlp_ratios", "patch_sizes", "strides", "num_channels", "layer_norm_eps", "id2label",  # noqa: E501
          "dropout_rate", "drop_path_rate", "layer_scale_init_value", "kernel_size", "dilation", "attention", "van",
          "model_type", "hidden_act", "_name_or_path")  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_config_json(whole, tmp_path, field):
    shutil.copytree(whole / "hub", tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    for value in (*ABSURD, [10**9] * 4, [-1] * 4, ["x"] * 4, [None] * 4, [1e308] * 4, {"0": ["a"]}):
        (tmp_path / "hub" / "config.json").write_text(json.dumps(config | {field: value}))
        check(partial(van.load, tmp_path / "hub"), f"{field}={value!r}")


def test_fields_of_preprocessor_config_json(whole, tmp_path):
    shutil.copytree(whole / "hub", tmp_path / "hub")
    file = tmp_path / "hub" / "preprocessor_config.json"
    config = json.loads(file.read_text())
    for field in ("size", "crop_pct", "resample", "image_mean", "image_std"):
        for value in (*ABSURD, {"shortest_edge": 10**12}, ["x"] * 3, [1e308] * 3):
            file.write_text(json.dumps(config | {field: value}))
            check(partial(van.load, tmp_path / "hub"), f"{field}={value!r}")


@pytest.mark.parametrize("value", [*ABSURD, {"a": "../x"}, {"a": ""}, {"a": 3}, {"a": "\0"}, {"a": "model"}])
def test_the_index_of_a_model_in_parts(whole, tmp_path, value):
    shutil.copytree(whole / "hub", tmp_path / "hub")
    (tmp_path / "hub" / "model.safetensors").rename(tmp_path / "hub" / "a")
    for content in ({"weight_map": value}, value):
        (tmp_path / "hub" / "model.safetensors.index.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError):
            van.load(tmp_path / "hub")


@pytest.mark.parametrize("value", [*ABSURD, 2**63, 10**4000])
def test_counters_of_a_keras_file(whole, tmp_path, value):
    path = tmp_path / "x.weights.h5"
    shutil.copy(whole / "keras.weights.h5", path)
    with h5py.File(path, "a") as file:
        record = json.loads(file.attrs["van"])
        key = "backbone.stages.0.patch_embed.norm.num_batches_tracked"
        file.attrs["van"] = json.dumps(record | {"counters": {key: value}})
    good = type(value) is int and 0 <= value < 2**63
    if good:
        assert checkpoints.read(path).arrays[key] == value
    else:
        with pytest.raises(CheckpointError, match="its counter"):
            van.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "block1.999999999.norm1.weight",
        "block999999999.0.norm1.weight",
        f"block1.{'9' * 5000}.norm1.weight",
        "\0",
        "\x1b",
    ],
)
def test_keys_that_name_a_billion_blocks(tmp_path, name):
    state = published.tensors(theirs(keys.OFFICIAL)) | {name: torch.zeros(8)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"stage|unexpected|digits") as error:
        van.load(tmp_path / "x.pth")
    assert len(str(error.value)) < 3000


def test_control_characters_in_class_names_stay_and_reach_no_terminal(tmp_path, capsys):
    model, names = tiny().eval(), ("a\r", "b\0", "c\x1b[2J", "d\udce9", "é")
    model.classes = names
    van.save(model, tmp_path / "x.safetensors")
    assert van.load(tmp_path / "x.safetensors").classes == names  # as their folders are called
    assert main(["info", str(tmp_path / "x.safetensors")]) == 0
    assert not set("\r\0\x1b\udce9") & set(capsys.readouterr().out)


def test_ranks_and_windows_of_a_segmenter(tmp_path):
    slim = {"embed_dims": (8,) * 4, "depths": (1,) * 4, "channels": 32, "ham_channels": 32, "ham_rank": 4}
    model = lived_in(van.create_model("light_ham_van_b0", num_classes=3, **slim)).eval()
    for field, value in (("resize", [10**9, 10**9]), ("window", "x"), ("stride", -1), ("resize", 3), ("window", 1e308)):
        model.provenance = {"inference": {field: value}}
        van.save(model, tmp_path / "x.safetensors")
        check(partial(predicted, tmp_path / "x.safetensors"), f"{field}={value}")
    for field in ("ham_rank", "neck_channels", "auxiliary_channels", "channels", "drop_rate", "method", "auxiliary"):
        for value in ABSURD:
            van.save(model, tmp_path / "x.safetensors")
            segmenter = model.config.to_dict() | {field: value}
            segmenter.pop("backbone")
            path = tmp_path / "y.safetensors"
            with safe_open(tmp_path / "x.safetensors", "np") as file:
                metadata = file.metadata() | {"segmenter": json.dumps(segmenter)}
            arrays = load_file(tmp_path / "x.safetensors")
            arrays.pop("head.hamburger.ham.bases")
            save_file(arrays, path, metadata)
            check(partial(van.load, path), f"{field}={value!r}")


@pytest.mark.parametrize("options", [{"depths": (10**9,) * 4}, {"layer_norm_eps": "x"}, {"strides": (float("nan"),) * 4},  # noqa: E501
                                     {"embed_dims": 5}, {"norm_eval": 1}, {"attention": 3}, {"kernel_size": 1e300}])  # fmt: skip  # noqa: E501
def test_impossible_options_of_a_caller_are_errors_of_options(options):
    with pytest.raises(ConfigError):
        van.create_model("van_b0", **options)


@pytest.mark.parametrize("options", [{"resize": "x"}, {"resize": (10**9, 10**9)}, {"scales": ("x",)}, {"window": 1.5},
                                     {"stride": "x", "window": 5}, {"mean": "abc"}, {"scales": (1e300,)}])  # fmt: skip
def test_impossible_ways_to_look_at_a_picture(options):
    with pytest.raises(ConfigError):
        Inference(**options)


def described(values):
    return Description.from_json(json.dumps(values), "x").rows()


def predicted(path):
    return van.Predictor(path)(np.zeros((40, 40, 3), np.uint8))


def test_descriptions_of_exported_files(tmp_path):
    good = Description(config=tiny().config).to_dict()
    assert Description.from_json(json.dumps(good), "x").num_classes == 5
    for field in good:
        for value in ABSURD:
            check(partial(described, good | {field: value}), f"{field}={value!r}")
    for value in ABSURD:
        check(partial(described, value), repr(value))


def test_an_index_of_images_leads_nowhere_else(tmp_path):
    import hashlib
    import os

    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "index").mkdir()
    root = tmp_path / "data"
    listing = lambda name: [Folder(name, -1, ())]  # noqa: E731
    list_classes(root, ["a"], listing, index=tmp_path / "index")
    (file,) = (tmp_path / "index").iterdir()
    head = json.loads(file.read_bytes().partition(b"\n")[0])
    for rows in (*ABSURD, {"a": [["../../etc", 1, 0, [0, ""]]]}, {"a": [["/etc", 1, 0, [0, ""]]]}, {"a": [["a", 1, -1, [0, ""]]]},  # noqa: E501
                 {"a": [["a", "x", 0, [0, ""]]]}, {"a": [["a\0", 1, 0, [0, ""]]]}):  # fmt: skip
        body = json.dumps(rows).encode() + b"\n"
        head["digest"] = hashlib.blake2b(body).hexdigest()
        file.write_bytes(json.dumps(head).encode() + b"\n" + body)
        with pytest.warns(VanNotice, match="is damaged") if rows != {} else contextlib.nullcontext():
            assert list_classes(root, ["a"], listing, index=tmp_path / "index") == {"a": [Folder("a", -1, ())]}
    file.unlink()
    os.mkfifo(file)
    list_classes(root, ["a"], listing, index=tmp_path / "index")  # which writes it again


def test_what_no_file_can_say(tmp_path):
    with pytest.raises(CheckpointError, match="expected strings and numbers"):
        checked.provenance({"x": np.zeros(3)})
    with pytest.raises(CheckpointError, match="levels"):
        checked.provenance({"x": [[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]})
    assert checked.colors([(1, 2, 300)]) is None
    assert checked.colors([(float("inf"), 0, 0)]) is None
