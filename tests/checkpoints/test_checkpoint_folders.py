"""A folder as a checkpoint gives what the file in it gives, for every verb; folders of several are each evaluated."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from metadata import set_metadata
from networks import tiny
from tiny_segmentation import slim_segmentation
from tiny_training import make_stripes, slim_recipe

import van
from van import checkpoints, cli
from van.checkpoints import folders
from van.checkpoints.find import find_checkpoints
from van.errors import CheckpointError, VanNotice
from van.images.preprocess import Preprocess
from van.inference.evaluate import evaluate
from van.train import run

PREPARED = Preprocess(size=(48, 48), crop_pct=0.8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bilinear")
NAMES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes") / "data")


@pytest.fixture(scope="module")
def run_folder(stripes, tmp_path_factory):
    """A classifier trained with averages, its preprocessing unlike the default, from weights of another epsilon."""
    folder = tmp_path_factory.mktemp("trained")
    model = tiny(layer_norm_eps=1e-3, depths=(1, 1, 1, 1), num_classes=2)
    label(model, classes=("across", "along"), preprocess=PREPARED)
    van.save(model, folder / "start.safetensors")
    options = {"trainer.epochs": 2, "trainer.ema_decay": 0.5, "model.checkpoint": str(folder / "start.safetensors")}
    free = {"model.embed_dims": None, "model.depths": None, "data.size": None, "data.mean": (0.3, 0.3, 0.3)}
    return run(slim_recipe(stripes, folder / "run", **free, **options))


@pytest.fixture(scope="module")
def segmenter_folder(tmp_path_factory):
    return run(slim_segmentation(tmp_path_factory.mktemp("scenes") / "run"))


def label(model, *, classes=NAMES, preprocess=PREPARED, **more):
    set_metadata(model, classes=classes, preprocess=preprocess, provenance={}, **more)
    return model.eval()


@pytest.mark.promise("1")
def test_converting_destroys_neither_the_source_nor_a_run(run_folder, tmp_path):
    run_copy = shutil.copytree(run_folder, tmp_path / "run")
    before = (run_copy / "model.safetensors").read_bytes()
    lone = shutil.copy(run_copy / "model.safetensors", tmp_path / "lone.safetensors")
    for source, destination, to in (
        (run_copy, run_copy, "transformers"),
        (run_copy / "best.ckpt", run_copy / "best.ckpt", "official"),
        (lone, run_copy, "transformers"),
        (lone, tmp_path / "run" / ".." / "lone.safetensors", "van"),
    ):
        with pytest.raises(CheckpointError, match="would be overwritten; choose another destination"):
            van.convert(source, destination, to=to)
    assert (run_copy / "model.safetensors").read_bytes() == before
    van.convert(run_copy, tmp_path / "hub", to="transformers")
    van.convert(run_copy, tmp_path / "hub", to="transformers")  # what was converted before is replaced


def facts(path, **options):
    """Everything that reading a checkpoint tells, but for where it lies."""
    found = checkpoints.read(path, **options)
    provenance = {key: value for key, value in found.provenance.items() if key != "source"}
    arrays = {key: (array.dtype.str, array.tobytes()) for key, array in found.arrays.items()}
    known = (found.config, found.classes, found.palette, found.preprocess)
    return arrays, *known, provenance


def command(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out


# A folder of a run


def places(folder, tmp_path):
    """The folder itself, a copy under another name, deeper down, and a link to it."""
    deep = tmp_path / "a" / "b"
    shutil.copytree(folder, deep / "other name")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    return [folder, deep / "other name", tmp_path / "link"]


@pytest.mark.promise("1")
@pytest.mark.parametrize("kind", ["run_folder", "segmenter_folder"])
def test_a_run_folder_is_its_model_file(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    for place in places(folder, tmp_path):
        assert facts(place) == facts(folder / "model.safetensors")
    model = van.load(folder)
    assert model.classes == van.load(folder / "model.safetensors").classes
    assert model.provenance["trained_by"]


@pytest.mark.promise("1")
@pytest.mark.long
def test_every_verb_takes_a_run_folder_for_its_file(run_folder, stripes, tmp_path, capsys):
    file, picture = run_folder / "model.safetensors", stripes / "along" / "0.png"
    for arguments in (("predict", "{}", picture), ("eval", "{}", "--data", stripes), ("info", "{}", "--json")):
        said = []
        for source in (run_folder, file):
            out = command(capsys, *(str(word).format(source) for word in arguments))
            said.append([word for word in out.replace(str(source), "FILE").split() if "." not in word or "%" in word])
        assert said[0] == said[1] or arguments[0] == "eval"  # whose last column is a speed
    scores = [dict(evaluate(source, stripes, split="all")) for source in (run_folder, file)]
    for score in scores:
        score.pop("images_per_second")
    assert scores[0] == scores[1]
    assert van.Predictor(run_folder)(picture).label in ("across", "along")
    command(capsys, "convert", run_folder, tmp_path / "out.pth", "--to", "official")
    assert facts(tmp_path / "out.pth")[1:-1] == facts(file)[1:-1]
    command(capsys, "export", run_folder, tmp_path / "out.onnx", "--size", "32")
    exported = van.Predictor(tmp_path / "out.onnx")
    assert exported.classes == ("across", "along")
    assert exported.opened.preprocess.mean == (0.3, 0.3, 0.3)


@pytest.mark.promise("1")
def test_training_goes_on_from_a_run_folder(run_folder, stripes, tmp_path):
    free = {"model.embed_dims": None, "model.depths": None, "data.size": None, "trainer.epochs": 1}
    done = run(slim_recipe(stripes, tmp_path / "more", **free, **{"model.checkpoint": str(run_folder)}))
    found = checkpoints.read(done)
    assert found.config.layer_norm_eps == 1e-3
    assert found.preprocess == PREPARED.with_overrides(mean=(0.3, 0.3, 0.3))
    assert found.provenance["started_from"]["checkpoint"] == run_folder.name


@pytest.mark.promise("1")
def test_keras_takes_a_run_folder(run_folder):
    pytest.importorskip("keras")
    from van.keras import VAN

    model = VAN(weights=run_folder)
    assert model.classes == ("across", "along")
    assert model.config.layer_norm_eps == 1e-3
    assert model.preprocess.mean == (0.3, 0.3, 0.3)


# Checkpoints of a training


@pytest.mark.promise("1")
@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "previous.ckpt"])
def test_a_training_checkpoint_tells_its_network(run_folder, name, tmp_path):
    alone = shutil.copy(run_folder / name, tmp_path / "renamed.bin")  # nothing beside it
    with pytest.warns(VanNotice, match="the trained weights; the file also holds their average"):
        model = van.load(alone)
    assert model.classes == ("across", "along")
    assert model.config.layer_norm_eps == 1e-3
    assert model.preprocess == PREPARED.with_overrides(mean=(0.3, 0.3, 0.3))
    assert model.provenance["split"] == {"seed": 0, "val_fraction": 0.2}
    assert model.provenance["started_from"]["checkpoint"] == "start.safetensors"


@pytest.mark.promise("1")
def test_the_best_checkpoint_holds_both_weights_of_the_run(run_folder):
    best = run_folder / "best.ckpt"
    state = torch.load(best, weights_only=True)["state_dict"]
    model, averaged = (facts(best, ema=ema)[0] for ema in (False, True))
    assert averaged == facts(run_folder)[0]  # the run keeps the best averages
    assert model == facts(run_folder / "model-without-ema.safetensors")[0]
    assert model["head.bias"][1] == state["model.head.bias"].numpy().tobytes()
    assert van.load(best, ema=True).provenance["averaged"] is True
    assert van.load(run_folder, ema=True).provenance["averaged"] is True  # which is what its file holds


@pytest.mark.promise("1")
def test_a_segmenters_training_checkpoint(segmenter_folder):
    best = segmenter_folder / "best.ckpt"
    assert facts(best)[:5] == facts(segmenter_folder)[:5]
    assert checkpoints.read(best).provenance["inference"] == checkpoints.read(segmenter_folder).provenance["inference"]
    with pytest.raises(CheckpointError, match=r"best\.ckpt holds no averaged weights .*leave ema out"):
        van.load(best, ema=True)


@pytest.mark.promise("1")
def test_a_run_that_has_not_finished(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    for name in ("model.safetensors", "model-without-ema.safetensors"):
        (folder / name).unlink()
    with (
        pytest.warns(VanNotice, match="these are the trained weights"),
        pytest.warns(VanNotice, match=r"its best\.ckpt is used"),
    ):
        van.load(folder)
    assert facts(folder) == facts(folder / "best.ckpt")
    assert find_checkpoints([folder]) == [str(folder)]
    (folder / "best.ckpt").unlink()
    assert facts(folder) == facts(folder / "last.ckpt")
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="the run in it has written none yet"):
        van.load(folder)


@pytest.mark.promise("1")
def test_a_training_checkpoint_without_a_record_names_what_to_give(run_folder, tmp_path):
    tree = torch.load(run_folder / "last.ckpt", weights_only=True)
    del tree["van"]
    torch.save(tree, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"older version .*use the model\.safetensors of its run"):
        van.load(tmp_path / "last.ckpt")


# Folders in the layouts of the hub


def native(folder, model, **more):
    folder.mkdir(parents=True)
    van.save(model, folder / "model.safetensors")
    for name, content in more.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.promise("1")
def test_our_file_with_json_files_beside_it_keeps_its_record(tmp_path):
    model = label(tiny(attention="add", layer_norm_eps=1e-3))
    van.save(model, tmp_path / "hub", format="transformers")
    told = {
        name: json.loads((tmp_path / "hub" / f"{name}.json").read_text()) for name in ("config", "preprocessor_config")
    }
    folder = native(tmp_path / "agreeing", model, **told)
    assert facts(folder) == facts(folder / "model.safetensors")
    assert not checkpoints.read(folder).notes

    told["config"] |= {"layer_norm_eps": 1e-6, "id2label": {str(i): f"class {i}" for i in range(5)}}
    told["preprocessor_config"] |= {"image_mean": [0.1, 0.1, 0.1]}
    other = native(tmp_path / "other", model, **told)
    assert facts(other) == facts(folder)
    with pytest.warns(
        VanNotice,
        match=r"say layer_norm_eps 1e-06 instead of 0\.001; other class names; preproc.*own record is used instead",
    ):
        van.load(other)


@pytest.mark.promise("1")
def test_what_the_record_leaves_open_comes_from_the_files_beside(tmp_path):
    model = label(tiny(), classes=None, preprocess=None)
    van.save(label(tiny()), tmp_path / "hub", format="transformers")
    told = {
        name: json.loads((tmp_path / "hub" / f"{name}.json").read_text()) for name in ("config", "preprocessor_config")
    }
    found = checkpoints.read(native(tmp_path / "x", model, **told))
    assert (found.classes, found.preprocess) == (NAMES, PREPARED)
    told["config"]["id2label"] = {"0": "a"}
    with pytest.warns(VanNotice, match="config.json names 1 classes, the head has 5; the names are left out"):
        assert van.load(native(tmp_path / "y", model, **told)).classes is None


@pytest.mark.promise("1")
def test_a_transformers_folder_and_the_file_in_it_are_the_same(tmp_path):
    model = label(tiny(attention="add", layer_norm_eps=1e-3))
    van.save(model, tmp_path / "hub", format="transformers")
    assert facts(tmp_path / "hub" / "model.safetensors") == facts(tmp_path / "hub")
    found = checkpoints.read(tmp_path / "hub" / "model.safetensors")
    assert (found.classes, found.preprocess, found.config) == (NAMES, PREPARED, model.config)


@pytest.mark.promise("1")
def test_placeholders_in_config_json_do_not_replace_the_records_names(tmp_path):
    van.save(label(tiny()), tmp_path / "hub", format="transformers")
    path = tmp_path / "hub" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": {str(i): f"LABEL_{i}" for i in range(5)}}))
    assert checkpoints.read(tmp_path / "hub").classes == NAMES


@pytest.mark.promise("1")
def test_what_transformers_saves(tmp_path):
    pytest.importorskip("transformers")
    from van.hosts.transformers import VanConfig, VanForImageClassification

    config = VanConfig.from_van(tiny().config)
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: i for i, name in enumerate(NAMES)}
    VanForImageClassification(config).save_pretrained(tmp_path / "whole")
    VanForImageClassification(config).save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    for name in ("whole", "parts"):
        assert checkpoints.read(tmp_path / name).classes == NAMES
        assert find_checkpoints([tmp_path / name]) == [str(tmp_path / name)]


@pytest.mark.promise("1")
def test_what_timm_saves_for_the_hub(tmp_path):
    timm = pytest.importorskip("timm")
    from timm.models import save_for_hf

    van.register("timm")
    sizes = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "mlp_ratios": (4, 4, 2, 2)}
    model = timm.create_model("van_b0", num_classes=5, **sizes)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "crop_pct": 0.7}
    for safe in (True, False):
        folder = tmp_path / f"timm{safe}"
        more = {"label_names": list(NAMES)}
        save_for_hf(model, folder, model_config=more, safe_serialization=safe, data_config={"img_size": 64})
        found = checkpoints.read(folder)
        assert found.classes == NAMES
        assert (found.preprocess.size, found.preprocess.mean, found.preprocess.crop_pct) == (
            (64, 64),
            (0.1, 0.2, 0.3),
            0.7,
        )
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"global_pool": "max"}))
    with pytest.warns(VanNotice, match="pools by 'max', van's classifier by 'avg'; the logits differ"):
        van.load(folder)


@pytest.mark.promise("1")
def test_a_snapshot_of_the_hubs_cache(run_folder, tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--org--name" / "blobs").mkdir()
    for name in ("model.safetensors", "recipe.yaml", "best.ckpt"):
        blob = tmp_path / "models--org--name" / "blobs" / f"{abs(hash(name)):x}"
        shutil.copy(run_folder / name, blob)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    assert facts(snapshot) == facts(run_folder)
    assert find_checkpoints([tmp_path / "models--org--name"]) == [str(snapshot)]
    from van.checkpoints.hub import download

    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text("a" * 40)
    assert facts(download("org/name", offline=True, cache=tmp_path)) == facts(run_folder)


# Folders of several


@pytest.mark.promise("1")
def test_a_folder_of_checkpoints_stands_for_each_of_them(run_folder, tmp_path):
    many = tmp_path / "many"
    shutil.copytree(run_folder, many / "first" / "run")
    (many / "first" / "run" / "history").mkdir()
    shutil.copy(run_folder / "last.ckpt", many / "first" / "run" / "history" / "epoch-1.ckpt")
    van.save(label(tiny()), many / "second", format="transformers")
    for name in ("b.safetensors", "a.safetensors", "model.safetensors", ".hidden.safetensors"):
        shutil.copy(run_folder / "model.safetensors", many / name)
    (many / "notes.txt").write_text("no checkpoint")
    (many / "up").symlink_to(tmp_path, target_is_directory=True)
    elsewhere = shutil.copytree(run_folder, tmp_path.parent / f"{tmp_path.name}-elsewhere")
    (many / "zz").symlink_to(elsewhere, target_is_directory=True)
    found = [path.removeprefix(f"{many}/") for path in find_checkpoints([many])]
    assert found == ["a.safetensors", "b.safetensors", "model.safetensors", "first/run", "second", "zz"]


@pytest.mark.promise("1")
def test_eval_takes_a_folder_of_checkpoints(run_folder, stripes, tmp_path, capsys):
    for name in ("a.safetensors", "model.safetensors"):
        shutil.copy(run_folder / "model.safetensors", tmp_path / name)
    command(capsys, "eval", tmp_path, "--data", stripes, "--json", tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert sorted(each["checkpoint"] for each in results) == [
        str(tmp_path / name) for name in ("a.safetensors", "model.safetensors")
    ]
    command(capsys, "eval", run_folder, "--data", stripes, "--json", tmp_path / "one.json")
    assert [each["checkpoint"] for each in json.loads((tmp_path / "one.json").read_text())["results"]] == [
        str(run_folder)
    ]


@pytest.mark.promise("1")
def test_a_folder_of_several_to_load_is_named_or_its_rule_is_said(run_folder, tmp_path):
    for name in ("b.pth", "a.pth"):
        van.save(label(tiny()), tmp_path / name, format="official")
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints \(a\.pth, b\.pth\); name one of them"):
        van.load(tmp_path)
    shutil.copy(run_folder / "model.safetensors", tmp_path)
    with pytest.warns(VanNotice, match=r"model\.safetensors is read; the folder also holds a\.pth, b\.pth"):
        van.load(tmp_path)
    shutil.copytree(run_folder, tmp_path / "outer" / "run")
    with pytest.raises(CheckpointError, match="there is one in each of its folders run; name one of them"):
        van.load(tmp_path / "outer")


# What a conversion must not lose


@pytest.mark.promise("1")
@pytest.mark.parametrize("lost", ["classes", "preprocess"])
def test_a_conversion_that_loses_what_was_known_is_no_conversion(tmp_path, monkeypatch, lost):
    van.save(label(tiny()), tmp_path / "x.safetensors")
    original = checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda one, path, to: original(replace(one, **{lost: None}), path, to))
    with pytest.raises(CheckpointError, match=f"reads back with {lost} "):
        van.convert(tmp_path / "x.safetensors", tmp_path / "y.pth", to="official")


@pytest.mark.promise("1")
def test_names_of_the_rules_are_those_of_the_runs():
    from van.train.checkpoint_io import BEST, LAST, PREVIOUS
    from van.train.folder import MODEL, RECIPE

    assert (BEST, LAST, PREVIOUS) == folders.RUN_CHECKPOINTS
    assert (folders.WEIGHTS[0], folders.RECIPE) == (MODEL, RECIPE)
