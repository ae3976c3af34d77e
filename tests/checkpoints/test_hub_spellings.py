"""Every way to write a repository of the hub means the same repository, revision and file."""

import shutil

import huggingface_hub
import pytest
import torch
from metadata import set_metadata
from networks import tiny

import van
from van import cli
from van.checkpoints import hub
from van.checkpoints.find import find_checkpoints
from van.checkpoints.hub import Reference
from van.errors import CheckpointError, ConfigError, VanNotice

REPO = "org/van-x"
COMMIT = "d" * 40
PAGE = f"https://huggingface.co/{REPO}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache with one repository: a folder in transformers' layout on main, one file on v1."""
    storage = tmp_path / "hub" / "models--org--van-x"
    for revision, commit in (("main", "c" * 40), ("v1", COMMIT), ("refs/pr/3", COMMIT)):
        reference = storage / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)
    for commit, classes in (("c" * 40, 5), (COMMIT, 3)):
        model = tiny(num_classes=classes).eval()
        set_metadata(model, classes=tuple("abcde"[:classes]), preprocess=None, provenance={})
        folder = storage / "snapshots" / commit
        folder.mkdir(parents=True)
        van.save(model, folder / "deep.safetensors")
        (folder / "sub").mkdir()
        shutil.copy(folder / "deep.safetensors", folder / "sub" / "other.safetensors")
        if classes == 5:
            van.save(model, folder / "whole", format="transformers")
            for file in (folder / "whole").iterdir():
                file.rename(folder / file.name)
            (folder / "whole").rmdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.promise("18")
@pytest.mark.parametrize(
    ("source", "means"),
    [
        (REPO, Reference(REPO)),
        (f"hf-hub:{REPO}", Reference(REPO)),
        (f"hf_hub:{REPO}", Reference(REPO)),
        (f"HF-Hub:{REPO}", Reference(REPO)),
        (f"hf-hub:{REPO}@v1", Reference(REPO, "v1")),
        (f"hf-hub:{REPO}@refs/pr/3", Reference(REPO, "refs/pr/3")),
        (f"hf://{REPO}", Reference(REPO)),
        (f"hf://{REPO}/", Reference(REPO)),
        (f"hf://models/{REPO}", Reference(REPO)),
        (f"hf://{REPO}@v1/sub/other.safetensors", Reference(REPO, "v1", "sub/other.safetensors")),
        (PAGE, Reference(REPO)),
        (f"{PAGE}/", Reference(REPO)),
        (f"http://www.huggingface.co/{REPO}#usage", Reference(REPO)),
        (f"huggingface.co/{REPO}", Reference(REPO)),
        (f"https://hf.co/{REPO}?library=timm", Reference(REPO)),
        (f"{PAGE}/tree/main", Reference(REPO, "main")),
        (f"{PAGE}/tree/{COMMIT}", Reference(REPO, COMMIT)),
        (f"{PAGE}/tree/refs%2Fpr%2F3", Reference(REPO, "refs/pr/3")),
        (f"{PAGE}/resolve/main/deep.safetensors", Reference(REPO, "main", "deep.safetensors")),
        (f"{PAGE}/resolve/main/deep.safetensors?download=true", Reference(REPO, "main", "deep.safetensors")),
        (f"{PAGE}/blob/v1/sub/other.safetensors", Reference(REPO, "v1", "sub/other.safetensors")),
        (f"{PAGE}/blob/refs/pr/3/deep.safetensors", Reference(REPO, "refs/pr/3", "deep.safetensors")),
    ],
)
def test_spellings(source, means):
    assert hub.is_hub_id(source)
    assert hub.reference(source) == means


@pytest.mark.promise("18")
@pytest.mark.parametrize(
    "source",
    [
        *("hf-hub:", "hf-hub:van_b0", "hf-hub:a/b/c", "hf-hub:/a/b", "hf-hub:org/na me", "hf-hub:org/name@", "hf://x"),
        *("https://huggingface.co", "https://huggingface.co/", "https://huggingface.co/van-x", f"{PAGE}/resolve/main"),
        *(f"{PAGE}/tree/main/sub", f"{PAGE}/discussions/3", f"{PAGE}/resolve/", f"{PAGE}/blob/main/"),
        *("https://huggingface.co/datasets/org/name", "https://huggingface.co/spaces/a/b", "hf://datasets/org/name"),
        "hf-hub:../../etc/passwd",
    ],
)
def test_nonsense_is_named(source):
    with pytest.raises(CheckpointError, match=r"names no model on the hub|no such file or folder|is a link") as caught:
        van.load(source)
    assert source in str(caught.value) or "no such file" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.promise("18")
def test_links_to_other_sites_are_not_followed():
    with pytest.raises(
        CheckpointError, match=r"https://example\.org/x\.pth is a link, which is not followed; download"
    ):
        van.load("https://example.org/x.pth")


@pytest.mark.promise("18")
def test_what_is_loaded():
    for source in (REPO, f"hf-hub:{REPO}", PAGE, f"{PAGE}/tree/main", f"{PAGE}/resolve/main/model.safetensors"):
        model = van.load(source)
        assert model.classes == tuple("abcde")
        assert model.provenance["source"] == REPO
    for source in (f"hf-hub:{REPO}@v1", f"{PAGE}/tree/refs/pr/3", f"hf://{REPO}@{COMMIT}/deep.safetensors"):
        assert van.load(source).classes == tuple("abc")
    model = van.load(f"{PAGE}/blob/v1/sub/other.safetensors")
    assert (model.provenance["revision"], model.provenance["file"]) == ("v1", "sub/other.safetensors")
    assert van.load(f"hf-hub:{REPO}", revision="v1").num_classes == 3
    assert van.load(f"hf-hub:{REPO}@v1", revision="v1").num_classes == 3
    with pytest.raises(ConfigError, match="names the revision 'v1', but revision= is 'main'"):
        van.load(f"hf-hub:{REPO}@v1", revision="main")
    with pytest.raises(CheckpointError, match=r"holds no gone\.pth; it holds config\.json, deep\.safetensors"):
        van.load(f"{PAGE}/resolve/main/gone.pth")


@pytest.mark.promise("18")
def test_the_spelling_of_timm_for_folders(cache, tmp_path):
    folder = cache / "models--org--van-x" / "snapshots" / ("c" * 40)
    assert van.load(f"local-dir:{folder}").classes == tuple("abcde")
    with pytest.raises(CheckpointError, match="no such file or folder: nowhere"):
        van.load("local-dir:nowhere")
    van.save(tiny(num_classes=2), tmp_path / "local-dir:mine")
    assert van.load("local-dir:mine").num_classes == 2


@pytest.mark.promise("1")
def test_an_unfinished_run_in_a_repository_is_what_its_folder_is(cache):
    folder = cache / "models--org--van-x" / "snapshots" / COMMIT
    (folder / "recipe.yaml").write_text("name: x\n")
    for name in ("last.ckpt", "best.ckpt"):
        shutil.copy(folder / "deep.safetensors", folder / name)
    with pytest.warns(VanNotice, match=r"the run has not finished; its best\.ckpt is used"):
        assert van.load(f"hf-hub:{REPO}@v1").num_classes == 3


@pytest.mark.promise("18")
@pytest.mark.parametrize("source", [f"hf-hub:{REPO}", f"{PAGE}/resolve/main/deep.safetensors"])
def test_every_verb_takes_them(source, capsys, tmp_path):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "x.png")
    for arguments in (["info", source], ["predict", source, "x.png"], ["convert", source, "x.pth", "--to", "official"]):
        assert cli.main(arguments) == 0, capsys.readouterr().err
    assert find_checkpoints([source, f"{PAGE}?x=[1]"]) == [source, f"{PAGE}?x=[1]"]


@pytest.mark.promise("18")
def test_keras_takes_them():
    pytest.importorskip("keras")
    from van.keras import VAN

    assert VAN(weights=f"hf-hub:{REPO}").classes == tuple("abcde")


@pytest.mark.promise("18")
def test_training_starts_from_them(tmp_path):
    from tiny_training import make_stripes, slim_recipe

    from van.train import run

    free = {"model.embed_dims": None, "model.depths": None, "trainer.epochs": 1}
    recipe = slim_recipe(make_stripes(tmp_path / "data"), tmp_path / "run", **free)
    with pytest.warns(VanNotice, match="a fresh head of 2 classes"):
        done = run(recipe.with_options(**{"model.checkpoint": f"hf-hub:{REPO}"}))
    assert van.load(done).provenance["started_from"]["source"] == REPO


@pytest.mark.promise("18")
def test_a_repository_of_a_whole_run_gives_its_result(cache):
    names = ["best.ckpt", "last.ckpt", "model.safetensors", "model-without-ema.safetensors", "recipe.yaml"]
    assert hub._choose(REPO, names, REPO) == ("model.safetensors", ["model.safetensors"])
    keras = ["config.json", "metadata.json", "model.weights.h5", "README.md"]
    assert hub._choose(REPO, keras, REPO) == (None, ["config.json", "metadata.json", "model.weights.h5"])
    assert torch.is_tensor(van.load(REPO).head.weight)
