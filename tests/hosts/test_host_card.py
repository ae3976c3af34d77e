"""Folders ready for the Hub: one command, a card that only says what is known, and every host loads them."""

import json
import re

import numpy as np
import published
import pytest
import reference_data as reference
import torch

import van
from van import checkpoints
from van.errors import CheckpointError, VanNotice
from van.hosts import model_card as card

REPO = "someone/van-tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The official file under its published name, converted, with its card."""
    place = tmp_path_factory.mktemp("hub")
    source = published.official(place / "van_tiny_754.pth.tar", reference.state("official_van_b0"))
    van.convert(source, place / "van-tiny", to="transformers")
    card.write(place / "van-tiny", REPO)
    return place / "van-tiny"


def test_folder_is_complete_and_the_card_tells_what_is_published(folder):
    assert {p.name for p in folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    text = (folder / "README.md").read_text()
    assert "| ImageNet-1K top-1 / top-5 | 75.4 | published: README of VAN-Classification" in text
    assert "4.11 M parameters, 0.88 G multiply-adds" in text
    assert "| mean | 0.5, 0.5, 0.5 |" in text
    assert "published as `official/van_b0`: hub:Visual-Attention-Network/VAN-Tiny-original" in text
    assert "## Licence\n\nApache-2.0; for commercial use contact the authors" in text
    assert "arXiv:2202.09741" in text


def test_front_matter_is_what_the_hub_reads(folder):
    yaml = pytest.importorskip("yaml")
    text = (folder / "README.md").read_text()
    told = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.S)[1])
    assert told["license"] == "other"
    assert told["license_name"] == "Apache-2.0; for commercial use contact the authors"
    assert told["pipeline_tag"] == "image-classification"
    assert told["library_name"] == "transformers"
    assert told["datasets"] == ["imagenet-1k"]


def test_the_cards_own_code_loads_the_folder_in_every_host(folder, tmp_path, monkeypatch):
    """Each snippet is run as printed, on a hub cache that holds the folder."""
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    import huggingface_hub.constants

    storage = tmp_path / "models--someone--van-tiny"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text("0" * 40)
    (storage / "snapshots").mkdir()
    (storage / "snapshots" / ("0" * 40)).symlink_to(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for module in ("transformers.utils.hub", "huggingface_hub.file_download", "huggingface_hub._snapshot_download"):
        found = __import__("importlib").import_module(module)
        for name in ("HF_HUB_CACHE", "default_cache_path"):
            if hasattr(found, name):
                monkeypatch.setattr(found, name, str(tmp_path))

    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    code = re.sub(r"van\.register\((.*?)\).*", r"__import__('van.hosts').hosts.register(\1)", code)
    tag, images = reference.inputs("official_van_b0")[2]
    images, want = torch.from_numpy(images), reference.golden("official_van_b0")[f"{tag}/logits"]
    steps = re.split(r"\n(?=model = )", code)
    space, seen = {}, []
    for step in steps:
        exec("\n".join(line for line in step.splitlines() if "picture.jpg" not in line), space)
        if "model" in space:
            out = space["model"].eval()(images)
            np.testing.assert_allclose(getattr(out, "logits", out).detach(), want, rtol=0, atol=1e-5)
            seen.append(type(space.pop("model")).__name__)
    assert seen == ["Classifier", "VanForImageClassification", "VisualAttentionNetwork"]


def test_a_card_invents_nothing(tmp_path):
    config = van.VanConfig(embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_classes=0)
    network = van.create_model("van_b0", **{k: getattr(config, k) for k in ("embed_dims", "depths", "num_classes")})
    van.save(network, tmp_path / "folder", format="transformers")
    with pytest.warns(VanNotice, match="the licence of .* is unknown; state it"):
        text = card.write(tmp_path / "folder", "me/mine").read_text()
    assert "license" not in text.split("---")[1]
    assert "pipeline_tag" not in text
    assert "None is known." in text
    assert "Unknown: the publisher" in text
    assert "van_custom" in text
    assert "timm.create_model" not in text
    assert "Predictor" not in text


def test_a_trained_networks_own_scores_are_told_and_not_the_published_ones(tmp_path):
    network = van.create_model("van_b0", num_classes=1000)
    network.provenance = {
        "trained_by": "van 0.1.0",
        "source": "van_tiny_754.pth.tar",
        "scores": {"val/top1": 0.81234},
        "data": "photographs",
        "licence": "Apache-2.0",
    }
    van.save(network, tmp_path / "tuned", format="transformers")
    text = card.write(tmp_path / "tuned", "me/tuned").read_text()
    assert "| val/top1 | 0.8123 | measured in training, on photographs |" in text
    assert "75.4" not in text
    assert 'license: "apache-2.0"' in text


def test_other_folders_and_files_are_refused(tmp_path):
    van.save(van.create_model("van_b0", embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1)), tmp_path / "van.safetensors")
    with pytest.raises(CheckpointError, match="not a folder in transformers' layout"):
        card.write(tmp_path / "van.safetensors", REPO)
    with pytest.raises(CheckpointError):
        card.write(tmp_path / "nothing", REPO)


def test_config_json_serves_both_loaders(folder):
    told = json.loads((folder / "config.json").read_text())
    assert told["model_type"] == "van"
    assert told["hidden_sizes"] == [32, 64, 160, 256]
    checkpoint = checkpoints.read(folder)
    assert checkpoint.name == "van_b0"
    assert checkpoint.preprocess.mean == (0.5, 0.5, 0.5)
    assert card.published(checkpoint).name == "official/van_b0"


def test_one_command_makes_the_whole_folder(tmp_path, capsys):
    from van.cli import main

    published.official(tmp_path / "van_tiny_754.pth.tar", reference.state("official_van_b0"))
    command = ["convert", str(tmp_path / "van_tiny_754.pth.tar"), str(tmp_path / "folder"), "--to", "transformers"]
    assert not main([*command, "--card", REPO])
    assert "model card: " in capsys.readouterr().out
    assert (tmp_path / "folder" / "README.md").read_text().count(REPO) >= 4
    wrong = [*command[:2], str(tmp_path / "van.safetensors"), "--to", "van", "--card", REPO]
    assert main(wrong) == 2
    assert "--card belongs to --to transformers" in capsys.readouterr().err
    assert not (tmp_path / "van.safetensors").exists()


def test_a_detectors_folder_gets_a_card_that_its_own_code_opens(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torchvision")
    from torchvision_detectors import tiny

    from van.cli import main

    network = tiny("retinanet_van_b0")
    network.provenance = {"scores": {"AP50": 0.5}, "data": "scenes", "licence": "Apache-2.0"}
    van.save(network, tmp_path / "d.safetensors")
    (tmp_path / "me").mkdir()
    command = ["convert", str(tmp_path / "d.safetensors"), str(tmp_path / "me" / "model.safetensors"), "--to", "van"]
    assert not main([*command, "--card", "me/detector"])
    text = (tmp_path / "me" / "README.md").read_text()
    assert 'pipeline_tag: "object-detection"' in text
    assert 'library_name: "visual-attention-network"' in text
    assert "as a detector of 3 classes" in text
    assert "| AP50 | 0.5 | measured in training, on scenes |" in text
    assert "| size | short side 64, long side at most 96 |" in text
    assert "transformers" not in text
    code = text.split("```python")[1].split("```")[0].replace("me/detector", str(tmp_path / "me"))
    loading = [line for line in code.splitlines() if "Predictor" not in line]
    space = {}
    exec("\n".join(loading), space)
    assert space["model"].config == network.config
