"""`van info` and `van convert`: what they print, and how they fail."""

import json

import published
import pytest
import torch
from checkpoint_files import CLASSES, headless, theirs, write

import van
from van.checkpoints import keys
from van.cli import main


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_info_of_a_file(tmp_path, capsys):
    path = published.openmmlab(tmp_path / "x.pth", theirs(keys.MMPRETRAIN))
    code, out, err = run(capsys, "info", path)
    assert (code, err) == (0, "")
    for line in ("format          mmpretrain", "layer_norm_eps  1e-05 (from lineage)", "5, their names unknown"):
        assert line in out
    code, out, _ = run(capsys, "info", write(tmp_path, "transformers"), "--json")
    told = json.loads(out)
    assert (code, told["format"], told["classes"], told["layer_norm_eps"]) == (0, "transformers", list(CLASSES), 1e-5)


def test_info_tells_notes_without_warning(tmp_path, capsys):
    path = published.openmmlab(
        tmp_path / "x.pth", headless(keys.MMSEG) | {"decode_head.x.weight": torch.zeros(1).numpy()}
    )
    code, out, err = run(capsys, "info", path)
    assert (code, err) == (0, "")
    assert "1 tensors of heads that van does not have" in out
    assert "none: a feature backbone" in out


def test_convert(tmp_path, capsys):
    source = published.official(tmp_path / "x.pth.tar", theirs(keys.OFFICIAL))
    code, out, err = run(capsys, "convert", source, tmp_path / "y.pth", "--to", "mmpretrain")
    assert (code, err) == (0, "")
    assert "bit-identical, logits equal" in out
    assert "not carried: layer_norm_eps=1e-06: mmpretrain's code assumes 1e-05" in out
    assert van.load(tmp_path / "y.pth").config.layer_norm_eps == 1e-6


def test_convert_options(tmp_path, capsys):
    raw, averaged = theirs(keys.OFFICIAL, seed=1), theirs(keys.OFFICIAL, seed=2)
    source = published.official(tmp_path / "x.pth.tar", raw, state_dict_ema=published.tensors(averaged))
    target = tmp_path / "y.safetensors"
    code, out, _ = run(
        capsys, "convert", source, target, "--to=van", "--ema", "--num-classes=3", "--layer-norm-eps=1e-5"
    )
    model = van.load(target)
    assert code == 0
    assert "note: the file's head of 5 classes is left out; a new one of 3 classes is used" in out
    assert (model.num_classes, model.config.layer_norm_eps) == (3, 1e-5)
    assert torch.equal(model.backbone.stages[0].norm.weight, torch.from_numpy(averaged["norm1.weight"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "missing.pth"), "no such file or folder: missing.pth"),
        (("info", "van_b9"), "unknown model or file 'van_b9'; did you mean 'van_b"),
        (("info", "garbage"), "is not a checkpoint"),
        (("convert", "garbage", "out", "--to", "van"), "is not a checkpoint"),
        (("convert", "good", "nowhere/out", "--to", "van"), "cannot write nowhere/out"),
        (("convert", "good", "out", "--to", "vann"), "vann"),
        (("convert", "good", "out"), "required: --to"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage").write_text("hello")
    write(tmp_path, "van").rename(tmp_path / "good")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
