import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from keras_networks import TINY, checkpoint_of
from reference_data import fill_name, golden, inputs, manifest, state

import van
from van import checkpoints
from van.checkpoints import keras
from van.configs.backbone import VARIANTS, VanConfig
from van.errors import CheckpointError, MissingExtraError, UnsafeFileError, VanNotice
from van.images.preprocess import IMAGENET

h5py = pytest.importorskip("h5py")

COUNTERS = "counters start at 0"


# The old port's .h5


def port_groups(name):
    """Group -> weight names; only van_b0's was measured, the others follow its pattern."""
    told = manifest(name).get("h5_layout")
    if told:
        return told
    groups = {}
    for key in state(name):
        parts = key.split("/")
        groups.setdefault("/".join(parts[: 2 if parts[0].startswith("block") else 1]), []).append(key)
    return groups


def write_port(path, arrays, groups, *, root="", outer="", cut=False):
    """A file as Keras 2's `save_weights` lays it out. outer: all inside one layer of that name."""
    if outer:
        groups = {outer: [f"{outer}/{name}" for names in groups.values() for name in names]}
    with h5py.File(path, "w") as file:
        home = file.create_group(root) if root else file
        home.attrs["backend"], home.attrs["keras_version"] = "tensorflow", "2.15.0"
        layers = [group.encode() for group in groups]
        if cut:
            home.attrs["layer_names0"], home.attrs["layer_names1"] = layers[:5], layers[5:]
        else:
            home.attrs["layer_names"] = layers
        home.create_group("top_level_model_weights").attrs["weight_names"] = np.array([], "S1")
        for group, names in groups.items():
            home.require_group(group).attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                home[f"{group}/{name}"] = arrays[name.removeprefix(f"{outer}/")]
    return path


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    return write_port(tmp_path_factory.mktemp("port") / "van_b0.h5", state("keras_van_b0"), port_groups("keras_van_b0"))


def edited(port, tmp_path, edit):
    path = tmp_path / "edited.h5"
    path.write_bytes(port.read_bytes())
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def load(path, **options):
    with pytest.warns(VanNotice, match=COUNTERS):
        return van.load(path, **options)


def sampled(x, like):
    return x.reshape(-1)[:: int(like)]


@pytest.mark.parametrize(("name", "salt"), [("keras_van_b0", ""), ("keras_van_b0_eps", "eps")])
def test_port_file_computes_what_the_port_computed(tmp_path, name, salt):
    path = write_port(tmp_path / "w.h5", state("keras_van_b0", salt), port_groups("keras_van_b0"))
    model, wanted = load(path), golden(name)
    assert len(inputs(name)) >= 1
    for tag, images in inputs(name):
        with torch.no_grad():
            maps = model.backbone(torch.from_numpy(images))
            logits = model.forward_head(maps[-1]).numpy()
        np.testing.assert_allclose(logits, wanted[f"{tag}/logits"], rtol=0, atol=1e-5)
        for s, stage in enumerate(maps, 1):
            assert tuple(stage.shape) == tuple(wanted[f"{tag}/stage{s}/shape"])
            told = wanted[f"{tag}/stage{s}/sample"]
            np.testing.assert_allclose(sampled(stage.numpy(), wanted[f"{tag}/stage{s}/step"]), told, rtol=0, atol=1e-5)
        if f"{tag}/softmax" in wanted:
            np.testing.assert_allclose(
                torch.from_numpy(logits).softmax(-1).numpy(), wanted[f"{tag}/softmax"], rtol=0, atol=1e-6
            )


def test_port_file_is_described(port):
    checkpoint = checkpoints.read(port)
    assert (checkpoint.format, checkpoint.name, checkpoint.config.num_classes) == ("keras", "van_b0", 1000)
    assert checkpoint.config.layer_norm_eps == 1e-6
    assert checkpoint.origins["layer_norm_eps"] == "lineage"
    assert "the 30 counters start at 0" in " ".join(checkpoint.notes)
    counters = [array for key, array in checkpoint.arrays.items() if key.endswith("num_batches_tracked")]
    assert len(counters) == 30
    assert all(array.dtype == np.int64 and array == 0 for array in counters)


def test_port_file_of_another_size(tmp_path):
    path = write_port(tmp_path / "w.h5", state("keras_van_b1"), port_groups("keras_van_b1"))
    checkpoint = checkpoints.read(path)
    assert checkpoint.config == VARIANTS["van_b1"]


def test_build_dependent_names_are_ignored(port, tmp_path):
    renamed = {}
    groups = {
        group: [name.replace("/conv2d_", "/conv2d_9").replace("/conv2d/", "/conv2d_77/") for name in names]
        for group, names in port_groups("keras_van_b0").items()
    }
    by_fill = {fill_name(key): array for key, array in state("keras_van_b0").items()}
    for names in groups.values():
        renamed |= {name: by_fill[fill_name(name)] for name in names}
    other = checkpoints.read(write_port(tmp_path / "w.h5", renamed, groups))
    assert_same(other, checkpoints.read(port))


@pytest.mark.parametrize("how", [{"outer": "van_b0"}, {"outer": "van_2"}, {"root": "model_weights"}, {"cut": True}])
def test_port_file_saved_in_other_ways(port, tmp_path, how):
    path = write_port(tmp_path / "w.h5", state("keras_van_b0"), port_groups("keras_van_b0"), **how)
    assert_same(checkpoints.read(path), checkpoints.read(port))


def test_port_file_without_head_is_a_feature_backbone(port, tmp_path):
    def edit(file):
        file.attrs["layer_names"] = [name for name in file.attrs["layer_names"] if name not in ("head", "pred")]
        del file["head"]

    checkpoint = checkpoints.read(edited(port, tmp_path, edit))
    assert checkpoint.config.num_classes == 0
    assert not any(key.startswith("head") for key in checkpoint.arrays)


def drop(file):
    names = [name for name in file["norm2"].attrs["weight_names"] if "gamma" not in str(name)]
    del file["norm2/norm2/gamma:0"]
    file["norm2"].attrs["weight_names"] = names


def drop_data(file):
    del file["block2/1/block2/1/norm1/moving_mean:0"]


def add(file):
    file["norm2/norm2/delta:0"] = np.zeros(3)
    file["norm2"].attrs["weight_names"] = [*file["norm2"].attrs["weight_names"], "norm2/delta:0"]


def add_data(file):
    file["norm2/norm2/delta:0"] = np.zeros(3)


def add_on_top(file):
    file["top_level_model_weights/extra:0"] = np.zeros(3)
    file["top_level_model_weights"].attrs["weight_names"] = ["extra:0"]


def misname(file):
    file.move("norm2/norm2/gamma:0", "norm2/norm2/kernel:0")
    file["norm2"].attrs["weight_names"] = ["norm2/kernel:0", "norm2/beta:0"]


def misshape(file):
    del file["norm2/norm2/gamma:0"]
    file["norm2/norm2/gamma:0"] = np.zeros(63, np.float32)


def twice(file):
    file["norm2/norm2/conv2d_3/x:0"] = np.zeros(3)
    file["head/head/conv2d_9/kernel:0"] = np.zeros(3)
    file["head"].attrs["weight_names"] = [*file["head"].attrs["weight_names"], "head/conv2d_9/kernel:0"]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (drop, r"1 missing: norm2/gamma"),
        (drop_data, r"names the weight 'block2/1/norm1/moving_mean:0' but has no data"),
        (add, r"1 unexpected: norm2/delta"),
        (add_data, r"1 data sets that belong to no layer: norm2/norm2/delta:0"),
        (add_on_top, r"1 unexpected: extra"),
        (misname, r"1 missing: norm2/gamma; 1 unexpected: norm2/kernel"),
        (misshape, r"1 of the wrong shape: norm2/gamma \(got \(63,\), expected \(64,\)\)"),
        (twice, r"'head/kernel' twice"),
    ],
)
def test_port_file_that_does_not_fit_is_refused(port, tmp_path, edit, told):
    with pytest.raises(CheckpointError, match=told):
        checkpoints.read(edited(port, tmp_path, edit))


def assert_same(one, two):
    assert one.config == two.config
    assert list(one.arrays) == list(two.arrays)
    for key, array in one.arrays.items():
        assert array.dtype == two.arrays[key].dtype
        assert array.tobytes() == two.arrays[key].tobytes(), key


# Keras 3's .weights.h5


def run(checkpoint, images):
    """(N, H, W, C) -> (N, K)."""
    model = van.create_model("van_b0", **checkpoint.config.to_dict()).eval()
    model.load_state_dict({key: torch.from_numpy(array) for key, array in checkpoint.arrays.items()})
    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A folder in which a Keras model loaded our file and saved its own."""
    folder = tmp_path_factory.mktemp("twin")
    config = TINY.with_options(layer_norm_eps=1e-5)
    ours = checkpoint_of(config, classes=tuple("abcdefg"), preprocess=IMAGENET)
    assert checkpoints.write(ours, folder / "ours.weights.h5", "keras")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((2, 61, 48, 3)).astype(np.float32))
    done = subprocess.run(
        [sys.executable, Path(__file__).parent.parent / "support" / "keras_twin.py", folder],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_keras_loads_what_we_write(twin):
    ours, images = checkpoints.read(twin / "ours.weights.h5"), np.load(twin / "images.npy")
    logits = np.load(twin / "ours.npy")
    assert np.abs(logits).max() > 0.1
    np.testing.assert_allclose(run(ours, images), logits, rtol=0, atol=1e-5)


def test_we_read_what_keras_saves(twin):
    theirs = checkpoints.read(twin / "twin.weights.h5", layer_norm_eps=1e-5)
    logits = np.load(twin / "twin.npy")
    assert np.abs(logits[0] - logits[1]).max() > 0.1
    assert theirs.origins["layer_norm_eps"] == "argument"
    assert COUNTERS in " ".join(theirs.notes)
    np.testing.assert_allclose(run(theirs, np.load(twin / "images.npy")), logits, rtol=0, atol=1e-5)


def test_our_file_has_the_paths_of_keras(twin):
    """Every data set of Keras's own file, with the same layer names, and nothing else."""

    def paths(name):
        with h5py.File(twin / name) as file:
            found = {}
            file.visititems(lambda p, node: found.update({p: node.shape}) if isinstance(node, h5py.Dataset) else None)
            return {p: (shape, file[p].parent.attrs["name"]) for p, shape in found.items()}

    assert paths("ours.weights.h5") == paths("twin.weights.h5")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 0},
        {"in_chans": 1, "layer_norm_eps": 1e-5},
        {"attention": "no_dw"},
        {"attention": "no_1x1"},
        {"attention": "sigmoid", "kernel_size": 35, "dilation": 5},
        {"embed_dims": (8, 16), "depths": (1, 1), "mlp_ratios": (2, 2), "patch_sizes": (7, 3), "strides": (4, 1)},
        {"embed_dims": (1, 3, 5, 7), "mlp_ratios": (3, 2.5, 1, 1)},
    ],
)
def test_round_trip_is_bit_identical(tmp_path, options):
    defaults = {"strides": (), "out_indices": ()}
    config = VanConfig.from_dict({**TINY.to_dict(), **defaults, **options})
    classes = tuple(f"class {i}" for i in range(config.num_classes)) or None
    ours = checkpoint_of(config, classes=classes, preprocess=IMAGENET if config.in_chans == 3 else None)
    checkpoints.write(ours, tmp_path / "a.weights.h5", "keras")
    back = checkpoints.read(tmp_path / "a.weights.h5")
    assert_same(back, ours)
    assert (back.classes, back.provenance, back.format) == (ours.classes, {"source": "test"}, "keras")
    assert not back.notes
    if config.in_chans == 3:
        assert back.preprocess == IMAGENET


def test_what_is_written_beats_the_lineage_and_the_argument_beats_both(tmp_path):
    checkpoints.write(checkpoint_of(TINY.with_options(layer_norm_eps=3e-6)), tmp_path / "a.weights.h5", "keras")
    assert checkpoints.read(tmp_path / "a.weights.h5").config.layer_norm_eps == 3e-6
    assert checkpoints.read(tmp_path / "a.weights.h5", layer_norm_eps=1e-4).config.layer_norm_eps == 1e-4


def test_many_long_class_names_fit(tmp_path):
    ours = checkpoint_of(TINY.with_options(num_classes=3000), classes=tuple(f"{i} " + "é" * 60 for i in range(3000)))
    checkpoints.write(ours, tmp_path / "a.weights.h5", "keras")
    assert checkpoints.read(tmp_path / "a.weights.h5").classes == ours.classes


def test_through_the_front_door(tmp_path):
    model = van.create_model("van_b0", seed=1, **TINY.to_dict()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        van.save(model, tmp_path / "m.weights.h5", format="keras")
        back = van.load(tmp_path / "m.weights.h5")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x), back(x))


def test_what_is_not_carried_is_told(tmp_path):
    config = TINY.with_options(attention="add", layer_norm_eps=1e-5)
    lost = checkpoints.write(checkpoint_of(config, extra={"decode_head.x": np.zeros(1)}), tmp_path / "a.h5", "keras")
    told = " | ".join(lost)
    for piece in ("a.h5: Keras loads names", "14 BatchNorm counters", "attention='add'", "1e-05", "decode_head.x"):
        assert piece in told


@pytest.fixture
def ours(tmp_path):
    path = tmp_path / "ours.weights.h5"
    checkpoints.write(checkpoint_of(), path, "keras")
    return path


def test_optimizer_and_random_state_are_left_aside(ours):
    with h5py.File(ours, "a") as file:
        file["optimizer/vars/0"] = np.zeros(3)
        file["layers/block/mlp/drop/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    assert_same(checkpoints.read(ours), checkpoint_of())


def test_a_model_inside_a_model_is_found(ours, tmp_path):
    with h5py.File(ours) as file, h5py.File(tmp_path / "outer.weights.h5", "w") as outer:
        file.copy("layers", outer.create_group("layers/functional"))
        outer.create_group("layers/functional/vars").attrs["name"] = "van_b0"
    back = checkpoints.read(tmp_path / "outer.weights.h5")
    for key, array in checkpoint_of().arrays.items():
        if not key.endswith("num_batches_tracked"):
            assert array.tobytes() == back.arrays[key].tobytes()


def test_stage_is_told_by_the_layers_name_not_by_its_group(ours):
    with h5py.File(ours, "a") as file:
        file.move("layers/block_1", "layers/other")
        file.move("layers/block_2", "layers/block_1")
        file.move("layers/other", "layers/my_block_of_another_class")
    assert_same(checkpoints.read(ours), checkpoint_of())


def test_bfloat16_is_widened(ours):
    with h5py.File(ours, "a") as file:
        wide = file["layers/dense/vars/0"][()]
        bits = (np.ascontiguousarray(wide).view(np.uint32) >> 16).astype("<u2")
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = bits.view("V2")
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"
    back = checkpoints.read(ours)
    assert "1 bfloat16 tensors were widened" in " ".join(back.notes)
    expected = (bits.astype(np.uint32) << 16).view(np.float32).T
    np.testing.assert_array_equal(back.arrays["head.weight"], expected)
    np.testing.assert_allclose(expected, wide.T, rtol=0.01)


def unnamed(file):
    del file["layers/block/vars"].attrs["name"]


def same_name(file):
    file["layers/block_1/vars"].attrs["name"] = "block1_0"


def own_layer(file):
    file["layers/dense_1/vars/0"] = np.zeros((7, 2))
    file["layers/dense_1/vars"].attrs["name"] = "mine"


def stray(file):
    file["vars/0"] = np.zeros(3)


def gone(file):
    del file["layers/patch_embed_2/norm/vars/3"]


def third_scale(file):
    file["layers/block/vars/2"] = np.zeros(8)


def bad_record(file):
    file.attrs["van"] = "{"


def other_record(file):
    file.attrs["van"] = json.dumps({"config": {**TINY.to_dict(), "depths": [1, 1, 1, 1]}})


def grouped(file):
    kernel = file["layers/block/mlp/dwconv/vars/0"][()]
    del file["layers/block/mlp/dwconv/vars/0"]
    file["layers/block/mlp/dwconv/vars/0"] = kernel.transpose(0, 1, 3, 2)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (unnamed, r"does not contain the name of its layer layers/block;"),
        (same_name, r"two layers named 'block1_0'"),
        (own_layer, r"1 unexpected: mine/vars/0"),
        (stray, r"vars/0, which belongs to no layer"),
        (gone, r"1 missing: patch_embed3/norm/vars/3"),
        (third_scale, r"1 unexpected: block1_0/vars/2"),
        (bad_record, r"'van' is not valid JSON"),
        (other_record, r"contradicts the tensors"),
        (grouped, r"1 of the wrong shape: block1_0/mlp/dwconv/vars/0"),
    ],
)
def test_keras_3_file_that_does_not_fit_is_refused(ours, edit, told):
    with h5py.File(ours, "a") as file:
        edit(file)
    with pytest.raises(CheckpointError, match=told) as caught:
        checkpoints.read(ours)
    assert "\n" not in str(caught.value)


# Broken, foreign and dangerous files


def test_broken_files_are_told(ours, port, tmp_path):
    for whole in (ours, port):
        for size in (100, whole.stat().st_size // 2, whole.stat().st_size - 1000):
            cut = tmp_path / "cut.weights.h5"
            cut.write_bytes(whole.read_bytes()[:size])
            with pytest.raises(CheckpointError, match="truncated or corrupt") as caught:
                checkpoints.read(cut)
            assert "\n" not in str(caught.value)


def test_overwritten_bytes_raise_nothing_but_checkpoint_errors(ours, tmp_path):
    whole, rng, bad = ours.read_bytes(), np.random.default_rng(0), tmp_path / "bad.weights.h5"
    refused = 0
    for _ in range(40):
        bytes_ = bytearray(whole)
        for at in rng.integers(8, 4000, 20):
            bytes_[at] = rng.integers(256)
        bad.write_bytes(bytes_)
        try:
            checkpoints.read(bad)
        except CheckpointError:
            refused += 1
    assert refused


def test_not_hdf5_is_told(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"not hdf5 at all" * 100)
    with pytest.raises(CheckpointError, match=r"w\.h5 is not a checkpoint"):
        checkpoints.read(tmp_path / "w.h5")


def test_other_hdf5_files_are_told(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["temperatures"] = np.zeros(3)
    with pytest.raises(CheckpointError, match="not of Keras weights: its root holds temperatures"):
        checkpoints.read(tmp_path / "w.h5")


def test_data_in_other_files_is_refused(ours, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(28))
    with h5py.File(ours, "a") as file:
        del file["layers/dense/vars/1"]
        file["layers/dense/vars"].create_dataset("1", (7,), "<f4", external=[(str(tmp_path / "secret"), 0, 28)])
    with pytest.raises(UnsafeFileError, match="is stored in another file"):
        checkpoints.read(ours)


def test_links_are_not_followed(ours, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(7, np.float32)
    with h5py.File(ours, "a") as file:
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    with pytest.raises(UnsafeFileError, match=r"layers/dense/vars/1 is a link.*refused"):
        checkpoints.read(ours)


def test_a_shape_without_data_is_refused(ours):
    with h5py.File(ours, "a") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"].create_dataset("0", (10**6, 10**6), "f4", chunks=(1, 1000))
    with pytest.raises(CheckpointError, match="has no data"):
        checkpoints.read(ours)


def test_without_h5py_the_extra_is_named(ours, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"visual-attention-network\[keras\]"):
        checkpoints.read(ours)
    with pytest.raises(MissingExtraError, match="h5py"):
        checkpoints.write(checkpoint_of(), ours, "keras")


def test_averaged_weights_are_not_there(ours):
    with pytest.raises(CheckpointError, match="no averaged weights"):
        checkpoints.read(ours, ema=True)


def test_a_failed_write_leaves_the_old_file(ours, monkeypatch):
    before = ours.read_bytes()
    broken = checkpoint_of()
    broken = replace(broken, arrays={**broken.arrays, "head.bias": np.array([object()])})
    with pytest.raises(TypeError):
        checkpoints.write(broken, ours, "keras")
    assert ours.read_bytes() == before
    assert [path.name for path in ours.parent.iterdir()] == [ours.name]


def test_both_tables_spell_every_key_and_read_it_back():
    for table in (keras.PORT, keras.KERAS_3):
        for key in checkpoints.layout.shapes(TINY):
            assert table.canonical(table.foreign(key)) == key
