"""`van verify-weights` against a server on this machine that plays every publisher, with networks of a few channels."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import huggingface_hub
import pytest
from publishers import plain, publishers
from safetensors.numpy import load_file, save_file

import van
from van import cli
from van.checkpoints import transfer
from van.configs import published_facts
from van.configs import published_weights as weights
from van.errors import UnknownNameError
from van.tools import verify_photographs, verify_report
from van.tools import verify_weights as verify
from van.tools.verify_photographs import Seen

DIMS = {"embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Format -> bytes of a small network's file."""
    folder = tmp_path_factory.mktemp("files")
    classifier = van.create_model("van_b0", num_classes=7, seed=0, layer_norm_eps=1e-6, **DIMS)
    other = van.create_model("van_b0", num_classes=7, seed=1, layer_norm_eps=1e-6, **DIMS)
    backbone = van.create_model("van_b0", num_classes=0, seed=0, layer_norm_eps=1e-6, **DIMS)
    segmenter = van.create_model("semantic_fpn_van_b0", num_classes=5, seed=0, **DIMS)
    van.save(classifier, folder / "official", format="official")
    van.save(other, folder / "other", format="official")
    van.save(backbone, folder / "backbone", format="official")
    van.save(segmenter, folder / "mmseg", format="mmseg")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def row(name, **changes):
    """A row of the table, of a small network behind an http link."""
    found = weights.by_name(name)
    own = {"model": "van_custom", "num_classes": 7, "format": "official", "layer_norm_eps": 1e-6, "sha256": None}
    if found.task == "segmentation":
        own |= {"model": "semantic_fpn_van_custom", "num_classes": 5, "format": "mmseg"}
    links = {"url": found.url and plain(found.url), "mirrors": tuple(map(plain, found.mirrors))}
    return replace(found, **own | links | {"dataset": "none"} | changes)


DRIVE_ROW, CLOUD_ROW = "segmentation/semantic_fpn_van_b0", "segmentation/upernet_van_b2"


@pytest.fixture
def server(contents, monkeypatch):
    """Every publisher of a plain link: OpenMMLab, GitHub, Baidu, Tsinghua Cloud and Google Drive."""
    with publishers() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(transfer, "PAUSE_S", 0.001)
        server.serve(row("openmmlab/van_b0").url, contents["official"])
        server.serve(row("paddle/van_b0").url, contents["official"])
        server.serve(row("tfvan/van_b0").url, redirect="http://objects.githubusercontent.com/van_tiny.h5?token=1")
        server.serve("objects.githubusercontent.com/van_tiny.h5", contents["official"])
        for name, served in ((CLOUD_ROW, "mmseg"), ("tsinghua/van_b0", "official")):
            server.serve(row(name).url, redirect=f"http://cloud.tsinghua.edu.cn/seafhttp/files/{served}")
            server.serve(f"cloud.tsinghua.edu.cn/seafhttp/files/{served}", contents[served])
        server.drive(re.search(r"/d/([\w-]+)/", row(DRIVE_ROW).url)[1], contents["mmseg"])
        yield server


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def check(checked, folder, **options):
    """The one Check of a row; downloads go to `folder`."""
    (result,) = verify.verify([checked], cache=folder, **options)
    return result


def in_cache(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("openmmlab/van_b0", "official"),
        ("paddle/van_b0", "official"),
        ("tfvan/van_b0", "official"),
        ("tsinghua/van_b0", "official"),
        (CLOUD_ROW, "mmseg"),
        (DRIVE_ROW, "mmseg"),
    ],
)
def test_every_publisher(server, contents, tmp_path, name, content):
    asked = row(name, sha256=sha256(contents[content])[:8])
    seen = []
    result = check(asked, tmp_path, progress=lambda *at: seen.append(at))
    assert (result.status, result.detail.split(";")[0]) == ("ok", f"loads, with {asked.num_classes} classes")
    assert (result.link, result.sha256) == (asked.url, sha256(contents[content]))
    assert result.facts["bytes"] == len(contents[content])
    assert result.facts["format"] == asked.format
    assert not result.differences
    assert {new.name for new in result.news} == {"sha256", "bytes"}  # the whole hash; the table had its first digits
    assert len(in_cache(tmp_path)) == 1
    assert seen[-1] == (asked, len(contents[content]), len(contents[content]))
    again = check(asked, tmp_path)
    assert (again.status, again.link) == ("ok", None)


def test_an_interrupted_transfer_resumes(server, contents, tmp_path):
    asked = row("openmmlab/van_b0")
    server.serve(asked.url, contents["official"], cuts=[1000, 2000])
    assert check(asked, tmp_path).status == "ok"
    assert [headers.get("Range") for headers in server.asked_for("/van-tiny")] == [None, "bytes=1000-", "bytes=3000-"]


def test_wrong_bytes_are_named_with_both_hashes_and_read_all_the_same(server, contents, tmp_path):
    asked = row("openmmlab/van_b0", sha256=sha256(contents["official"])[:8])
    server.serve(asked.url, contents["other"])
    result = check(asked, tmp_path)
    found = sha256(contents["other"])
    assert (result.status, result.sha256) == ("failed", found)
    assert f"sha256 is {found}, expected {asked.sha256}…" in result.detail
    assert "loads, with 7 classes" in result.detail
    assert any("is kept as" in note for note in result.notes)
    assert in_cache(tmp_path) == [f"{asked.filename}.wrong-{found[:8]}"]
    server.serve(asked.url, contents["official"])
    assert check(asked, tmp_path).status == "ok"
    (tmp_path / asked.filename).write_bytes(contents["other"])  # where a user saves a file
    result = check(asked, tmp_path)
    assert (result.status, result.sha256) == ("failed", found)
    assert (tmp_path / asked.filename).exists()


def test_mirrors_in_order_and_what_is_nowhere(server, contents, tmp_path):
    asked = row("paddle/van_b0", url="http://gone.example/x.pth", mirrors=(row("openmmlab/van_b0").url,))
    result = check(asked, tmp_path)
    assert (result.status, result.link) == ("ok", asked.mirrors[0])
    assert "404" in result.notes[0]
    nowhere = replace(asked, name="paddle/van_b1", filename="y.pth", mirrors=("http://gone.example/y.pth",))
    results = list(verify.verify([nowhere, asked], cache=tmp_path))
    assert [one.status for one in results] == ["failed", "ok"]
    assert results[0].detail.count("HTTP Error 404") == 2
    assert "save it as" in results[0].detail
    assert in_cache(tmp_path) == [asked.filename]


def test_a_file_that_is_no_checkpoint_fails_alone(server, tmp_path):
    asked = row("openmmlab/van_b0")
    server.serve(asked.url, b"nothing of the kind")
    result = check(asked, tmp_path)
    assert (result.status, result.facts["bytes"]) == ("failed", 19)
    assert "not a checkpoint" in result.detail


def test_two_rows_with_the_same_bytes_are_noticed(server, contents, tmp_path):
    rows = [row("openmmlab/van_b0"), row("paddle/van_b0"), row(DRIVE_ROW)]
    notes = [result.notes for result in verify.verify(rows, cache=tmp_path)]
    assert notes == [(), ("the same bytes as openmmlab/van_b0",), ()]


def test_a_publishers_error_is_named(server, tmp_path):
    asked = row("openmmlab/upernet_van_b4", url=row(CLOUD_ROW).url)
    assert check(asked, tmp_path).notes[0].startswith("its link has the digits of B3's file, 653bd6b7")


def test_a_backbone_without_a_head(contents, tmp_path):
    (tmp_path / "x.pth").write_bytes(contents["backbone"])
    asked = row("openmmlab/van_b0_backbone", num_classes=0)
    result = check(asked, tmp_path, fetch=lambda row, cache: tmp_path / "x.pth", engines=["torch"])
    assert (result.status, result.seen) == ("ok", ())
    assert "without a head" in result.notes[0]


def test_the_smallest_real_file_as_transformers_lays_it_out(tmp_path):
    """VanModel, of the sizes of transformers' tests: no classifier, no prefix before the keys."""
    dims = {"embed_dims": (10, 20, 30, 40), "depths": (1, 1, 2, 1)}
    folder = tmp_path / "tiny-random-VanModel"
    van.save(van.create_model("van_b0", num_classes=0, seed=0, **dims), folder, format="transformers")
    arrays = {key.removeprefix("van."): array for key, array in load_file(folder / "model.safetensors").items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    kept = {
        key: value for key, value in config.items() if key in ("model_type", "hidden_sizes", "depths", "mlp_ratios")
    }
    (folder / "config.json").write_text(json.dumps({**kept, "architectures": ["VanModel"]}))
    result = check(weights.SMOKE, tmp_path, fetch=lambda row, cache: folder)
    assert (result.status, result.differences) == ("ok", ())


@pytest.mark.network
def test_a_first_contact_with_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    result = check(weights.SMOKE, tmp_path)
    assert result.status == "ok", result.detail


# Photographs


def test_what_is_seen_on_the_photographs(contents, tmp_path):
    (tmp_path / "x.pth").write_bytes(contents["official"])
    asked, options = row("openmmlab/van_b0"), {"fetch": lambda row, cache: tmp_path / "x.pth"}
    result = check(asked, tmp_path, engines=["torch"], **options)
    assert (result.status, result.notes) == ("ok", ())
    assert [(one.photograph, one.engine) for one in result.seen] == [("china.jpg", "torch"), ("flower.jpg", "torch")]
    predictor = van.Predictor(tmp_path / "x.pth")
    for (name, image), labelled in zip(verify_photographs.photographs(), result.facts["labels"], strict=True):
        prediction = predictor(image)
        assert labelled == (name, prediction.index, round(prediction.probability, 4))

    labels = result.facts["labels"]
    known = check(replace(asked, labels=labels), tmp_path, engines=["torch"], **options)
    assert (known.status, "labels" in {new.name for new in known.news}) == ("ok", False)
    for wrong in ((labels[0], (*labels[1][:2], labels[1][2] + 0.1)), ((labels[0][0], 6, labels[0][2]), labels[1])):
        result = check(replace(asked, labels=wrong), tmp_path, engines=["torch"], **options)
        assert (result.status, [one.name for one in result.differences]) == ("failed", ["labels"])
        assert "the photographs are labelled" in result.detail


@pytest.mark.long
def test_a_segmenters_label_is_its_largest_class(contents, tmp_path):
    (tmp_path / "x.pth").write_bytes(contents["mmseg"])
    shares = van.Predictor(tmp_path / "x.pth")(verify_photographs.photographs()[0][1]).shares
    seen, _ = verify_photographs.look(van.load(tmp_path / "x.pth"), tmp_path / "x.pth", ["torch"])
    assert (seen[0].label, seen[0].index, seen[0].score) == shares[0]


def seen(engine, index, score, photograph="china.jpg"):
    return Seen(photograph=photograph, engine=engine, label=f"c{index}", index=index, score=score)


def test_engines_that_disagree():
    same = [seen("torch", 3, 0.5), seen("onnx", 3, 0.501), seen("torch", 1, 0.2, "flower.jpg")]
    assert list(verify_photographs.disagreements(same)) == []
    (words,) = verify_photographs.disagreements([*same, seen("openvino", 3, 0.51)])
    assert words == "openvino sees 3 (c3) 0.5100 on china.jpg, torch 3 (c3) 0.5000"
    (words,) = verify_photographs.disagreements([*same, seen("keras", 2, 0.5)])
    assert words.startswith("keras sees 2 (c2)")
    assert verify_report.photograph_lines([*same, seen("keras", 2, 0.5)])[0].startswith(
        "china.jpg: 3 (c3) 0.5000 (torch, onnx); keras"
    )


def test_a_disagreement_is_a_failure(contents, tmp_path, monkeypatch):
    (tmp_path / "x.pth").write_bytes(contents["official"])
    monkeypatch.setattr(verify, "look", lambda *_: ((seen("torch", 3, 0.5), seen("onnx", 4, 0.5)), ("a note",)))
    result = check(
        row("openmmlab/van_b0"), tmp_path, fetch=lambda row, cache: tmp_path / "x.pth", engines=["torch", "onnx"]
    )
    assert (result.status, result.notes) == ("failed", ("a note",))
    assert result.detail.startswith("onnx sees 4 (c4) 0.5000 on china.jpg, torch 3 (c3)")


def test_without_scikit_learn_the_rest_is_checked(contents, tmp_path, monkeypatch):
    (tmp_path / "x.pth").write_bytes(contents["official"])
    verify_photographs.photographs.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = check(row("openmmlab/van_b0"), tmp_path, fetch=lambda row, cache: tmp_path / "x.pth", engines=["torch"])
    assert result.status == "ok"
    assert "visual-attention-network[export]" in result.notes[0]


def test_an_engine_that_does_not_exist():
    with pytest.raises(UnknownNameError, match="unknown engine 'onx'; did you mean 'onnx'"):
        verify.verify([], engines=["onx"])


@pytest.mark.long
def test_the_photographs_on_exported_files(contents, tmp_path):
    (tmp_path / "x.pth").write_bytes(contents["official"])
    found, notes = verify_photographs.look(van.load(tmp_path / "x.pth"), tmp_path / "x.pth", verify.ENGINES)
    engines = dict.fromkeys(one.engine for one in found)
    assert {"torch", "optimized", "onnx", "openvino"} <= set(engines)
    assert list(verify_photographs.disagreements(found)) == []
    assert all(note.startswith("keras was not run") for note in notes)


# Reports


@pytest.fixture
def checks(server, contents, tmp_path):
    """A file that differs in its epsilon, one of which little was known, one that is no checkpoint, one unlinked."""
    server.serve(row("paddle/van_b0").url, b"nothing of the kind")
    rows = [
        row("openmmlab/van_b0", layer_norm_eps=1e-5, sha256=sha256(contents["official"])),
        row("tsinghua/van_b0", num_classes=None),
        row("paddle/van_b0"),
        weights.by_name("segmentation/upernet_van_b0"),
    ]
    return list(verify.verify(rows, cache=tmp_path / "cache", engines=["torch"]))


def test_the_report_as_json(checks):
    told = json.loads(json.dumps([verify_report.to_dict(one) for one in checks]))
    assert [one["status"] for one in told] == ["failed", "ok", "failed", "skipped"]
    assert told[0]["differences"] == [{"name": "layer_norm_eps", "found": 1e-6, "expected": 1e-5}]
    assert told[1]["facts"]["num_classes"] == 7
    assert told[1]["link"].startswith("http://cloud.tsinghua.edu.cn/")
    assert told[0]["photographs"][0]["photograph"] == "china.jpg"


def test_the_report_as_a_table(checks, contents):
    lines = verify_report.markdown(checks).splitlines()
    assert {line.count("|") - line.count("\\|") for line in lines[:6]} == {11}
    assert sha256(contents["official"]) in lines[2]
    assert "epsilon reads as 1e-06, expected 1e-05" in lines[2]
    assert re.search(r"china.jpg: \d 0\.\d{4} \(torch\); flower.jpg: ", lines[3])
    assert "| 7 | 1e-06 |" in lines[3]
    bars = verify_report.markdown([replace(checks[3], detail="a | b\nc")]).splitlines()
    assert bars[2].endswith("| a \\| b c |")


def facts_in(text):
    module = {}
    exec(compile(text, "published_facts.py", "exec"), module)
    return module["FACTS"]


def test_the_proposal_is_what_the_table_should_say(checks, contents, tmp_path, server):
    text = verify_report.proposal(checks, {"keras/van_b3": {"bytes": 5}, "openmmlab/van_b0": {"top5": 1.0, "bytes": 1}})
    facts = facts_in(text)
    assert set(facts) == {"keras/van_b3", "openmmlab/van_b0", "tsinghua/van_b0"}  # not of the file that was not read
    assert facts["keras/van_b3"] == {"bytes": 5}
    found = facts["openmmlab/van_b0"]
    assert (found["layer_norm_eps"], found["bytes"], found["top5"]) == (1e-6, len(contents["official"]), 1.0)
    assert "sha256" not in found  # the table has all of it
    assert "# layer_norm_eps was 1e-05" in text
    assert facts["tsinghua/van_b0"]["sha256"] == sha256(contents["official"])
    assert facts["tsinghua/van_b0"]["num_classes"] == 7
    assert max(map(len, text.splitlines())) <= 120
    accepted = [replace(one.weight, **facts[one.weight.name]) for one in checks[:2]]
    for result in verify.verify(accepted, cache=tmp_path / "cache", engines=["torch"]):
        assert (result.status, result.differences, result.news) == ("ok", (), ())
    assert facts_in(verify_report.proposal([], facts)) == facts


def test_the_proposal_of_nothing_is_what_the_module_has():
    assert facts_in(verify_report.proposal([], {})) == {}
    assert facts_in(verify_report.proposal([])) == published_facts.FACTS


# The command


@pytest.fixture
def command(server, monkeypatch, capsys, tmp_path):
    rows = (row("openmmlab/van_b0"), row("tsinghua/van_b0"), weights.by_name("segmentation/upernet_van_b0"))
    monkeypatch.setattr(weights, "WEIGHTS", rows)

    def run(*arguments):
        code = cli.main(["verify-weights", "--cache", str(tmp_path / "cache"), *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_command_writes_reports_and_a_proposal(command, tmp_path, contents):
    table, records, proposal = tmp_path / "r.md", tmp_path / "r.json", tmp_path / "published_facts.py"
    code, out, err = command("*", "--engines", "torch", "--report", table, records, "--write", proposal)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[-1] == "2 ok, 0 failed, 1 skipped"
    assert lines[0].startswith("ok openmmlab/van_b0 loads, with 7 classes")
    assert f"{len(contents['official']):,} bytes" in lines
    assert f"sha256: nothing in the table, '{sha256(contents['official'])}' in the file" in lines
    assert any(line.startswith("china.jpg: ") for line in lines)
    assert table.read_text().count("\n| `") == 3
    assert [one["status"] for one in json.loads(records.read_text())] == ["ok", "ok", "skipped"]
    assert set(facts_in(proposal.read_text())) == {"openmmlab/van_b0", "tsinghua/van_b0"}


def test_command_as_json_lines(command):
    code, out, _ = command("openmmlab/*", "--engines", "", "--json")
    told = json.loads(out)
    assert (code, told["status"], told["facts"]["model"], told["photographs"]) == (0, "ok", "van_custom", [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report", "r.txt"], "r.txt"),
        (["--write", "there/is/none.py"], "no folder"),
        (["--write", "facts.json"], "facts.json"),
        (["--engines", "torch,onx"], "unknown engine 'onx'"),
        (["--cache", __file__], "is a file; give a folder"),
    ],
)
def test_command_with_bad_input(command, server, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = command("*", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not server.asked


def test_progress_where_no_terminal_shows_a_bar(command, server, contents, monkeypatch):
    from van.cli import verify_weights

    monkeypatch.setattr(verify_weights, "_REPORT_EVERY_S", 0.0)
    code, _, err = command("openmmlab/*", "--engines", "")
    assert code == 0
    assert re.search(r"^openmmlab/van_b0: 0 of 0 MB$", err, re.MULTILINE)


HUB_ROWS = """
import sys
from dataclasses import replace
from van import cli
from van.configs import published_facts
from van.configs import published_weights as weights
own = {"num_classes": 7, "model": "van_custom", "dataset": "none"}
weights.WEIGHTS = tuple(replace(row, **own) for row in weights.WEIGHTS if row.name in ("official/van_b0", "hub/van_b0"))
sys.exit(cli.main(["verify-weights", "--engines", "", "--json", "--cache", "cache"]))
"""


@pytest.mark.long
def test_rows_of_the_hub_come_from_the_commit_that_is_pinned(server, contents, tmp_path):
    """The hub's client asks through the same server; its address is read when it is imported."""
    model = van.create_model("van_b0", num_classes=7, seed=0, **DIMS)
    van.save(model, tmp_path / "van-tiny", format="transformers")
    files = {"van-tiny": {path.name: path.read_bytes() for path in (tmp_path / "van-tiny").iterdir()}}
    files["VAN-Tiny-original"] = {"van_tiny_754.pth.tar": contents["official"], "README.md": b"a card"}
    for name, repository in (("hub/van_b0", "van-tiny"), ("official/van_b0", "VAN-Tiny-original")):
        known = weights.by_name(name)
        server.hub(known.repo, known.revision, files[repository])
    environment = {
        **os.environ,
        **server.environment,
        "HF_ENDPOINT": "http://huggingface.co",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HUB_ROWS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["name"], one["status"]) for one in told] == [("official/van_b0", "ok"), ("hub/van_b0", "ok")]
    assert told[0]["sha256"] == sha256(contents["official"])
    assert told[0]["link"].endswith(f"resolve/{weights.by_name('official/van_b0').revision}/van_tiny_754.pth.tar")
    pages = [address for address, _ in server.asked if "/api/models/" in address and "/tree/" not in address]
    assert all("/revision/" in page for page in pages)
