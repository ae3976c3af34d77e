"""Recipes that are damaged, hostile or absurd end in one line, at once."""

import os
import random
import re

import pytest
import yaml
from tiny_training import make_stripes

from van.cli import main
from van.data import read_folder
from van.data.segmentation import open_segmentation
from van.errors import ConfigError, DataError, VanError
from van.recipes import RECIPES, get_recipe, recipe_of
from van.recipes.reading import read_settings
from van.train.folder import read_recipe
from van.train.loading import workers_of

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
FILES = {
    "binary": (bytes(range(256)), "UTF-8"),
    "utf-16": ("optim:\n  lr: 1\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
    "nul": (b"optim:\n  name: a\0b\n", "special characters"),
    "empty": (b"", "is empty"),
    "comments": (b"# nothing\n", "is empty"),
    "a word": (b"hello", "expected keys and values"),
    "a list": (b"- 1\n- 2\n", "expected keys and values"),
    "deep lists": (b"a: " + b"[" * 100_000, "levels"),
    "deep keys": ("\n".join(" " * i + "a:" for i in range(200)).encode(), "levels"),
    "5,000 digits": (b"trainer:\n  seed: " + b"1" * 5000, "digits"),
    "5,000 digits of a float": (b"optim:\n  lr: " + b"1" * 5000 + b".0", "trainer|optim.lr|digits|finite"),
    "a long word": (b"name: " + b"x" * 100_000, "characters; settings are short"),
    "seed of 70 bits": (b"trainer:\n  seed: 1180591620717411303424\n", "trainer.seed is a number of 71 bits"),
    "seed of 63 bits": (b"trainer:\n  seed: 9223372036854775807\n", "trainer.seed"),
    "billion laughs": (LAUGHS.encode(), "once references"),
    "a list in itself": (b"optim: &a [*a]\n", "refers to itself"),
    "keys in themselves": (b"optim: &a\n  lr: *a\n", "refers to itself"),
    "epochs": (b"trainer:\n  epochs: 1e22\n", "trainer.epochs"),
    "epochs as a number": (b"trainer:\n  epochs: 10000000000000000000000\n", "trainer.epochs"),
    "workers": (b"trainer:\n  workers: 100000\n", "trainer.workers is 100000; .* at most 4096"),
    "a key twice": (b"optim:\n  lr: 1\n  eps: 2\n  lr: 3\n", r"optim\.lr is given twice, on lines 2 and 4"),
    "a section twice": (b"optim:\n  lr: 1\noptim:\n  lr: 2\n", "optim is given twice"),
    "not a number": (b"optim:\n  lr: .nan\n", r"optim\.lr is nan"),
    "infinity": (b"optim:\n  lr: .inf\n", r"optim\.lr is inf"),
    "too large a float": (b"optim:\n  lr: 1e999\n", r"optim\.lr is inf"),
    "a number as key": (b"1: 2\n", "is not a word"),
    "a list as key": (b"? [a]\n: 1\n", "unhashable|is not a word"),
    "a date": (b"optim:\n  lr: 2026-01-01\n", r"optim\.lr"),
    "an impossible date": (b"optim:\n  lr: 2026-99-99\n", "parsing"),
    "python": (b"!!python/object/apply:os.system ['true']\n", "parsing"),
    "two documents": (b"name: a\n---\nname: b\n", "parsing"),
    "a section that is a number": (b"optim: 3\n", "optim"),
    "a text for a number": (b"trainer:\n  batch_size: many\n", "trainer.batch_size"),
    "true for a number": (b"trainer:\n  batch_size: true\n", "trainer.batch_size"),
    "cycles": (b"schedule:\n  cycles: 1000000000\n", "schedule.cycles"),
    "cycles that explode": (b"schedule:\n  cycles: 900\n  cycle_mul: 1000.0\n", "epochs"),
    "size": (b"data:\n  size: 1000000000\n", "data.size"),
    "depths": (b"model:\n  depths: [1, 1, 1, 1000000000]\n", "model.depths"),
}  # fmt: skip


def said_by(act):
    """The text of the package's error, if there is one; any other is a failure."""
    try:
        act()
    except VanError as error:
        return str(error)
    return ""


def error_of(capsys, *arguments):
    assert main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    last = err.splitlines()[-1]
    assert last.startswith("van: error: ")
    assert "Traceback" not in err
    return last


@pytest.mark.promise("recipes")
@pytest.mark.parametrize("name", FILES)
def test_files(name, tmp_path, capsys):
    content, message = FILES[name]
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    # without data, so that a file that passes unseen ends in an error too
    assert re.search(message, error_of(capsys, "finetune", "--config", str(file)))
    assert "\n" not in said_by(lambda: read_recipe(file))


@pytest.mark.promise("recipes")
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "missing", ""])
def test_what_is_no_file(kind, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "":
        path = ""
    assert "cannot read" in error_of(capsys, "finetune", "--config", str(path))


@pytest.mark.promise("recipes")
def test_the_recipe_of_a_run_that_is_resumed(tmp_path, capsys):
    (tmp_path / "last.ckpt").write_bytes(b"x")
    os.mkfifo(tmp_path / "recipe.yaml")
    assert "not a regular file" in error_of(capsys, "--trainer.resume", str(tmp_path))


@pytest.mark.promise("recipes")
@pytest.mark.parametrize("path", ["/proc", "/sys", "/dev", "/"])
def test_folders_of_the_system_are_no_data_sets(path, capsys):
    with pytest.raises(DataError):
        read_folder(path)
    assert "folder" in error_of(capsys, "finetune", "--data.path", path)


@pytest.mark.promise("recipes")
def test_a_path_that_no_system_takes(capsys):
    assert "van: error: " in error_of(capsys, "finetune", "--data.path", "x" * 9_999)


@pytest.mark.promise("recipes")
def test_a_list_of_classes_that_never_ends(tmp_path, capsys):
    make_stripes(tmp_path / "data", count=2)
    os.mkfifo(tmp_path / "classes.txt")
    options = ["--data.path", str(tmp_path / "data"), "--data.classes", str(tmp_path / "classes.txt")]
    assert "not a regular file" in error_of(capsys, "finetune", *options)


@pytest.mark.promise("recipes")
def test_workers_that_no_machine_has():
    with pytest.raises(ConfigError, match=r"trainer\.workers is 4096"):
        workers_of(4096, embedded=False)
    assert workers_of(64, embedded=False) == 64


@pytest.mark.promise("recipes")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trainer.epochs", "1e22"),
        ("--trainer.epochs", "9" * 5000),
        ("--trainer.seed", str(2**70)),
        ("--trainer.workers", "100000"),
        ("--optim.lr", "nan"),
        ("--optim.lr", "inf"),
        ("--optim.betas", "[" * 3000),
        ("--loss.class_weights", "{a: .nan}"),
        ("--trainer.device", "cuda:²"),
    ],
)
def test_options(option, value, capsys):
    said = error_of(capsys, "finetune", "--data.path", "nowhere", option, value)
    assert option.removeprefix("--").split(".")[1] in said


@pytest.mark.promise("recipes")
def test_a_section_from_a_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "optim.yaml")
    assert "not a regular file" in error_of(capsys, "finetune", "--optim", str(tmp_path / "optim.yaml"))


@pytest.mark.promise("recipes")
@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"names: [a, b]\nnames: [c, d]\n", b"a: &a [*a]\n", b"x: " + b"[" * 9999]
)
def test_descriptions_of_data_sets_are_read_alike(content, tmp_path):
    (tmp_path / "dataset.yaml").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.yaml"):
        open_segmentation(tmp_path, "train")


@pytest.mark.promise("recipes")
def test_numbers_as_people_write_them(tmp_path):
    (tmp_path / "a.yaml").write_text("optim:\n  lr: 1e-4\nschedule:\n  warmup_lr: 1E-06\ntrainer:\n  epochs: 3\n")
    values = read_settings(tmp_path / "a.yaml")
    assert values == {"optim": {"lr": 1e-4}, "schedule": {"warmup_lr": 1e-6}, "trainer": {"epochs": 3}}
    (tmp_path / "b.yaml").write_bytes("\ufeffdata:\n  path: größe\n".encode())
    assert read_settings(tmp_path / "b.yaml") == {"data": {"path": "größe"}}


@pytest.mark.promise("recipes")
def test_references_that_stay_small_are_allowed(tmp_path):
    (tmp_path / "a.yaml").write_text("data:\n  mean: &grey [0.5, 0.5, 0.5]\n  std: *grey\n")
    assert read_settings(tmp_path / "a.yaml")["data"]["std"] == [0.5, 0.5, 0.5]


@pytest.mark.promise("recipes")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_its_own_types(name):
    recipe = get_recipe(name)
    assert recipe_of(recipe.to_dict()) == recipe


VALUES = [
    None, True, -1, 0, 3, 2**40, 2**63, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x", "\0", "é" * 300,
    [], [1], [0.1, 0.2], [[]], {}, {"a": 1}, {1: 2}, ["x"], "/proc", "../..", "auto", "1e5", [1, "x", None],
]  # fmt: skip


def mutated_values(rng):
    values = get_recipe(rng.choice(["digits_van_b0", "light_ham_digits", "finetune_few"])).to_dict()
    for _ in range(rng.randint(1, 3)):
        section = rng.choice([name for name in values if isinstance(values[name], dict)] or [""])
        if not section:
            break
        if rng.random() < 0.1:
            values[section] = rng.choice(VALUES)
        elif values[section]:
            key = rng.choice([*values[section], "unknown"])
            values[section][key] = rng.choice(VALUES)
    return values


@pytest.mark.promise("recipes")
def test_three_hundred_mutated_values():
    rng = random.Random(0)
    for number in range(300):
        values = mutated_values(rng)
        assert "\n" not in said_by(lambda values=values: recipe_of(recipe_of(values).to_dict())), number


@pytest.mark.promise("recipes")
def test_three_hundred_mutated_files(tmp_path):
    rng, path = random.Random(1), tmp_path / "recipe.yaml"
    texts = [yaml.safe_dump(get_recipe(name).to_dict()).encode() for name in ("digits_van_b0", "light_ham_digits")]
    for number in range(300):
        data = bytearray(rng.choice(texts))
        for _ in range(rng.randint(1, 4)):
            place, length = rng.randrange(len(data)), rng.randint(1, 8)
            match rng.randrange(4):
                case 0:
                    data[place : place + length] = rng.randbytes(length)
                case 1:
                    del data[place : place + length]
                case 2:
                    data[place:place] = rng.choice([b"[", b"{", b"&a ", b"*a", b": ", b"\n", b"- ", b"!!", b"9" * 30])
                case 3:
                    data[place:place] = data[place : place + 40]
        path.write_bytes(data)
        assert "\n" not in said_by(lambda: read_recipe(path)), number


@pytest.mark.promise("recipes")
def test_mutated_files_on_the_command_line(tmp_path, capsys):
    rng, path = random.Random(2), tmp_path / "recipe.yaml"
    for number in range(12):
        values = mutated_values(rng)
        path.write_text(yaml.safe_dump(values))
        try:
            code = main(["train", "--config", str(path), "--print_config"])
        except SystemExit as end:
            code = end.code or 0
        err = capsys.readouterr().err
        assert code in (0, 2), (number, err)
        assert "Traceback" not in err
        assert code == 0 or err.splitlines()[-1].startswith("van: error: ")
