"""Files of the ports to other frameworks: what a port computed on its own file, its keys both ways, damage, safety.

The outputs in tests/support/ports are those of the ports' own code, on files that it wrote. `-m slow` runs that code
again, where an environment variable gives the Python in which it is installed (see each `write_*.py` there):

    VAN_TFVAN_PYTHON, VAN_PADDLE_PYTHON, VAN_FLAX_PYTHON, VAN_MMSEG_PYTHON and VAN_MMSEG_CLONE
"""

import json
import os
import pickle
import struct
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import port_files
import pytest
import torch
from checkpoint_files import CLASSES, PREPROCESS, SMALL, arrays_of, checkpoint
from ports import filled

import van
from van import checkpoints
from van.checkpoints import flax, head_keys, keys, layout, msgpack, paddle, pickled_arrays, tfvan
from van.cli import main
from van.configs.backbone import VARIANTS
from van.errors import CheckpointError, UnsafeFileError, VanNotice

h5py = pytest.importorskip("h5py")

CLASSIFIERS = ("tfvan", "paddle", "flax")
TABLES = {
    "tfvan": tfvan.TFVAN,
    "paddle": paddle.PADDLE,
    "flax": flax.FLAX,
    "mmseg_backbone": keys.ONE_LEVEL,
    "mmseg_upernet": head_keys.mmseg("upernet", version_1=True),
    "mmseg_fpn": head_keys.mmseg("semantic_fpn", version_1=True),
}
LAYOUTS = {
    "tfvan": "tfvan, the second Keras port (Keras 2's .h5)",
    "paddle": "PaddleClas (PaddlePaddle's .pdparams)",
    "flax": "jax-models, the Flax port (MessagePack .weights)",
    "mmseg_backbone": "mmsegmentation 1.x projects/van, a backbone file",
    "mmseg_upernet": "mmsegmentation 1.x projects/van",
    "mmseg_fpn": "mmsegmentation 1.x projects/van",
}
EPSILONS = {"tfvan": 1.001e-5, "paddle": 1e-6, "flax": 1e-6}
every_case = pytest.mark.parametrize("case", port_files.CASES)
every_classifier = pytest.mark.parametrize("case", CLASSIFIERS)


def load(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VanNotice)
        return van.load(path, **options).eval()


def computed(model):
    """The outputs that the ports' programs keep."""
    images = torch.from_numpy(filled.pictures())
    with torch.inference_mode():
        if hasattr(model, "decode"):
            return {"logits": model.decode(images).numpy()}
        maps = getattr(model, "backbone", model)(images)
        found = {f"stage{i}": each.numpy() for i, each in enumerate(maps, 1)}
        return found | ({"logits": model.forward_head(maps[-1]).numpy()} if model.num_classes else {})


def far(got, want):
    """The largest difference between the outputs that a golden holds, tanh apart, and those that were computed."""
    return max(float(np.abs(got[name] - want[name]).max()) for name in want if name != "logits_tanh")


# -- what the ports computed


@every_case
def test_a_file_computes_what_the_port_computed(tmp_path, case):
    assert far(computed(load(port_files.write(tmp_path, case, port_files.state(case)))), filled.golden(case)) <= 1e-5


@pytest.mark.parametrize("case", [case for case in port_files.CASES if case != "tfvan"])
def test_epsilons_are_the_ports(tmp_path, case):
    model = load(port_files.write(tmp_path, case, port_files.state(case, "eps")))
    assert far(computed(model), filled.golden(f"{case}_eps")) <= 1e-5


def test_epsilons_of_tfvan_are_its_own_but_for_batch_norms(tmp_path):
    model, want = (
        load(port_files.write(tmp_path, "tfvan", port_files.state("tfvan", "eps"))),
        filled.golden("tfvan_eps"),
    )
    assert 1e-5 < far(computed(model), want) <= 1e-3  # variances of 1e-5, which no trained network has
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_var += 1.001e-5 - norm.eps
    assert far(computed(model), want) <= 1e-5


def test_flax_approximates_gelu_and_the_file_says_so(tmp_path):
    path = port_files.write(tmp_path, "flax", port_files.state("flax"))
    want = filled.golden("flax")
    assert 1e-4 < np.abs(want["logits"] - want["logits_tanh"]).max() < 1e-3
    assert any("tanh approximation" in note for note in van.info(path).notes)


@every_case
def test_info_names_the_lineage(tmp_path, case, capsys):
    path = port_files.write(tmp_path, case, port_files.state(case))
    assert main(["info", str(path)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip())
    assert rows["format"] == case.split("_")[0]
    assert rows["layout"] == LAYOUTS[case]
    assert rows["layer_norm_eps"] == f"{EPSILONS.get(case, 1e-5):g} (from lineage)"
    found = van.info(path)
    assert found.config.depths == filled.SIZES["depths"]
    assert found.num_classes == (0 if case == "mmseg_backbone" else filled.CLASSES)


# -- keys


@every_case
def test_every_key_is_translated_and_back(case):
    entries, table = filled.manifest(case)["entries"], TABLES[case]
    ours = {table.canonical(key.removesuffix(":0")): key.removesuffix(":0") for key in entries}
    assert None not in ours
    assert len(ours) == len(entries)
    assert [table.foreign(key) for key in ours] == [*ours.values()]


@every_classifier
@pytest.mark.parametrize("name", VARIANTS)
def test_every_key_of_every_variant_has_one_name(case, name):
    table, ours = TABLES[case], [k for k in layout.shapes(VARIANTS[name]) if not k.endswith("num_batches_tracked")]
    theirs = [table.foreign(key) for key in ours]
    assert len({*theirs}) == len(theirs)
    assert [table.canonical(key) for key in theirs] == ours


NO_KEYS = {
    "tfvan": ["block1.0/norm1/weight", "block1/0/norm1/gamma", "head/gamma", "block1.0/attn/proj_1/depthwise_kernel"],
    "paddle": ["block1.0.norm1.running_mean", "block1.0.norm1.num_batches_tracked", "block1/0/norm1/_mean"],
    "flax": ["params/block10/norm1/mean", "batch_stats/block10/norm1/scale", "params/block1.0/norm1/scale"],
}


@every_classifier
def test_a_key_of_another_port_is_none(case):
    assert [TABLES[case].canonical(key) for key in NO_KEYS[case]] == [None] * len(NO_KEYS[case])


VICTIMS = {
    "tfvan": "block3.10/attn/spatial_gating_unit/conv_spatial/depthwise_kernel:0",
    "paddle": "block3.10.norm1._variance",
    "flax": "params/block310/mlp/dwconv/kernel",
    "mmseg_backbone": "block3.10.mlp.dwconv.weight",
    "mmseg_upernet": "backbone.block3.10.mlp.dwconv.bias",
    "mmseg_fpn": "neck.fpn_convs.0.conv.weight",
}
ADDED = {
    "tfvan": "block3.10/attn/gate/kernel:0",
    "paddle": "block3.10.norm3.weight",
    "flax": "params/block310/mlp/fc3/kernel",
    "mmseg_backbone": "block3.10.mlp.dwconv.gamma",
    "mmseg_upernet": "backbone.block3.10.mlp.fc3.bias",
    "mmseg_fpn": "neck.fpn_convs.0.conv.gamma",
}


@every_case
class TestStrict:
    def test_dropped(self, tmp_path, case):
        state = port_files.state(case)
        del state[VICTIMS[case]]
        path = port_files.write(tmp_path, case, state)
        with pytest.raises(CheckpointError, match=f"1 missing: {VICTIMS[case].removesuffix(':0')}$"):
            van.load(path)

    def test_added(self, tmp_path, case):
        state = port_files.state(case) | {ADDED[case]: np.zeros(3, np.float32)}
        path = port_files.write(tmp_path, case, state)
        with pytest.raises(CheckpointError, match=f"1 unexpected: {ADDED[case].removesuffix(':0')}$"):
            van.load(path)

    def test_misshapen(self, tmp_path, case):
        state = port_files.state(case)
        state[VICTIMS[case]] = state[VICTIMS[case]][..., None]
        path = port_files.write(tmp_path, case, state)
        with pytest.raises(CheckpointError, match=f"1 of the wrong shape: {VICTIMS[case].removesuffix(':0')} "):
            van.load(path)

    def test_averaged_weights_are_refused(self, tmp_path, case):
        with pytest.raises(CheckpointError, match="leave ema out"):
            van.load(port_files.write(tmp_path, case, port_files.state(case)), ema=True)


@every_classifier
def test_half_a_head_is_no_feature_backbone(tmp_path, case):
    state = port_files.state(case)
    bias = next(key for key in state if "head" in key and "bias" in key)
    del state[bias]
    with pytest.raises(CheckpointError, match=f"1 missing: {bias.removesuffix(':0')}$"):
        van.load(port_files.write(tmp_path, case, state))


@every_classifier
def test_a_file_without_a_head_is_a_feature_backbone(tmp_path, case):
    state = {key: array for key, array in port_files.state(case).items() if "head" not in key}
    assert load(port_files.write(tmp_path, case, state)).num_classes == 0


# -- written again


def weights_by_layer(file):
    text = lambda name: name.decode() if isinstance(name, bytes) else str(name)  # noqa: E731
    layers = [text(name) for name in file.attrs["layer_names"]]
    return {layer: [text(name) for name in file[layer].attrs["weight_names"]] for layer in layers}


def raw(path, case):
    """The arrays of a file under the port's keys, as its framework would find them."""
    if case == "tfvan":
        with h5py.File(path) as file:
            layers = weights_by_layer(file)
            return {name: file[f"{layer}/{name}"][()] for layer, names in layers.items() for name in names}
    if case == "paddle":
        tree = pickle.loads(path.read_bytes())
        assert tree.pop("StructuredToParameterName@@").keys() == tree.keys() - {"van"}
        return {key: array for key, array in tree.items() if key != "van"}
    if case == "flax":
        return {key: array for key, array in flax._flat(msgpack.read(path.read_bytes())[0]).items() if key != "van"}
    return {key: value.numpy() for key, value in torch.load(path)["state_dict"].items()}


@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@every_case
def test_a_file_is_written_again_bit_for_bit(tmp_path, case):
    state = port_files.state(case)
    path = port_files.write(tmp_path, case, state)
    again = tmp_path / f"again{path.suffix}"
    van.convert(path, tmp_path / "ours.safetensors", to="van")
    van.convert(tmp_path / "ours.safetensors", again, to=case.split("_")[0])
    found = raw(again, case)
    assert found.keys() == state.keys()
    for key, array in state.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), key
        assert found[key].tobytes() == array.tobytes(), key


def test_layers_and_weights_are_in_the_order_in_which_keras_assigns_them(tmp_path):
    checkpoints.write(
        checkpoints.read(port_files.write(tmp_path, "tfvan", port_files.state("tfvan"))), tmp_path / "w.h5", "tfvan"
    )
    with h5py.File(tmp_path / "w.h5") as file:
        found = weights_by_layer(file)
        assert "top_level_model_weights" in file
    want = filled.manifest("tfvan")["layers"]
    assert [*found] == [*want]
    assert found == want


@every_classifier
def test_counters_names_and_preprocessing_travel_with_the_file(tmp_path, case):
    source = checkpoint(config=SMALL)
    path = tmp_path / f"x{port_files.SUFFIX[case]}"
    lost = checkpoints.write(source, path, case)
    assert any("counters" in each for each in lost)
    back = checkpoints.read(path)
    assert (back.format, back.classes, back.preprocess) == (case, CLASSES, PREPROCESS)
    assert back.provenance == source.provenance
    assert back.notes == ()
    assert {key: int(array) for key, array in back.arrays.items() if key.endswith("tracked")} == {
        key: 7 for key in source.arrays if key.endswith("tracked")
    }


@every_classifier
def test_a_broken_record_is_an_error(tmp_path, case):
    if case == "tfvan":
        path = port_files.write(tmp_path, case, port_files.state(case))
        with h5py.File(path, "a") as file:
            file.attrs["van"] = "{"
    else:
        path = port_files.write(tmp_path, case, port_files.state(case), van="{")
    with pytest.raises(CheckpointError, match="entry 'van' is not valid JSON"):
        van.load(path)


@every_classifier
def test_a_name_that_the_port_does_not_load_is_said(tmp_path, case):
    assert any("the name x.bin" in each for each in checkpoints.write(checkpoint(), tmp_path / "x.bin", case))


def test_flax_has_names_for_nine_stages(tmp_path):
    config = SMALL.with_options(
        embed_dims=(4,) * 10, depths=(1,) * 10, mlp_ratios=(1,) * 10, patch_sizes=(3,) * 10, strides=(1,) * 10
    )
    one = replace(checkpoint(), config=config, arrays=arrays_of(config))
    with pytest.raises(CheckpointError, match="at most 9 stages, the network has 10"):
        checkpoints.write(one, tmp_path / "x.weights", "flax")
    assert not list(tmp_path.iterdir())


# -- each layout's own


@pytest.mark.parametrize("more", [{"root": "model_weights"}, {"outer": "van_tiny"}])
def test_tfvan_within_a_whole_model(tmp_path, more):
    state = port_files.state("tfvan")
    if more.get("outer"):
        state = {f"van_tiny/{key}": array for key, array in state.items()}
    path = port_files.tfvan(tmp_path / "x.h5", state, **more)
    assert far(computed(load(path)), filled.golden("tfvan")) <= 1e-5


def test_tfvan_where_keras_has_counted_the_feed_forward_layers(tmp_path):
    state = {key.replace("/mlp/", "/mlp_7/"): array for key, array in port_files.state("tfvan").items()}
    assert far(computed(load(port_files.write(tmp_path, "tfvan", state))), filled.golden("tfvan")) <= 1e-5


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("table", [True, False])
def test_paddle_in_every_protocol_and_without_its_table(tmp_path, protocol, table):
    path = port_files.write(tmp_path, "paddle", port_files.state("paddle"), protocol=protocol, table=table)
    assert far(computed(load(path)), filled.golden("paddle")) <= 1e-5


def test_paddle_column_major_and_strided_arrays(tmp_path):
    state = {key: np.asfortranarray(array) for key, array in port_files.state("paddle").items()}
    assert far(computed(load(port_files.write(tmp_path, "paddle", state))), filled.golden("paddle")) <= 1e-5


def test_flax_before_the_depthwise_kernel_was_renamed(tmp_path):
    state = {
        key.replace("/mlp/dwconv/kernel", "/mlp/dwconv/weights"): each for key, each in port_files.state("flax").items()
    }
    assert sum("dwconv/weights" in key for key in state) == 15
    assert far(computed(load(port_files.write(tmp_path, "flax", state))), filled.golden("flax")) <= 1e-5


def test_flax_of_bfloat16_is_widened_and_said(tmp_path, monkeypatch):
    state = port_files.state("flax")
    key = "params/head/kernel"
    upper, meant = port_files.bfloat16(state[key])
    plain = port_files.packed
    inner = plain(upper).replace(b"\xa6uint16", b"\xa8bfloat16")
    inner = b"\xc8" + struct.pack(">H", len(inner) - 4) + inner[3:]
    monkeypatch.setattr(port_files, "packed", lambda value: inner if value is upper else plain(value))
    path = port_files.write(tmp_path, "flax", state | {key: upper})
    assert "1 bfloat16 tensors were widened to float32" in van.info(path).notes
    assert np.array_equal(load(path).head.weight.detach().numpy(), meant.T)


def test_a_backbone_file_is_written_as_a_backbone_file(tmp_path):
    path = port_files.write(tmp_path, "mmseg_backbone", port_files.state("mmseg_backbone"))
    van.save(load(path), tmp_path / "again.pth", format="mmseg")
    assert "patch_embed1.proj.weight" in torch.load(tmp_path / "again.pth")["state_dict"]
    assert van.info(tmp_path / "again.pth").provenance["key_generation"] == "mmseg 1.x backbone"


def test_a_backbone_file_may_have_the_classifiers_head(tmp_path):
    state = port_files.state("mmseg_backbone")
    head = {"head.weight": np.ones((5, 32), np.float32), "head.bias": np.zeros(5, np.float32)}
    assert load(port_files.write(tmp_path, "mmseg_backbone", state | head)).num_classes == 5


def test_mmengines_names_are_in_the_provenance(tmp_path):
    path = port_files.write(tmp_path, "mmseg_fpn", port_files.state("mmseg_fpn"))
    assert van.info(path).provenance["mmengine_version"] == "0.10.7"


# -- safety


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_paddle_file_is_refused_and_named(tmp_path):
    state = port_files.state("paddle")
    for place in ("van", "block1.0.norm1._mean"):
        path = port_files.write(tmp_path, "paddle", {**state, place: Runs(f"touch {tmp_path}/executed")})
        with pytest.raises(UnsafeFileError, match=r"needs '(posix|nt)\.system' to be unpickled.*nothing was run"):
            van.load(path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists()  # it really is hostile


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch._utils._rebuild_tensor_v2", "numpy.load"])
def test_other_names_are_refused_in_a_pickle_of_arrays(tmp_path, name):
    module, attribute = name.rsplit(".", 1)
    target = getattr(__import__(module, fromlist=["x"]), attribute)
    call = type("Call", (), {"__reduce__": lambda self: (target, ("1",))})()
    path = port_files.write(tmp_path, "paddle", port_files.state("paddle"), more=call)
    with pytest.raises(UnsafeFileError, match=f"needs '.*{attribute}' to be unpickled"):
        van.load(path)


@pytest.mark.parametrize("spelled", ["bytes", "text"])
def test_a_pickle_that_repeats_a_large_value_is_refused(tmp_path, spelled):
    size, count = 2**22, 60
    large = b"B" + struct.pack("<I", size) + bytes(size)
    if spelled == "text":
        large = b"c_codecs\nencode\nX" + struct.pack("<I", size) + bytes(size) + b"X\x06\x00\x00\x00latin1\x86R"
    start = b"\x80\x04" + large + b"q\x000]("
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    state = b"(K\x01J" + struct.pack("<i", size) + b"\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R\x89h\x00tb"
    path = tmp_path / "x.pdparams"
    path.write_bytes(start + (array + state) * count + b"e.")
    with pytest.raises(CheckpointError, match="repeats large values"):
        van.load(path)
    path.write_bytes(start + (array + state) * 2 + b"e.")
    with pytest.raises(CheckpointError, match="it is a pickle, but not of named arrays"):
        van.load(path)


def test_what_follows_a_pickle_or_a_flax_file_is_an_error(tmp_path):
    for case in ("paddle", "flax"):
        path = port_files.write(tmp_path, case, port_files.state(case))
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(CheckpointError, match="something follows its"):
            van.load(path)


BROKEN_FLAX = {
    "ends within a value": b"\x81\xa6params\xdb\xff\xff\xff\xff",
    "expected at most 40 levels": b"\x81\xa6params" + b"\x81\xa1a" * 100,
    "for a key": b"\x82\xa6params\x01\x01\x01",
    "'params' twice": b"\x82\xa6params\x01\xa6params\x01",
    "extension of type 5": b"\x81\xa6params\xc7\x01\x05\x01",
    "without its shape, type and bytes": b"\x81\xa6params\xc7\x01\x01\x01",
    "the byte 0xc1": b"\x81\xa6params\xc1",
    "array of type object": b"\x81\xa6params\xc7\x0c\x01\x93\x91\x01\xa6object\xc4\x00",
    r"shape \(9,\) with 1 bytes": b"\x81\xa6params\xc7\x0c\x01\x93\x91\x09\xa5uint8\xc4\x01\x00",
    "no Visual Attention Network": b"\x81\xa6params\x01",
}


@pytest.mark.parametrize("message", BROKEN_FLAX)
def test_broken_flax_files_are_one_line(tmp_path, message):
    path = tmp_path / "x.weights"
    path.write_bytes(BROKEN_FLAX[message])
    with pytest.raises(CheckpointError, match=message) as error:
        van.load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_every_form_of_messagepack_is_read():
    written = {
        "none": b"\xc0", "no": b"\xc2", "yes": b"\xc3", "small": b"\x07", "minus": b"\xff", "u1": b"\xcc\xff",
        "u2": b"\xcd\x01\x00", "u4": b"\xce\x00\x01\x00\x00", "u8": b"\xcf" + b"\0" * 7 + b"\1", "i1": b"\xd0\x80",
        "i2": b"\xd1\xff\x00", "i4": b"\xd2\xff\xff\xff\xff", "i8": b"\xd3" + b"\xff" * 8,
        "f4": b"\xca" + struct.pack(">f", 1.5), "f8": b"\xcb" + struct.pack(">d", 2.5), "s1": b"\xd9\x01a",
        "s2": b"\xda\x00\x01b", "s4": b"\xdb\0\0\0\1c", "list": b"\x92\x01\x02", "l2": b"\xdc\x00\x01\x05",
        "l4": b"\xdd\0\0\0\1\6", "m2": b"\xde\x00\x01\xa1k\x01", "m4": b"\xdf\0\0\0\1\xa1k\2",
    }  # fmt: skip
    data = b"\xde" + struct.pack(">H", len(written))
    data += b"".join(bytes([0xA0 | len(name)]) + name.encode() + value for name, value in written.items())
    value, widened = msgpack.read(data)
    assert widened == 0
    assert value == {
        "none": None, "no": False, "yes": True, "small": 7, "minus": -1, "u1": 255, "u2": 256, "u4": 65536, "u8": 1,
        "i1": -128, "i2": -256, "i4": -1, "i8": -1, "f4": 1.5, "f8": 2.5, "s1": "a", "s2": "b", "s4": "c",
        "list": [1, 2], "l2": [5], "l4": [6], "m2": {"k": 1}, "m4": {"k": 2},
    }  # fmt: skip


def test_a_link_in_a_tfvan_file_is_not_followed(tmp_path):
    path = port_files.write(tmp_path, "tfvan", port_files.state("tfvan"))
    with h5py.File(path, "a") as file:
        del file["norm1"]
        file["norm1"] = h5py.ExternalLink(str(tmp_path / "nowhere.h5"), "norm1")  # following it would be another error
    with pytest.raises(UnsafeFileError, match="norm1 is a link"):
        van.load(path)


def test_a_pickle_of_arrays_under_official_keys_is_read_as_the_official_format(tmp_path):
    state = {keys.OFFICIAL.foreign(key): array for key, array in arrays_of(SMALL).items()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(state, 4))
    assert checkpoints.read(tmp_path / "x.pkl").format == "official"


def test_what_is_written_is_a_pickle_for_any_numpy(tmp_path):
    tree = {
        "a": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "b": np.array(3, np.int64),
        "c": "text",
        "d": {"e": "f"},
    }
    pickled_arrays.write(tmp_path / "x", tree)
    assert b"numpy._core" not in (tmp_path / "x").read_bytes()
    for found in (pickle.loads((tmp_path / "x").read_bytes()), pickled_arrays.read(tmp_path / "x")):
        assert (found["c"], found["d"]) == ("text", {"e": "f"})
        for name in "ab":
            assert np.array_equal(found[name], tree[name])
            assert (found[name].dtype, found[name].shape) == (tree[name].dtype, tree[name].shape)


# -- with the ports themselves


def port_program(name, *arguments):
    """Run a program of tests/support/ports in the Python of its port; skips where that is not given."""
    python, clone = os.environ.get(f"VAN_{name.upper()}_PYTHON"), os.environ.get("VAN_MMSEG_CLONE")
    if not python or (name == "mmseg" and not clone):
        pytest.skip(f"VAN_{name.upper()}_PYTHON is not set: the Python in which the port is installed")
    program = Path(filled.__file__).with_name(f"write_{name}.py")
    folder, *rest = map(str, arguments)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, program, folder, *([clone] if name == "mmseg" else []), *rest], check=True, env=clean)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CLASSIFIERS, "mmseg"])
def test_the_port_itself_writes_reads_and_computes(tmp_path, name):
    port_program(name, tmp_path)
    cases = [case for case in port_files.CASES if case.split("_")[0] == name]
    again = []
    for case in cases:
        suffix = port_files.SUFFIX.get(case, ".pth")
        path = tmp_path / f"{case}{suffix}"
        with np.load(tmp_path / "golden" / f"{case}.npz") as file:
            want = dict(file)
        model = load(path)
        assert far(computed(model), want) <= 1e-5
        assert json.loads((tmp_path / "manifests" / f"{case}.json").read_text())["entries"] == dict(
            filled.manifest(case)["entries"]
        )
        again.append(tmp_path / f"again_{case}{suffix}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VanNotice)
            van.save(model, again[-1], format=name)
    port_program(name, tmp_path, *again)
    for case in cases:
        loaded = "loaded" if name != "mmseg" else f"loaded_{case.removeprefix('mmseg_')}"
        with (
            np.load(tmp_path / "golden" / f"{loaded}.npz") as file,
            np.load(tmp_path / "golden" / f"{case}.npz") as want,
        ):
            assert {key: file[key].tobytes() for key in want} == {key: want[key].tobytes() for key in want}
