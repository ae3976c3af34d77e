"""`van train`: defaults by recipe, overrides, YAML, and one-line errors."""

import pytest
import yaml
from tiny_training import make_stripes, slim_recipe

from van.cli import main
from van.recipes import RECIPES, get_recipe
from van.train.folder import write_recipe

SLIM = [
    "--model.embed_dims=[8,16,24,32]", "--model.depths=[1,1,1,1]", "--data.size=32", "--trainer.batch_size=4",
    "--optim.lr_batch=4", "--trainer.workers=0", "--trainer.threads=1", "--trainer.device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    return make_stripes(tmp_path_factory.mktemp("stripes"))


def printed_config(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments, "--print_config"])
    assert stop.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def error_of(capsys, *arguments):
    assert main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("van: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("arguments", [[], ["--list"], ["finetune", "--list"]])
def test_lists_the_recipes(capsys, arguments):
    assert main(["train", *arguments]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_print_config_shows_the_recipe(capsys, name):
    shown = printed_config(capsys, name)
    expected = get_recipe(name).to_dict()
    assert {key: shown[key] for key in expected} == expected


def test_overrides_and_files(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("optim:\n  lr: 0.25\ntrainer:\n  epochs: 7\n")
    shown = printed_config(capsys, "digits_van_b0", "--config", str(file), "--trainer.epochs", "8")
    assert (shown["optim"]["lr"], shown["trainer"]["epochs"], shown["data"]["size"]) == (0.25, 8, 32)
    assert printed_config(capsys, "digits_van_b0", "--data.size", "[32,48]")["data"]["size"] == [32, 48]
    assert printed_config(capsys, "finetune", "--augment.crop_scale", "null")["augment"]["crop_scale"] is None


def test_what_is_given_last_counts(capsys, tmp_path):
    """Options, long and short, files and files of a section replace what stands before them on the command line."""
    file, section = tmp_path / "mine.yaml", tmp_path / "optim.yaml"
    file.write_text("optim:\n  lr: 0.25\n")
    section.write_text("lr: 0.5\nweight_decay: 0.125\n")
    words = {"long": ["--optim.lr", "1"], "short": ["--lr", "2"], "file": ["--config", str(file)]}
    words |= {"section": ["--optim", str(section)], "inline": ["--optim", "{lr: 3}"]}
    rates = {"long": 1, "short": 2, "file": 0.25, "section": 0.5, "inline": 3}
    for first in words:
        for last in {*words} - ({"short", "long"} if first in ("short", "long") else {first}):
            shown = printed_config(capsys, "finetune", *words[first], *words[last])
            assert shown["optim"]["lr"] == rates[last], (first, last)
            assert (shown["optim"]["weight_decay"] == 0.125) == ("section" in (first, last))


def test_only_what_differs_is_printed_if_asked(capsys):
    with pytest.raises(SystemExit):
        main(["train", "finetune", "--lr", "0.5", "--data", "x", "--print_config=skip_default"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == {"recipe": "finetune", "data": {"path": "x"}, "optim": {"lr": 0.5}}


@pytest.mark.parametrize("name", ["finetune", "light_ham_digits"])
def test_a_file_alone_decides_about_the_kind_of_recipe(capsys, tmp_path, name):
    file, wanted = tmp_path / "mine.yaml", get_recipe(name).with_options(name="mine")
    file.write_text(yaml.safe_dump(wanted.to_dict()))
    shown = printed_config(capsys, "--config", str(file), "--seed", "5")
    assert {key: shown[key] for key in wanted.to_dict()} == wanted.with_options(**{"trainer.seed": 5}).to_dict()


def test_a_printed_config_is_a_config(capsys, tmp_path):
    file = tmp_path / "all.yaml"
    shown = printed_config(capsys, "imagenet_van_b1", "--optim.lr", "0.5")
    file.write_text(yaml.safe_dump(shown))
    assert printed_config(capsys, "--config", str(file)) == {**shown, "recipe": None}
    file.write_text("name: imagenet_van_b3\n")
    assert printed_config(capsys, "--config", str(file))["model"]["drop_path_rate"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetun"], "did you mean 'finetune'"),
        (["--trainer.epochs", "3"], "name a recipe first"),
        (["--trainer.epochs", "3", "finetune"], "the recipe comes first"),
        (["finetune", "--optim.lrr", "1"], "did you mean --optim.lr?"),
        (["finetune", "--optm.lr", "1"], "did you mean --optim.lr?"),
        (["finetune", "--optim.lr", "fast"], "optim.lr"),
        (["finetune", "--trainer.precision", "fp33"], "did you mean 'fp32'"),
        (["finetune", "--trainer.epochs", "1.5"], "trainer.epochs"),
        (["finetune"], "data.path"),
        (["finetune", "--data.path", "nowhere"], "nowhere does not exist"),
        (["finetune", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--trainer.resume", "nowhere"], "nothing to resume"),
        (["--preset", "small_gpu"], "name one first"),
        (["finetune", "--preset", "one_gpu"], "belongs to segmentation, detection, instance and panoptic recipes"),
        (["finetune", "--task", "segmentation"], "task is 'segmentation', which finetune is no recipe for"),
        (
            ["finetune", "--trainer.steps", "3"],
            "there is no --trainer.steps in this recipe; did you mean --trainer.epochs?",
        ),
        (["light_ham_digits", "--epochs", "3"], "there is no --epochs; did you mean --trainer.steps?"),
        (["finetune", "--data.pth", "x"], "unrecognized arguments: --data.pth; did you mean --data.path?"),
        (["finetune", "--lr.x", "3"], "unrecognized arguments: --lr.x"),
        (["finetune", "--optim", "nowhere.yaml"], "nowhere.yaml"),
        (["finetune", "--optim", "{lrr: 3}"], "--optim: there is no setting optim.lrr; did you mean --optim.lr?"),
        (["finetune", "digits_van_b0"], "unrecognized arguments: digits_van_b0"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert message in error_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim:\n  lrr: 1\n", "did you mean --optim.lr?"),
        ("optimm:\n  lr: 1\n", "did you mean --optim.lr?"),
        ("optim: [1\n", "parsing"),
    ],
)
def test_bad_files_are_one_line(capsys, tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    assert message in error_of(capsys, "finetune", "--config", str(tmp_path / "bad.yaml"))


def test_help_tells_the_recipe_and_every_field(capsys):
    with pytest.raises(SystemExit):
        main(["train", "finetune", "--help"])
    assert "Fine-tune any checkpoint on a folder" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train", "finetune", "--help", "all"])
    out = " ".join(capsys.readouterr().out.split())
    assert "--trainer.ema_decay" in out
    assert "forward passes per optimizer step" in out


def test_trains_predictably_and_says_where(capsys, stripes, tmp_path):
    arguments = ["finetune", "--data.path", str(stripes), "--trainer.out", str(tmp_path / "run"), *SLIM]
    assert main(["train", *arguments, "--trainer.epochs", "3", "--trainer.ema_decay", "null"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'run'}: top-1 " in out
    assert main(["predict", str(tmp_path / "run" / "model.safetensors"), str(stripes / "along" / "0.png")]) == 0
    assert "along" in capsys.readouterr().out


def test_resume_takes_the_settings_of_the_run(capsys, stripes, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(b"x")
    write_recipe(tmp_path / "run", slim_recipe(stripes, tmp_path / "run", **{"optim.lr": 0.125}))
    shown = printed_config(capsys, "--trainer.resume", str(tmp_path / "run"))
    assert (shown["name"], shown["optim"]["lr"], shown["trainer"]["out"]) == ("slim", 0.125, None)
    assert shown["trainer"]["resume"] == str(tmp_path / "run")
    assert "damaged" in error_of(capsys, "--trainer.resume", str(tmp_path / "run"))
