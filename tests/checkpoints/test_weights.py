import hashlib
import importlib
import json
import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import published
import pytest
import torch
from PIL import Image
from reference_data import manifest, state
from safetensors.numpy import save_file

import van
from van import cli
from van.checkpoints import hub
from van.configs import published_weights as weights
from van.configs.backbone import VARIANTS
from van.errors import CheckpointError, UnknownNameError
from van.images import preprocess
from van.tools import verify_weights as verify

CAT = 285


# The table


def test_every_published_weight_has_a_row():
    rows = Counter((row.name.split("/")[0], row.dataset, row.kind) for row in weights.WEIGHTS)
    assert rows["official", "in1k", "hub"] == rows["hub", "in1k", "hub"] == rows["keras", "in1k", "url"] == 4
    # five and three classifiers; as many backbones of mmsegmentation's project
    assert (rows["openmmlab", "in1k", "url"], rows["openmmlab", "in21k", "url"]) == (5 + 5, 3 + 3)
    assert (rows["tsinghua", "in1k", "url"], rows["tsinghua", "in21k", "url"]) == (5, 3)
    for port in ("tfvan", "paddle", "flax"):
        assert rows[port, "in1k", "url"] == 4
    heads = Counter(row.model.split("_van_")[0] for row in weights.WEIGHTS if row.task == "segmentation" and row.url)
    # two more Light-Ham files than the first README of VAN-Segmentation lists, from Enjoy-Hamburger's; Semantic FPN and
    # UperNet from VAN-Segmentation and once more from mmsegmentation's project
    assert heads == {"light_ham": 5 + 2, "hamnet": 4, "semantic_fpn": 4 + 4, "upernet": 6 + 6}
    published = 4 + 4 + 8 + 4 + 21 + 4  # the last four have scores and no link
    assert len(weights.WEIGHTS) == published + (10 + 8) + 8 + 3 * 4 + 1


def test_names_are_unique_and_models_known():
    names = [row.name for row in weights.WEIGHTS]
    assert len(set(names)) == len(names)
    for row in weights.WEIGHTS:
        if row is weights.SMOKE:  # of no published size
            assert row.model == "van_custom"
            continue
        assert re.search(r"van_b\d", row.model)[0] in VARIANTS
        assert row.task == "segmentation" or row.model in VARIANTS
    places = [hub.place_of(row) for row in weights.WEIGHTS if row.kind != "unlinked"]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("row", weights.WEIGHTS, ids=lambda row: row.name)
def test_a_row_is_consistent(row):
    assert row.kind in ("hub", "url", "google-drive", "unlinked")
    assert (row.repo is not None) == (row.kind == "hub")
    assert (row.url is not None) == (row.kind in ("url", "google-drive"))
    assert (row.source is None) == (row.kind == "unlinked")
    assert row.kind != "unlinked" or "no link" in row.note or "link in neither" in row.note
    assert hasattr(preprocess, row.preprocess.upper())
    assert row.layer_norm_eps in (1e-6, 1e-5, 1.001e-5)
    if row is not weights.SMOKE:  # random weights, whose page states no licence
        assert "Apache-2.0" in row.licence
        assert "contact the authors" in row.licence + row.licence_from
    assert row.revision is None or (row.kind == "hub" and re.fullmatch(r"[0-9a-f]{40}", row.revision))
    assert row.labels == ()  # nobody has run the file
    assert bool(row.scores) == (row.score_from is not None)
    if row.sha256:
        assert re.fullmatch(r"[0-9a-f]{8,64}", row.sha256)
    if row.filename and row.url:
        assert row.url.removesuffix("&dl=1").endswith(row.filename)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("official/van_b3", ("filename", "van_large_839.pth.tar")),
        ("official/van_b0", ("repo", "Visual-Attention-Network/VAN-Tiny-original")),
        ("hub/van_b1", ("repo", "Visual-Attention-Network/van-small")),
        ("openmmlab/van_b4", ("sha256", "f4665b92")),
        ("openmmlab/van_b4", ("top5", 96.86)),
        ("openmmlab/van_b6_in21k", ("num_classes", None)),
        ("openmmlab/van_b0", ("layer_norm_eps", 1e-5)),
        ("openmmlab/van_b5_in21k", ("preprocess", "imagenet")),
        ("keras/van_b2", ("top1", 69)),
        ("segmentation/light_ham_van_b0_d256", ("miou", 40.9)),
        ("segmentation/semantic_fpn_van_b3", ("layer_norm_eps", 1e-6)),
        ("segmentation/upernet_van_b6_22k", ("layer_norm_eps", 1e-5)),
        ("segmentation/upernet_van_b2_2022_03", ("url", None)),
        ("official/van_b0", ("revision", "b13047f70a3aa1706d32ea50230f631777fb4b50")),
        ("official/van_b3", ("revision", "b11144513eaaad44a2c4685fd36cb10d88aa0428")),
        ("hub/van_b0", ("revision", "aee7ca377624492bc4cdfc17fd1a9e65368b21e4")),
        ("hub/van_b1", ("revision", None)),
        ("openmmlab/upernet_van_b6_22k", ("miou", 54.25)),
        ("openmmlab/semantic_fpn_van_b3", ("sha256", "2c3b7f5e")),
        ("openmmlab/semantic_fpn_van_b0", ("layer_norm_eps", 1e-5)),
        ("openmmlab/van_b4_22k_backbone", ("sha256", "5e31cafb")),
        ("openmmlab/van_b6_22k_backbone", ("num_classes", 0)),
        ("tsinghua/van_b6_22k", ("filename", "van_b6_22k.pth")),
        ("tfvan/van_b3", ("sha256", "0cf52f5cb2c7aea84667ee3f7bb897ad8c1fbe3057fe99211a583def349696c1")),
        ("tfvan/van_b0", ("top1", 61.59)),
        ("paddle/van_b3", ("top1", 83.89)),
        ("paddle/van_b2", ("filename", "VAN_B2_pretrained.pdparams")),
        ("flax/van_b2", ("filename", "van_base.weights")),
        ("hub/tiny_random", ("repo", "hf-tiny-model-private/tiny-random-VanModel")),
    ],
)
def test_some_facts(name, fact):
    (row,) = weights.find(name)
    assert getattr(row, fact[0]) == fact[1]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("official/*", 4),
        ("van_b0", 9),
        ("VAN-Tiny-original", 1),
        ("visual-attention-network/van-tiny", 1),
        ("van_tiny_754.pth.tar", 1),
        ("openmmlab", 8 + 18),
        ("light_ham*", 7),
        ("*in21k*", 3),
        ("*_22k*", 3 + 3 + 3 + 3),
        ("tiny-random", 1),
        ("*", 84),
    ],
)
def test_find(pattern, found):
    assert len(weights.find(pattern)) == found


def digits_in(row):
    found = re.search(r"-([0-9a-f]{8})\.pth$", row.filename or "")
    return found and found[1]


def test_two_links_with_the_digits_of_one_file_are_a_named_error():
    """A table copied line by line gave B4's UperNet the hash of B3's."""
    rows = [row for row in weights.WEIGHTS if digits_in(row)]
    counts = Counter(digits_in(row) for row in rows)
    copied = [row for row in rows if counts[digits_in(row)] > 1]
    assert [row.name for row in copied] == ["openmmlab/upernet_van_b3", "openmmlab/upernet_van_b4"]
    original, copy = copied
    assert (original.sha256, original.erratum) == ("653bd6b7", "")
    assert copy.sha256 is None
    assert "653bd6b7" in copy.erratum
    for row in rows:
        assert row is copy or row.sha256 == digits_in(row)


def test_links():
    (official,), (hub_row,), (tiny,) = map(weights.find, ("official/van_b0", "hub/van_b0", "hub/tiny_random"))
    assert official.link.endswith(f"/VAN-Tiny-original/resolve/{official.revision}/van_tiny_754.pth.tar")
    assert hub_row.link == f"https://huggingface.co/Visual-Attention-Network/van-tiny/tree/{hub_row.revision}"
    assert tiny.link == "https://huggingface.co/hf-tiny-model-private/tiny-random-VanModel"
    assert weights.by_name("keras/van_b0").link == weights.by_name("keras/van_b0").url


def test_facts_of_opened_files_win_over_what_publishers_state(monkeypatch):
    from van.configs import published_facts

    facts = {"openmmlab/van_b4_in21k": {"num_classes": 0, "bytes": 12}}
    monkeypatch.setattr(published_facts, "FACTS", facts)
    try:
        row = importlib.reload(weights).by_name("openmmlab/van_b4_in21k")
        assert (row.num_classes, row.bytes, row.sha256) == (0, 12, "db926b18")
    finally:
        monkeypatch.undo()
        importlib.reload(weights)


def test_unknown_weight():
    with pytest.raises(UnknownNameError, match="did you mean 'official/van_b0'"):
        weights.find("oficial/van_b0")


def test_by_hub_id_and_file_name():
    assert weights.by_hub_id("Visual-Attention-Network/VAN-Tiny").name == "hub/van_b0"
    assert weights.by_hub_id("some/one") is None
    assert weights.by_filename("van_base_828.pth.tar").name == "official/van_b2"
    assert weights.by_filename("x.pth") is None


def test_markdown():
    lines = weights.markdown(weights.find("openmmlab/van_b0")).splitlines()
    assert len(lines) == 3
    assert "| 75.41 / 93.02 |" in lines[2]
    assert lines[2].count("|") == lines[0].count("|") == lines[1].count("|")


# Checking them, without a network


def official_file(path, cat=CAT, classes=1000, changes=()):
    arrays = {**state("official_van_b0"), **dict(changes)}
    arrays["head.weight"], arrays["head.bias"] = arrays["head.weight"][:classes], arrays["head.bias"][:classes].copy()
    if cat is not None:
        arrays["head.bias"][cat] += 50
    torch.save({"state_dict": {key: torch.from_numpy(array) for key, array in arrays.items()}}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with fabricated weights and the image, at the place where it would be downloaded to."""
    folder = tmp_path_factory.mktemp("weights")
    official_file(folder / "cat.pth.tar")
    official_file(folder / "dog.pth.tar", cat=200)
    official_file(folder / "small.pth.tar", cat=None, classes=10)
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "000000039769.jpg")
    return folder


def row_of(name, **changes):
    return replace(weights.find(name)[0], **changes)


def check(row, files, fetched, **options):
    """The one Check of a row whose download gives `fetched`, a file name or an error."""

    def fetch(asked, cache):
        assert asked is row
        if isinstance(fetched, Exception):
            raise fetched
        return files / fetched

    (result,) = verify.verify([row], cache=files, fetch=fetch, **options)
    assert result.weight is row
    assert "\n" not in result.detail
    return result


def test_a_good_weight_is_ok(files):
    result = check(row_of("official/van_b0"), files, "cat.pth.tar")
    assert (result.status, result.detail) == ("ok", "label 285")
    assert result.sha256 == hashlib.sha256((files / "cat.pth.tar").read_bytes()).hexdigest()


def test_a_dog_is_not_a_cat(files):
    result = check(row_of("official/van_b0"), files, "dog.pth.tar")
    assert (result.status, result.detail) == ("failed", "the label is 200, expected a cat, 281 to 285")


def test_expected_label_of_an_own_image(files):
    image, row = files / "000000039769.jpg", row_of("official/van_b0")
    assert check(row, files, "dog.pth.tar", image=image).status == "ok"
    assert "expected 201" in check(row, files, "dog.pth.tar", image=image, expect="201").detail


def test_expectations():
    logits, classes = np.array([0.0, 1.0, 2.0]), ("tabby", "dog", "Egyptian cat")
    for expect in ("", "2", "CAT"):
        assert verify._judge(expect, logits, classes) == "label 2 (Egyptian cat)"
    for expect, told in (
        ("1", "expected 1"),
        ("dog", "expected dog"),
        ("x", "expected x"),
        (None, "a cat, 281 to 285"),
    ):
        with pytest.raises(CheckpointError, match=rf"label is 2 \(Egyptian cat\), expected .*{told[9:]}"):
            verify._judge(expect, logits, classes)
    with pytest.raises(CheckpointError, match="no class names to find 'dog'"):
        verify._judge("dog", logits, None)


def test_hash(files):
    digits = hashlib.sha256((files / "cat.pth.tar").read_bytes()).hexdigest()
    for sha256, status in ((digits[:8], "ok"), (digits, "ok"), ("f4665b92", "failed")):
        result = check(row_of("official/van_b0", sha256=sha256, num_classes=None), files, "cat.pth.tar")
        assert result.status == status
        assert result.sha256 == digits
    assert f"sha256 is {digits}, expected f4665b92" in result.detail


@pytest.mark.parametrize(
    ("changes", "fetched", "told"),
    [
        ({}, CheckpointError("download of X failed: URLError; try again"), "download of X failed"),
        ({}, ConnectionError("no route"), "ConnectionError: no route"),
        ({}, "gone.pth", "FileNotFoundError"),
        ({}, "000000039769.jpg", "not a checkpoint"),
        ({}, "small.pth.tar", "the head has 10 classes, expected 1000"),
        ({"model": "van_b1"}, "cat.pth.tar", "the file holds van_b0, expected van_b1"),
        ({"layer_norm_eps": 1e-5}, "cat.pth.tar", "epsilon reads as 1e-06, expected 1e-05"),
    ],
)
def test_what_goes_wrong_is_told(files, changes, fetched, told):
    result = check(row_of("official/van_b0", **changes), files, fetched)
    assert result.status == "failed"
    assert told in result.detail


def test_unknown_classes_are_not_judged(files):
    result = check(row_of("official/van_b0", num_classes=None), files, "small.pth.tar")
    assert result.status == "ok"
    assert "with 10 classes; no label was asked" in result.detail


def test_a_segmenter_is_loaded_strictly(files):
    published.openmmlab(files / "fpn.pth", state("mmseg_fpn_van_tiny"), iter=40000)
    row = row_of("segmentation/semantic_fpn_van_b0", kind="url", url="https://example.org/fpn.pth")
    result = check(row, files, "fpn.pth")
    assert (result.status, result.detail.split(";")[0]) == ("ok", "loads, with 150 classes")
    for changes, told in (
        ({"model": "semantic_fpn_van_b1"}, "holds semantic_fpn_van_b0, expected semantic_fpn_van_b1"),
        ({"layer_norm_eps": 1e-5}, "epsilon reads as 1e-06"),
        ({"num_classes": 19}, "the head has 150 classes, expected 19"),
    ):
        result = check(replace(row, **changes), files, "fpn.pth")
        assert result.status == "failed"
        assert told in result.detail


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("segmentation/upernet_van_b0", "no link was published"),
    ],
)
def test_what_cannot_be_checked_is_skipped(files, name, told):
    result = check(row_of(name), files, AssertionError("must not be downloaded"))
    assert result.status == "skipped"
    assert told in result.detail


def test_without_h5py_keras_files_are_skipped(files, monkeypatch):
    (files / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    result = check(row_of("keras/van_b0"), files, "w.h5")
    assert result.status == "skipped"
    assert "visual-attention-network[keras]" in result.detail


def test_one_failure_does_not_stop_the_rest(files):
    rows = [row_of("official/van_b1"), row_of("official/van_b0")]
    results = list(verify.verify(rows, cache=files, fetch=lambda row, cache: files / "cat.pth.tar"))
    assert [result.status for result in results] == ["failed", "ok"]


def test_published_logits_are_compared_with_the_processors_pixels(files, monkeypatch):
    folder = files / "hub"
    folder.mkdir()
    arrays = state("hf_van_tiny")
    arrays["classifier.bias"][CAT] += 50
    save_file(arrays, folder / "model.safetensors")
    names = {str(i): f"thing {i}" for i in range(1000)} | {"285": "Egyptian cat"}
    config = {k: v for k, v in manifest("hf_van_tiny")["config"].items() if k != "num_labels"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "van", "id2label": names}))
    row = row_of("hub/van_b2", model="van_b0")
    result = check(row, files, "hub")
    assert result.status == "failed"
    assert re.search(r"first logits are [\d.]+ off the published", result.detail)
    assert check(row, files, "hub", expect="CAT").detail == "label 285 (Egyptian cat)"

    model = van.load(folder)
    image = preprocess.IMAGENET(preprocess.read_image(files / "000000039769.jpg"))
    with torch.no_grad():
        logits = model(torch.from_numpy(image[None]))[0, :3].tolist()
    monkeypatch.setitem(verify.CATS_LOGITS, "hub/van_b2", tuple(logits))
    result = check(row, files, "hub")
    assert result.status == "ok"
    assert result.detail.startswith("label 285 (Egyptian cat); first logits within")


# The command


@pytest.fixture
def command(files, monkeypatch, capsys):
    def run(*arguments, fetched="cat.pth.tar"):
        monkeypatch.setattr(verify, "fetch_weight", lambda row, cache, *_: files / fetched)
        code = cli.main(["verify-weights", *arguments, "--cache", str(files), "--engines", ""])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_command(command):
    code, out, _ = command("[oh]*/van_b0")
    lines = out.splitlines()
    assert code == 1  # the file is official/van_b0's and no other's
    assert re.fullmatch(r"ok +official/van_b0 +label 285", lines[0])
    assert re.fullmatch(r" +sha256 [0-9a-f]{64}", lines[1])
    assert re.search(r"failed +openmmlab/van_b0 +sha256 is .* expected 385941af", out)
    assert re.search(r"failed +hub/van_b0 +the file is of format official, expected transformers", out)
    assert lines[-1] == "1 ok, 2 failed, 0 skipped"


def test_command_succeeds_when_nothing_failed(command):
    code, out, _ = command("official/van_b0")
    assert (code, out.splitlines()[-1]) == (0, "1 ok, 0 failed, 0 skipped")
    code, out, _ = command("*2022_03")
    assert (code, out.splitlines()[-1]) == (0, "0 ok, 0 failed, 2 skipped")


def test_command_json(command):
    code, out, _ = command("official/van_b0", "--json", fetched="dog.pth.tar")
    told = json.loads(out)
    assert (code, told["name"], told["status"]) == (1, "official/van_b0", "failed")


def test_command_with_bad_input(command):
    for arguments, message in ((["nothing"], "unknown published weight"), (["--image", "gone.jpg"], "gone.jpg")):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_command_lists(command):
    code, out, _ = command("keras/*", "--list")
    assert code == 0
    assert out.count("| keras/van_b") == 4


@pytest.mark.network
@pytest.mark.slow
def test_the_real_weights():
    failed = [check for check in verify.verify(weights.find("*")) if check.status == "failed"]
    assert not failed
