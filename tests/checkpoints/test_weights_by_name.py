"""Published weights by name: which file is meant, how it comes, and what is said where it cannot come.

Nothing here reaches a network; a server on this machine stands for the publishers'.
"""

import hashlib
import http.server
import json
import os
import threading
from dataclasses import replace

import huggingface_hub
import published
import pytest
import torch
from networks import lived_in
from publishers import plain, publishers

import van
from van import checkpoints, cli
from van.checkpoints import hub, keys, sources
from van.configs import published_weights as weights
from van.errors import CheckpointError, ConfigError, UnknownOptionError, VanNotice

ROW = "openmmlab/van_b0"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A van_b0 as OpenMMLab's tools save it."""
    state = {key: value.numpy() for key, value in lived_in(van.create_model("van_b0")).state_dict().items()}
    path = tmp_path_factory.mktemp("file") / "x.pth"
    published.openmmlab(path, {keys.MMPRETRAIN.foreign(key): array for key, array in state.items()})
    return path.read_bytes()


class Publisher(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked += 1
        body = self.server.body[: self.server.cut]
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(content):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    server.body, server.asked, server.cut = content, 0, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def table(server, content, monkeypatch, tmp_path):
    """The table with the row's link and hash changed to those of the server here, and a cache of the test's own."""
    digits = hashlib.sha256(content).hexdigest()[:8]
    link = f"http://127.0.0.1:{server.server_address[1]}/x.pth"
    changed = tuple(replace(r, url=link, sha256=digits) if r.name == ROW else r for r in weights.WEIGHTS)
    monkeypatch.setattr(weights, "WEIGHTS", changed)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers: no link of the table is followed
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def place(folder, name=ROW):
    return folder / weights.by_name(name).filename


@pytest.mark.promise("20")
def test_weights_by_their_own_name(table, server):
    with pytest.warns(
        VanNotice, match=rf"{ROW}: the published weights {ROW} from http.*in1k, 75.41.*licence: Apache-2"
    ):
        model = van.load(ROW)
    assert model.config.layer_norm_eps == 1e-5  # the lineage's, as of any file of its kind
    assert model.provenance["published_as"] == ROW
    assert model.provenance["licence"]
    assert [file.name for file in table.iterdir()] == [place(table).name]
    with pytest.warns(VanNotice, match="the published weights"):
        van.load(ROW)
    assert server.asked == 1


@pytest.mark.promise("20")
def test_a_models_name_with_pretrained(table, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", tuple(row for row in weights.WEIGHTS if row.name.startswith("openmmlab/")))
    for name in ("van_b0", "van_tiny", "VAN-B0"):
        with pytest.warns(VanNotice, match=f"{name}: the published weights {ROW}"):
            assert van.load(name, pretrained=True).num_classes == 1000
    with pytest.warns(VanNotice), pytest.warns(VanNotice, match="a new one of 3"):
        assert van.load("van_b0", pretrained=True, num_classes=3).num_classes == 3


@pytest.mark.promise("20")
@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("van_b0", "official/van_b0"),
        ("van_b3", "official/van_b3"),
        ("van_b4", "openmmlab/van_b4"),
        ("light_ham_van_b0", "segmentation/light_ham_van_b0"),
        ("upernet_van_b2", "segmentation/upernet_van_b2"),
    ],
)
def test_which_weights_stand_for_a_model(model, row):
    assert weights.pretrained(model).name == row


@pytest.mark.promise("20")
def test_models_without_weights_of_their_own():
    with pytest.raises(ConfigError, match=r"no weights of van_b5 .*others have names: openmmlab/van_b5_in21k, .*_22k$"):
        van.load("van_b5", pretrained=True)
    with pytest.raises(ConfigError, match=r"no weights of van_b6_480 for ImageNet-1K or ADE20K were published$"):
        van.load("van_b6_480", pretrained=True)
    with pytest.raises(ConfigError, match="pretrained needs the name of a model"):
        van.load("x.safetensors", pretrained=True)
    with pytest.raises(ConfigError, match="revision='main' is for hub ids"):
        van.load(ROW, revision="main")


@pytest.mark.promise("20")
def test_a_models_name_alone_says_what_to_write():
    with pytest.raises(
        CheckpointError, match=r"'van_b0' is a model's name.*pretrained=True.*van\.create_model\('van_b0'\)"
    ):
        van.load("van_b0")
    with pytest.raises(CheckpointError, match=r"published weights have names of their own \(official/van_b0, "):
        van.load("VAN-Tiny")
    with pytest.raises(CheckpointError, match="retinanet_van_b0 is a detector") as caught:
        van.load("retinanet_van_b0")
    assert "pretrained" not in str(caught.value)
    assert cli.main(["eval", "light_ham_van_b0", "--data", "scenes"]) == 2


@pytest.mark.promise("20")
def test_fresh_models_are_not_pretrained():
    with pytest.raises(UnknownOptionError, match=r"van\.load\('van_b0', pretrained=True\) fetches published ones"):
        van.create_model("van_b0", pretrained=True)


@pytest.mark.promise("20")
@pytest.mark.parametrize("source", [None, 3, ["a.pth"], {}, van.create_model("van_b0", embed_dims=(8, 8, 8, 8))])
def test_what_is_no_path_is_named(source):
    for call in (van.load, van.info):
        with pytest.raises(ConfigError, match=rf"got a {type(source).__name__}; expected a path, a hub id") as caught:
            call(source)
        assert "\n" not in str(caught.value)


@pytest.mark.promise("1")
def test_paths_in_bytes_are_paths(tmp_path):
    van.save(van.create_model("van_b0", num_classes=2, seed=0), tmp_path / "x.safetensors")
    assert van.load(os.fsencode(tmp_path / "x.safetensors")).num_classes == 2


@pytest.mark.promise("20")
def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "official").mkdir()
    van.save(van.create_model("van_b0", num_classes=2, seed=0), tmp_path / "official" / "van_b0")
    assert van.load("official/van_b0").num_classes == 2


# What goes wrong


@pytest.mark.promise("20")
def test_without_a_network_the_error_says_how_to_get_the_file(table, server, content, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    row = weights.by_name(ROW)
    with pytest.warns(VanNotice), pytest.raises(CheckpointError) as caught:
        van.load(ROW)
    for part in ("(offline)", row.url, f"sha256 begins with {row.sha256}", str(place(table))):
        assert part in str(caught.value)
    assert server.asked == 0
    table.mkdir()
    place(table).write_bytes(content)  # by hand
    with pytest.warns(VanNotice):
        assert van.load(ROW).num_classes == 1000


@pytest.mark.promise("20")
def test_a_server_that_is_not_there(table, monkeypatch):
    gone = tuple(replace(r, url="http://127.0.0.1:9/x.pth") if r.name == ROW else r for r in weights.WEIGHTS)
    monkeypatch.setattr(weights, "WEIGHTS", gone)
    with (
        pytest.warns(VanNotice),
        pytest.raises(CheckpointError, match=r"not available \(download of http.*download .* yourself and save it"),
    ):
        van.load(ROW)
    assert not list(table.iterdir())


@pytest.mark.promise("20")
def test_a_download_that_breaks_off_leaves_nothing(table, server):
    server.cut = 1000
    with pytest.warns(VanNotice), pytest.raises(CheckpointError, match=r"download of .* failed|not available"):
        van.load(ROW)
    assert not list(table.iterdir())
    server.cut = None
    with pytest.warns(VanNotice):
        assert van.load(ROW).num_classes == 1000


@pytest.mark.promise("20")
def test_another_file_than_the_published_one(table, server, content):
    server.body = content[:-1] + b"?"
    with pytest.warns(VanNotice), pytest.raises(CheckpointError, match=r"is not the published file: its sha256 is"):
        van.load(ROW)
    assert not list(table.iterdir())
    place(table).write_bytes(server.body)
    with pytest.warns(VanNotice), pytest.raises(CheckpointError, match=r"is not the published file: .*; delete it"):
        van.load(ROW)


@pytest.mark.promise("20")
def test_files_behind_google_drives_page(table, content, monkeypatch):
    name = "segmentation/light_ham_van_b0"
    link = plain(weights.by_name(name).url)
    rows = tuple(replace(row, url=link) if row.name == name else row for row in weights.WEIGHTS)
    monkeypatch.setattr(weights, "WEIGHTS", rows)
    with publishers() as server:
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        page = "drive.google.com/uc?export=download&id=1MkjNxqOuoVtt58jIKY-11B6TfDrdH1sX"
        server.serve(page, b"<title>Google Drive - Quota exceeded</title>", kind="text/html")
        with pytest.warns(VanNotice), pytest.raises(CheckpointError, match=r"Quota exceeded.*save it as") as caught:
            van.load("light_ham_van_b0", pretrained=True)
        assert f"download {link} yourself" in str(caught.value)
        assert not list(table.iterdir())
        server.drive("1MkjNxqOuoVtt58jIKY-11B6TfDrdH1sX", content)
        with pytest.warns(VanNotice, match=f"light_ham_van_b0: the published weights {name}"):
            assert van.load("light_ham_van_b0", pretrained=True).num_classes == 1000  # of what lies there


@pytest.mark.promise("20")
def test_rows_without_a_link(table):
    with (
        pytest.warns(VanNotice),
        pytest.raises(CheckpointError, match=r"no link was published.*load a file that you have"),
    ):
        van.load("segmentation/upernet_van_b0")


@pytest.mark.promise("20")
def test_rows_of_the_hub_come_through_its_client(table, monkeypatch, tmp_path):
    asked, commit = [], weights.by_name("official/van_b0").revision

    def download(repo, *, revision, **options):
        asked.append((repo, revision))
        van.save(van.create_model("van_b0", seed=0), tmp_path / "x.pth.tar", format="official")
        return tmp_path / "x.pth.tar"

    monkeypatch.setattr(hub, "download", download)
    with pytest.warns(VanNotice, match="official/van_b0 from hub:Visual-Attention-Network/VAN-Tiny-original"):
        model = van.load("van_b0", pretrained=True)
    assert asked == [("Visual-Attention-Network/VAN-Tiny-original", commit)]
    assert model.provenance["revision"] == commit
    assert model.provenance["source"] == "hub:Visual-Attention-Network/VAN-Tiny-original/van_tiny_754.pth.tar"

    def unreachable(repo, **options):
        raise CheckpointError("the hub cannot be reached")

    monkeypatch.setattr(hub, "download", unreachable)
    with pytest.warns(VanNotice), pytest.raises(CheckpointError) as caught:
        van.load("van_b0", pretrained=True)
    link = f"https://huggingface.co/Visual-Attention-Network/VAN-Tiny-original/resolve/{commit}/van_tiny_754.pth.tar"
    for part in (
        link,
        "the hub cannot be reached",
        "drive.google.com",
        str(table / "van_tiny_754.pth.tar"),
        "sha256 was not published",
    ):
        assert part in str(caught.value)


@pytest.mark.promise("20")
def test_where_the_hub_fails_the_mirrors_are_asked_in_their_order(table, content, monkeypatch):
    row = weights.by_name("official/van_b0")
    rows = tuple(replace(r, mirrors=tuple(map(plain, r.mirrors))) if r is row else r for r in weights.WEIGHTS)
    monkeypatch.setattr(weights, "WEIGHTS", rows)

    def unreachable(repo, **options):
        raise CheckpointError("the hub cannot be reached")

    monkeypatch.setattr(hub, "download", unreachable)
    with publishers() as server:
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        server.serve(row.mirrors[1], redirect="http://cloud.tsinghua.edu.cn/seafhttp/files/1/van_tiny_754.pth.tar")
        server.serve("http://cloud.tsinghua.edu.cn/seafhttp/files/1/van_tiny_754.pth.tar", content)
        with (
            pytest.warns(VanNotice, match="the published weights"),
            pytest.warns(VanNotice, match=r"comes from http://cloud\.tsinghua.*hub cannot be reached; .*drive.*404"),
        ):
            assert van.load("official/van_b0").num_classes == 1000
    assert [file.name for file in table.iterdir()] == ["van_tiny_754.pth.tar"]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    place(table, row.name).unlink()
    with pytest.warns(VanNotice), pytest.raises(CheckpointError, match=r"not available \(the hub cannot be reached\)"):
        van.load("official/van_b0")


# The command line


@pytest.mark.promise("20")
def test_every_verb_takes_the_name(table, capsys, tmp_path):
    assert cli.main(["info", ROW, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["provenance"]["published_as"] == ROW
    assert "the published weights" in told.err
    assert cli.main(["convert", ROW, str(tmp_path / "x.safetensors"), "--to", "van"]) == 0
    assert checkpoints.read(tmp_path / "x.safetensors").provenance["published_as"] == ROW
    assert sources.find(tmp_path / "x.safetensors").row is None


@pytest.mark.promise("20")
def test_the_list_of_weights(capsys):
    assert cli.main(["list", "--weights", "van_b4"]) == 0
    out = capsys.readouterr().out
    for part in ("openmmlab/van_b4", "84.13 / 96.86", "Apache-2.0", "download.openmmlab.com"):
        assert part in out.replace("\n", "")
    assert cli.main(["list", "--weights", "official/*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [f"official/van_b{i}" for i in range(4)]
    assert cli.main(["list", "--weights", "nonsense"]) == 2
    capsys.readouterr()
    assert cli.main(["list", "van_b*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == "van_b0"
    assert torch.__version__
