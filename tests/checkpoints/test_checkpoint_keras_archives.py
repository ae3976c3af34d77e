"""A .keras archive, its parts in a folder, and the weights file among them are one checkpoint with its architecture."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from keras_case import images_of, keras, near, run

import van
from van import checkpoints, cli
from van.errors import CheckpointError, VanNotice
from van.images.preprocess import Preprocess
from van.inference.evaluate import evaluate
from van.keras import VAN, VANBackbone

SIZES = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (4, 4, 2, 2)}
UNSHAPED = {"attention": "add", "layer_norm_eps": 1e-2, "strides": (4, 2, 2, 1)}
PREPARED = Preprocess(size=(48, 48), mean=(0.4, 0.5, 0.6))
NAMES = ("ant", "bee", "cat")
NO_COUNTERS = "Keras keeps no num_batches_tracked"

pytest.importorskip("h5py")


def made(kind=VAN, **options):
    own = {"num_classes": 3, "classes": NAMES, "preprocess": PREPARED} if kind is VAN else {}
    return kind(None, **{**SIZES, **UNSHAPED, **own, **options})


@pytest.fixture(scope="module")
def model():
    model = made()
    for variable in model.variables:
        noise = np.random.default_rng(len(variable.path)).uniform(0.1, 0.5, variable.shape)
        variable.assign(noise if "variance" in variable.path else noise - 0.25)
    return model


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    model.compile("adam", "mse")
    model.save(path)
    return path


@pytest.fixture(scope="module")
def unpacked(archive):
    folder = archive.parent / "unpacked"
    with zipfile.ZipFile(archive) as parts:
        parts.extractall(folder)
    return folder


@pytest.mark.promise("8")
def test_an_archive_computes_what_keras_computes(model, archive, unpacked):
    images = images_of()
    for path in (archive, unpacked, unpacked / "model.weights.h5"):
        with pytest.warns(VanNotice, match=NO_COUNTERS):
            found = van.load(path)
        with torch.no_grad():
            near(found(torch.from_numpy(images)).numpy(), run(model, images))
        assert {name: getattr(found.config, name) for name in UNSHAPED} == UNSHAPED
        assert (found.classes, found.preprocess) == (NAMES, PREPARED)


@pytest.mark.promise("8")
def test_keras_builds_from_an_archive(model, archive, unpacked):
    images = images_of()
    for path in (archive, unpacked):
        again = VAN(weights=path)
        near(run(again, images), run(model, images), 1e-6)
        assert (again.classes, again.preprocess, again.config.attention) == (NAMES, PREPARED, "add")


@pytest.mark.promise("8")
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@pytest.mark.long
def test_every_verb_takes_an_archive(archive, unpacked, tmp_path, capsys):
    picture = tmp_path / "x.png"
    data = tmp_path / "data" / "val"
    for k, name in enumerate(NAMES):
        (data / name).mkdir(parents=True)
        pixels = np.random.default_rng(k).integers(0, 255, (48, 48, 3), np.uint8)
        __import__("PIL.Image").Image.fromarray(pixels).save(data / name / "0.png")
    shutil.copy(data / "ant" / "0.png", picture)
    van.convert(archive, tmp_path / "x.safetensors", to="van")
    want = dict(evaluate(tmp_path / "x.safetensors", data, split="all"))
    assert dict(evaluate(archive, data, split="all"))["loss"] == want["loss"]
    assert van.Predictor(archive)(picture).top == van.Predictor(tmp_path / "x.safetensors")(picture).top
    for arguments in (
        ["info", archive],
        ["predict", archive, picture],
        ["bench", archive, "--quick", "--forms", "eager"],
    ):
        assert cli.main([str(word) for word in arguments]) == 0
    assert "add, 21 x 21" in capsys.readouterr().out
    assert cli.main(["eval", str(archive.parent), "--data", str(data), "--split", "all"]) == 0
    out = capsys.readouterr().out
    assert "model.keras" in out
    assert unpacked.name in out


@pytest.mark.promise("8")
def test_a_backbone_and_a_model_around_a_network(tmp_path):
    backbone = made(VANBackbone)
    backbone.save(tmp_path / "backbone.keras")
    found = checkpoints.read(tmp_path / "backbone.keras")
    assert (found.num_classes, found.config.attention, found.config.layer_norm_eps) == (0, "add", 1e-2)
    images = keras.Input((32, 32, 3))
    around = keras.Model(images, made()(images))
    around.save(tmp_path / "around.keras")
    found = checkpoints.read(tmp_path / "around.keras")
    assert (found.classes, found.config.attention) == (NAMES, "add")


@pytest.mark.promise("1")
@pytest.mark.promise("8")
def test_the_folder_of_a_presets_classifier_has_its_head(model, tmp_path):
    model.save_to_preset(tmp_path / "p")
    model.save(tmp_path / "m.keras")
    read, whole = checkpoints.read(tmp_path / "p"), checkpoints.read(tmp_path / "m.keras")
    assert (read.config, read.classes, read.preprocess) == (whole.config, model.classes, model.preprocess)
    assert read.arrays.keys() == whole.arrays.keys()
    assert all(np.array_equal(array, whole.arrays[key]) for key, array in read.arrays.items())
    (tmp_path / "p" / "task.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"task\.json cannot be used: .*; save the preset again") as caught:
        van.load(tmp_path / "p")
    assert "\n" not in str(caught.value)


@pytest.mark.promise("8")
@pytest.mark.filterwarnings("ignore:Layer:UserWarning")
def test_a_quantized_model_says_what_to_give_instead(tmp_path):
    quantized = made()
    quantized.quantize("int8")
    quantized.save(tmp_path / "int8.keras")
    with pytest.raises(CheckpointError, match=r"was quantized by Keras .* as it was before model\.quantize"):
        van.load(tmp_path / "int8.keras")


@pytest.mark.promise("8")
def test_what_of_a_model_no_classifier_of_ours_does_is_said(tmp_path):
    made(pooling="max", classifier_activation="softmax").save(tmp_path / "x.keras")
    notes = checkpoints.read(tmp_path / "x.keras").notes
    assert any("pools by 'max'" in note for note in notes)
    assert any("went through 'softmax'; these are the logits before it" in note for note in notes)


@pytest.mark.promise("8")
def test_keras_weights_in_the_folder_of_something_else(archive, unpacked, tmp_path):
    for name in ("recipe.yaml", "metadata.json"):
        (tmp_path / name).write_text("{}")
    shutil.copy(unpacked / "model.weights.h5", tmp_path)
    found = checkpoints.read(tmp_path)
    assert found.origins["layer_norm_eps"] == "lineage"
    assert any("does not contain its attention, epsilon and strides" in note for note in found.notes)
    checkpoints.write(checkpoints.read(archive), tmp_path / "model.safetensors", "van")
    assert checkpoints.read(tmp_path / "model.weights.h5").format == "keras"
    assert checkpoints.read(tmp_path).format == "van"


@pytest.mark.promise("8")
def test_an_argument_beats_the_archive(archive):
    assert checkpoints.read(archive, layer_norm_eps=1e-4).config.layer_norm_eps == 1e-4


def rewritten(archive, path, **members):
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = members.get(name.partition(".")[0], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


@pytest.mark.promise("8")
@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"config": b"{"}, "truncated or corrupt"),
        ({"config": b"[]"}, "describes 0 Visual Attention Networks"),
        ({"config": b'{"class_name": "Functional", "config": {}}'}, "describes 0 Visual Attention Networks"),
        ({"config": None}, "without weights that van reads|zip archive that contains model.weights.h5"),
        ({"model": b"no HDF5"}, "truncated or corrupt"),
        ({"model": b"\0" * 200_000_000}, "would grow from"),
    ],
)
def test_broken_archives_are_one_line(archive, tmp_path, members, told):
    path = rewritten(archive, tmp_path / "x.keras", **members)
    with pytest.raises(CheckpointError, match=told) as caught:
        van.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.promise("8")
def test_the_architecture_in_an_archive_has_to_fit_its_weights(archive, tmp_path):
    with zipfile.ZipFile(archive) as parts:
        config = json.loads(parts.read("config.json"))
    config["config"]["depths"] = [9, 9, 9, 9]
    with pytest.raises(CheckpointError, match=r"depths=\(9, 9, 9, 9\) contradicts the tensors"):
        van.load(rewritten(archive, tmp_path / "x.keras", config=json.dumps(config).encode()))


@pytest.mark.promise("8")
def test_nothing_in_an_archive_is_run(archive, tmp_path):
    with zipfile.ZipFile(archive) as parts:
        config = json.loads(parts.read("config.json"))
    trap = {"class_name": "__lambda__", "config": {"value": "gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"}}
    config["compile_config"] = {"loss": trap, "module": "os", "registered_name": "os>system"}
    path = rewritten(archive, tmp_path / "x.keras", config=json.dumps(config).encode())
    assert checkpoints.read(path).classes == NAMES


@pytest.mark.promise("8")
def test_a_zip_around_a_checkpoint_says_to_unpack_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("folder/van_tiny_754.pth.tar", b"weights")
    with pytest.raises(CheckpointError, match=r"contains folder/van_tiny_754\.pth\.tar; unpack it and use that file"):
        van.load(tmp_path / "x.zip")


@pytest.mark.promise("8")
def test_the_legacy_file_of_a_whole_model_names_the_forms_to_use(model, tmp_path):
    model.save(tmp_path / "x.h5")
    with pytest.raises(CheckpointError, match=r"legacy form of Keras 3; save it as \.keras or \.weights\.h5"):
        van.load(tmp_path / "x.h5")
