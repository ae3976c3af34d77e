import argparse
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.parse

import huggingface_hub
import numpy as np
import pytest
import torch
from reference_data import golden, inputs, manifest, state
from safetensors.numpy import save_file

import van
from van.checkpoints import hub
from van.errors import CheckpointError, ConfigError, VanNotice

TINY, ORIGINAL = "Visual-Attention-Network/van-tiny", "Visual-Attention-Network/VAN-Tiny-original"
COMMITS = {"main": "a" * 40, "refs/pr/3": "b" * 40, "v1": "c" * 40}
PROCESSOR = {"crop_pct": 0.875, "size": 224, "resample": 3, "image_mean": [0.485, 0.456, 0.406]}
PROCESSOR |= {"image_std": [0.229, 0.224, 0.225]}
OTHER_PREPROCESSING = "preprocessor_config.json says mean"


def hub_state(salt=""):
    return state("hf_van_tiny", salt)


def config_json():
    return json.dumps(
        {
            **{"architectures": ["VanForImageClassification"], "model_type": "van"},
            **{key: value for key, value in manifest("hf_van_tiny")["config"].items() if key != "num_labels"},
            "id2label": {str(i): f"class {i}" for i in range(1000)},
        }
    )


def tensors(arrays):
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def write_tiny(folder, *, safetensors, salt=""):
    (folder / "config.json").write_text(config_json())
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "README.md").write_text("a model card")
    if safetensors:
        save_file(hub_state(salt), folder / "model.safetensors", {"format": "pt"})
    else:
        torch.save(tensors(hub_state(salt)), folder / "pytorch_model.bin")


def write_original(folder):
    saved = {"epoch": 300, "arch": "van_tiny", "state_dict": tensors(state("official_van_b0")), "version": 2}
    torch.save({**saved, "args": argparse.Namespace(lr=0.001), "metric": 75.4}, folder / "van_tiny_754.pth.tar")
    (folder / ".gitattributes").write_text("")


def snapshot(cache, repo, revision="main"):
    """A folder of the hub's cache as huggingface_hub lays it out."""
    storage = cache / f"models--{repo.replace('/', '--')}"
    folder = storage / "snapshots" / COMMITS[revision]
    folder.mkdir(parents=True)
    reference = storage / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(COMMITS[revision])
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What huggingface_hub would have left: blobs, and links to them in the snapshots."""
    cache = tmp_path_factory.mktemp("hub")
    write_tiny(snapshot(cache, TINY), safetensors=False)
    write_tiny(snapshot(cache, TINY, "refs/pr/3"), safetensors=True, salt="other")
    write_original(snapshot(cache, ORIGINAL))
    for number, file in enumerate(sorted(cache.glob("models--*/snapshots/*/*"))):
        blobs = file.parents[2] / "blobs"
        blobs.mkdir(exist_ok=True)
        blob = file.replace(blobs / f"{number:064x}")
        file.symlink_to(os.path.relpath(blob, file.parent))
    return cache


@pytest.fixture
def offline(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def no_network(*args, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)


def run_python(code, folder, **environment):
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


# Ids and paths


@pytest.mark.parametrize("source", [TINY, ORIGINAL, "a/b", "org/name.v2", "my-org_1/van_b0"])
def test_hub_ids(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_id(source)


@pytest.mark.parametrize(
    "source",
    ["van_b0", "a/b/c", "/a/b", "./a", "../a", "~/a", "a/", "/a", "a b/c", "https://x.org/a", "C:\\a\\b", ""],
)
def test_paths(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not hub.is_hub_id(source)


@pytest.mark.parametrize("source", ["a/b.pth", "a/van_tiny_754.pth.tar", "a/m.safetensors", "a/B.H5", "a/w.weights.h5"])
def test_file_names_are_paths(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not hub.is_hub_id(source)


def test_an_existing_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Visual-Attention-Network").mkdir()
    assert hub.is_hub_id(TINY)
    (tmp_path / TINY).mkdir()
    assert not hub.is_hub_id(TINY)
    assert not hub.is_hub_id(tmp_path / "not-there" / "x")


# The cache alone


def test_environment_cache_and_offline_mode_give_the_golden_logits(cache, tmp_path):
    (tag, images), wanted = inputs("hf_van_tiny")[-1], golden("hf_van_tiny")
    assert inputs("official_van_b0")[-1][0] == tag
    np.save(tmp_path / "x.npy", images)
    code = f"""
import numpy as np, torch, van
x = torch.from_numpy(np.load("x.npy"))
for k, source in enumerate(({TINY!r}, {ORIGINAL!r})):
    model = van.load(source)
    with torch.no_grad():
        np.save(f"{{k}}.npy", model(x).numpy())
    print(model.preprocess.crop_pct, model.provenance["source"], model.provenance["published_as"])
"""
    done = run_python(code, tmp_path, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"0.9 {TINY} hub/van_b0", f"0.9 {ORIGINAL} official/van_b0"]
    for k, told in enumerate((wanted, golden("official_van_b0"))):
        np.testing.assert_allclose(np.load(tmp_path / f"{k}.npy"), told[f"{tag}/logits"], rtol=0, atol=1e-5)


def test_what_is_downloaded(cache, offline):
    assert hub.download(TINY) == cache / "models--Visual-Attention-Network--van-tiny" / "snapshots" / COMMITS["main"]
    assert hub.download(ORIGINAL).name == "van_tiny_754.pth.tar"
    assert hub.download(ORIGINAL, cache=cache, offline=True) == hub.download(ORIGINAL)


def load(source, **options):
    with pytest.warns(VanNotice, match=OTHER_PREPROCESSING):
        return van.load(source, **options)


def test_labels_and_licence_come_along(offline):
    model = load(TINY)
    assert model.classes[285] == "class 285"
    assert model.provenance["licence"] == "Apache-2.0"


@pytest.mark.parametrize("revision", ["refs/pr/3", COMMITS["refs/pr/3"]])
def test_revisions_are_told_apart(offline, revision):
    head = load(TINY, revision=revision).head.weight.detach().numpy()
    assert np.array_equal(head, hub_state("other")["classifier.weight"])
    assert np.array_equal(load(TINY).head.weight.detach().numpy(), hub_state()["classifier.weight"])


def test_unknown_revision_lists_those_in_the_cache(offline):
    with pytest.raises(
        CheckpointError,
        match=r"revision 'v9' .* is not available .*: its cache has the revisions main, refs/",
    ):
        van.load(TINY, revision="v9")


def test_not_in_the_cache(offline):
    with pytest.raises(CheckpointError, match=r"no file 'some/where'.*\(offline\).*it is not in the cache") as caught:
        van.load("some/where")
    assert "\n" not in str(caught.value)


def test_revision_of_a_path_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="revision"):
        van.load(tmp_path, revision="main")


def test_files_that_are_gone_do_not_count(tmp_path):
    folder = snapshot(tmp_path, TINY)
    (folder / "config.json").write_text(config_json())
    (folder / "pytorch_model.bin").symlink_to("../../blobs/gone")
    with pytest.raises(CheckpointError, match=r"the cache of '.*' \(offline\) holds no checkpoint.*holds config.json$"):
        hub.download(TINY, offline=True, cache=tmp_path)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards(tmp_path, ending):
    folder, arrays = snapshot(tmp_path, TINY), hub_state()
    names = list(arrays)
    (folder / "config.json").write_text(config_json())
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    parts = {f"{stem}-0000{k}-of-00002.{ending}": names[(k - 1) * 200 : k * 200 + 200 * (k == 2)] for k in (1, 2)}
    for part, keys in parts.items():
        piece = {key: arrays[key] for key in keys}
        if ending == "bin":
            torch.save(tensors(piece), folder / part)
        else:
            save_file(piece, folder / part)
    index = {"weight_map": {key: part for part, keys in parts.items() for key in keys}}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    model = van.load(hub.download(TINY, offline=True, cache=tmp_path))
    assert np.array_equal(model.head.weight.detach().numpy(), arrays["classifier.weight"])
    (folder / next(iter(parts))).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {stem}-00001-of-00002.{ending}"):
        hub.download(TINY, offline=True, cache=tmp_path)


# What is chosen from a repository


def choose(names, source="some/one"):
    return hub._choose(source, names, source)


@pytest.mark.parametrize(
    ("names", "entry", "files"),
    [
        (
            ["pytorch_model.bin", "model.safetensors", "config.json", "preprocessor_config.json", "tf_model.h5"],
            None,
            ["config.json", "preprocessor_config.json", "model.safetensors"],
        ),
        (["config.json", "pytorch_model.bin", "x.pth"], None, ["config.json", "pytorch_model.bin"]),
        (["README.md", "any.pth.tar", "logs/x.pth"], "any.pth.tar", ["any.pth.tar"]),
        (["model.safetensors", "README.md"], "model.safetensors", ["model.safetensors"]),
        (["a.pth", "b.safetensors"], "a.pth", ["a.pth"]),
        (["van_b0.h5"], "van_b0.h5", ["van_b0.h5"]),
    ],
)
def test_choice(names, entry, files):
    assert choose(names) == (entry, files)


def test_known_file_name_decides():
    assert choose(["other.pth", "van_tiny_754.pth.tar"], ORIGINAL) == ("van_tiny_754.pth.tar", ["van_tiny_754.pth.tar"])


def test_several_files_are_not_guessed():
    with pytest.raises(CheckpointError, match=r"some/one holds 2 weight files: a\.pth, b\.pth; download one"):
        choose(["a.pth", "b.pth"])


def test_nothing_to_load_lists_what_is_there():
    with pytest.raises(CheckpointError, match=r"no checkpoint.*README\.md, config\.json, sub/x\.pth$"):
        choose(["sub/x.pth", "config.json", "README.md"])
    with pytest.raises(CheckpointError, match="it holds nothing"):
        choose([])


# With a connection: a hub of our own on this machine


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as looking up and downloading a model takes."""

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append(path)
        for repo, files in self.server.repos.items():
            if path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/main"):
                siblings = [{"rfilename": name} for name in files]
                return self.answer({"id": repo, "sha": COMMITS["main"], "siblings": siblings})
            if path.startswith(f"/api/models/{repo}/tree/"):
                return self.answer(
                    [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files]
                )
            if path.startswith(f"/api/models/{repo}/revision/"):
                return self.answer({"error": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
            if path.startswith(f"/{repo}/resolve/"):
                return self.answer(files[path.rsplit("/", 1)[1]])
        if path.startswith("/files/"):
            length = {"Content-Length": "999"} if path.endswith("/short") else {}
            return self.answer(b"some bytes", 404 if path.endswith("/gone") else 200, length)
        code = "GatedRepo" if "/gated/" in path else "RepoNotFound"
        return self.answer({"error": "no"}, 403 if code == "GatedRepo" else 401, {"X-Error-Code": code})

    def answer(self, body, status=200, headers=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        told = {"Content-Length": str(len(body)), "ETag": f'"{len(body)}"', "X-Repo-Commit": COMMITS["main"]}
        for name, value in {**told, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    folder = tmp_path_factory.mktemp("repo")
    write_tiny(folder, safetensors=True)
    (folder / "tf_model.h5").write_bytes(b"not wanted")
    server.repos = {TINY: {file.name: file.read_bytes() for file in folder.iterdir()}}
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def address(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_online_download_takes_what_is_needed_and_works_offline_afterwards(server, tmp_path):
    environment = {"HF_ENDPOINT": address(server), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    code = f"""
import warnings
from van import hub
from van.errors import CheckpointError
folder = hub.download({TINY!r})
print(*sorted(p.name for p in folder.iterdir()))
print(hub.download({TINY!r}, offline=True) == folder)
for source, revision in (({TINY!r}, "v9"), ("Visual-Attention-Network/van-tyni", None), ("gated/model", None)):
    try:
        hub.download(source, revision=revision)
    except CheckpointError as error:
        print(error)
"""
    done = run_python(code, tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "config.json model.safetensors preprocessor_config.json"
    assert lines[1] == "True"
    assert "has no revision 'v9'" in lines[2]
    assert "no file and no hub repository 'Visual-Attention-Network/van-tyni'" in lines[3]
    assert "did you mean 'Visual-Attention-Network/van-tiny'?" in lines[3]
    assert "gated" in lines[4]
    assert len(lines) == 5
    assert not any("tf_model.h5" in path for path in server.asked if "/resolve/" in path)


def test_without_a_connection_the_cache_is_taken_and_that_is_said(cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def unreachable(*args, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub.HfApi, "model_info", unreachable)
    with pytest.warns(VanNotice, match=r"cannot be reached: ConnectionError: no route to host; '.*' is read from the"):
        assert hub.download(ORIGINAL).name == "van_tiny_754.pth.tar"
    with pytest.raises(CheckpointError, match=r"cannot be reached: .*it is not in the cache"):
        hub.download("some/where")


# Plain links


def test_url_becomes_a_file_and_is_not_fetched_twice(server, tmp_path):
    target = tmp_path / "sub" / "file.bin"
    assert hub.fetch_url(f"{address(server)}/files/whole", target).read_bytes() == b"some bytes"
    before = len(server.asked)
    assert hub.fetch_url(f"{address(server)}/files/whole", target) == target
    assert len(server.asked) == before


@pytest.mark.parametrize(("path", "told"), [("gone", "404"), ("short", "10 of 999 bytes|IncompleteRead")])
def test_failed_download_leaves_nothing(server, tmp_path, path, told):
    with pytest.raises(CheckpointError, match=rf"download of .*/{path} failed: .*({told})"):
        hub.fetch_url(f"{address(server)}/files/{path}", tmp_path / "file.bin")
    assert not list(tmp_path.iterdir())


def test_unreachable_link(tmp_path):
    with pytest.raises(CheckpointError, match="failed: URLError"):
        hub.fetch_url("http://127.0.0.1:9/x", tmp_path / "file.bin")


@pytest.mark.network
@pytest.mark.parametrize("repo", [TINY, ORIGINAL])
def test_the_real_hub(repo, tmp_path):
    assert van.load(hub.download(repo, cache=tmp_path)).num_classes == 1000
