"""`van predict` writes results as they come, whatever the images are called; what is printed steers no terminal."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from exported import classifier, picture, segmenter
from PIL import Image

import van
from van.cli import main
from van.cli.output import cell, json_line, table_text, to_json, write_file
from van.data.labelled_images import ClassificationData
from van.errors import ConfigError
from van.files import fitting_stem, printable

ODD = [
    b"plain.png",
    b"caf\xe9.png",
    b"new\nline.png",
    b'quo"te,comma.png',
    b"esc\x1b[31mred.png",
    b"-dash.png",
    b"100%.png",
    b"[red]markup.png",
    b":cat:.png",
    b"double  space.png",
    "bidi\u202egnp.png".encode(),
    b"c1\xc2\x9b31m.png",
    b"x" * 251 + b".png",
    b"a.jpg",
    b"a.png",
    b"tail\\.png",
]
STEERING = [chr(code) for code in (*range(32), *range(127, 160)) if chr(code) != "\n"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    van.save(classifier(), folder / "classifier.safetensors")
    van.save(segmenter(), folder / "segmenter.safetensors")
    (folder / "many").mkdir()
    for number in range(6):
        picture(seed=number).save(folder / "many" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Images of every name that a file system takes."""
    folder = tmp_path_factory.mktemp("odd")
    for number, name in enumerate(ODD):
        try:
            with open(os.fsencode(folder) + b"/" + name, "wb") as file:  # noqa: PTH123
                picture(20, 30, seed=number).save(file, "PNG")
        except OSError:
            pytest.skip(f"this file system refuses {name!r}")
    return folder


def names(folder):
    return sorted(os.fsdecode(os.fsencode(folder) + b"/" + name) for name in ODD)


def read(path):
    """The images' names in a file of results."""
    if path.suffix == ".json":
        return [each["image"] for each in json.loads(path.read_bytes())["predictions"]]
    if path.suffix == ".jsonl":
        return [json.loads(line)["image"] for line in path.read_bytes().splitlines()]
    with path.open(newline="", errors="surrogateescape") as file:
        return list(dict.fromkeys(row["image"] for row in csv.DictReader(file)))


def safe(text):
    return not any(character in text for character in [*STEERING, "\u202e"])


@pytest.mark.promise("13")
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
@pytest.mark.long
def test_every_name_survives(desk, odd, tmp_path, suffix, capfdbinary):
    out = tmp_path / f"r{suffix}"
    assert main(["predict", str(desk / "classifier.safetensors"), str(odd), "--out", str(out)]) == 0
    assert sorted(read(out)) == names(odd)
    assert [os.fsencode(name).rpartition(b"/")[2] for name in sorted(read(out))] == sorted(ODD)
    if suffix != ".json":  # which holds the command
        capfdbinary.readouterr()
        command = [sys.executable, "-m", "van", "predict", desk / "classifier.safetensors", odd]
        printed = subprocess.run([*command, "--format", suffix[1:]], capture_output=True, check=True).stdout
        assert printed == out.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.promise("13")
def test_tables_show_every_name_without_steering_the_terminal(desk, odd, tmp_path, capsys):
    out = tmp_path / "r.txt"
    assert main(["predict", str(desk / "classifier.safetensors"), str(odd), "--out", str(out)]) == 0
    text = out.read_text()
    assert safe(text)
    for name in ("[red]markup.png", ":cat:.png", "esc\\x1b[31mred.png", "new\\nline.png", "caf\\udce9.png"):
        assert name in text
    assert main(["predict", str(desk / "classifier.safetensors"), str(odd)]) == 0
    assert safe(capsys.readouterr().out)


@pytest.mark.promise("13")
@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_segmenters_write_two_pictures_of_every_name(desk, odd, tmp_path, form, capfd):
    arguments = ["predict", str(desk / "segmenter.safetensors"), str(odd), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--format", form]) == 0
    assert (
        len(list((tmp_path / "o").glob("*-mask.png"))) == len(list((tmp_path / "o").glob("*-overlay.png"))) == len(ODD)
    )
    if form == "json":
        content = json.loads(capfd.readouterr().out)
        assert sorted(each["image"] for each in content["predictions"]) == names(odd)
        assert all(Path(each["mask"]).is_file() and Path(each["overlay"]).is_file() for each in content["predictions"])


@pytest.mark.promise("13")
def test_names_of_pictures_are_short_enough_and_each_once():
    from van.cli.predict import stems_of
    from van.tasks.segmentation import mask_files
    from van.tasks.segmentation.output import OVERLAY

    images = [Path(f"{folder}/0.png") for folder in range(20_000)] + [Path("é" * 125 + f".{s}") for s in ("jpg", "png")]
    images += [Path("b/0_png.jpg"), Path("b_0_png_.png"), Path("b/0.png")]
    chosen = [*stems_of(images, longest=OVERLAY).values()]
    assert len({*chosen}) == len({*mask_files.stems_of(images)}) == len(images)
    assert max(len(os.fsencode(name + OVERLAY)) for name in chosen) <= 255
    assert fitting_stem("short", longest=OVERLAY) == "short"


@pytest.mark.promise("13")
def test_the_longest_names_can_be_written(tmp_path):
    from van.images.label_maps import save_index

    write_file(tmp_path / ("x" * 255), "text")
    save_index(tmp_path / ("y" * 251 + ".png"), np.zeros((2, 2), np.uint8), ((0, 0, 0),))
    assert len(list(tmp_path.iterdir())) == 2


def interrupted(monkeypatch, error, after=3):
    """A Predictor that is interrupted by `error` after so many images."""
    from van.inference.predictor import Predictor

    whole = Predictor.predict_many

    def some(self, images):
        for number, result in enumerate(whole(self, images)):
            if number == after:
                raise error
            yield result

    monkeypatch.setattr(Predictor, "predict_many", some)


@pytest.mark.promise("13")
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".txt"])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ConfigError("memory runs out"), 2)])
def test_what_was_done_is_kept(desk, tmp_path, monkeypatch, capsys, suffix, error, code):
    interrupted(monkeypatch, error)
    out = tmp_path / f"r{suffix}"
    command = ["predict", str(desk / "classifier.safetensors"), str(desk / "many"), "--out", str(out)]
    assert main(command) == code
    assert f"van: kept: 3 of 6 image(s) done so far are in {out}" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [out.name]
    if suffix != ".txt":
        assert [Path(name).name for name in read(out)] == ["0.png", "1.png", "2.png"]
    else:
        assert len(out.read_text().splitlines()) == 4
    monkeypatch.undo()
    if suffix in (".jsonl", ".csv"):
        assert main([*command, "--resume"]) == 0
        assert [Path(name).name for name in read(out)] == [f"{number}.png" for number in range(6)]
    else:
        assert main([*command, "--resume"]) == 2
        assert "--resume goes on with a file of JSON lines or CSV" in capsys.readouterr().err


@pytest.mark.promise("13")
def test_nothing_done_leaves_the_old_file(desk, tmp_path, monkeypatch):
    interrupted(monkeypatch, KeyboardInterrupt(), after=0)
    (tmp_path / "r.csv").write_text("old")
    command = ["predict", str(desk / "classifier.safetensors"), str(desk / "many"), "--out", str(tmp_path / "r.csv")]
    assert main(command) == 130
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


@pytest.mark.promise("13")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_killed_process_leaves_its_rows_and_a_cut_one_is_done_again(desk, tmp_path, suffix, capsys):
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"r{suffix}"
    command = ["predict", str(desk / "classifier.safetensors"), str(desk / "many"), "--out"]
    assert main([*command, str(whole)]) == 0
    (tmp_path / f"r{suffix}.123.part").write_bytes(whole.read_bytes()[:-20])
    assert main([*command, str(out), "--resume"]) == 0
    assert "5 image(s) are in" in capsys.readouterr().err
    assert read(out) == read(whole)
    assert not list(tmp_path.glob("*.part"))
    out.write_bytes(b"something, else\n1,2\n")
    assert main([*command, str(out), "--resume"]) == 2
    assert "is no file of this command" in capsys.readouterr().err
    assert out.read_bytes() == b"something, else\n1,2\n"


@pytest.mark.promise("13")
def test_ctrl_c_while_an_earlier_file_is_copied_loses_nothing(desk, tmp_path, monkeypatch):
    from van.cli.results import Earlier

    out = tmp_path / "r.jsonl"
    command = ["predict", str(desk / "classifier.safetensors"), str(desk / "many"), "--out", str(out)]
    assert main(command) == 0
    before, whole = out.read_bytes(), Earlier.entries

    def some(self):
        yield next(whole(self))
        raise KeyboardInterrupt

    monkeypatch.setattr(Earlier, "entries", some)
    assert main([*command, "--resume"]) == 130
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]


@pytest.mark.promise("13")
def test_ctrl_c(desk, tmp_path):
    """The signal itself: results are there before the end, and stay."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3000):
        (images / f"{number:04}.png").symlink_to(desk / "many" / f"{number % 6}.png")
    out = tmp_path / "r.jsonl"
    command = [sys.executable, "-m", "van", "predict", desk / "classifier.safetensors", images, "--out", out]

    def heard() -> None:  # a shell's background jobs ignore the signal, and hand that on
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
    process = subprocess.Popen([*command, "--batch-size", "1"], **options)
    part = tmp_path / f"r.jsonl.{process.pid}.part"
    while process.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert f"van: kept: {len(read(out))} of 3000 image(s) done so far are in {out}" in error
    assert 0 < len(read(out)) < 3000


@pytest.mark.promise("13")
def test_segmenters_resume_by_their_pictures(desk, tmp_path, capsys):
    command = ["predict", str(desk / "segmenter.safetensors"), str(desk / "many"), "--out", str(tmp_path / "o")]
    assert main(command) == 0
    (tmp_path / "o" / "3-mask.png").unlink()
    capsys.readouterr()
    assert main([*command, "--resume", "--format", "jsonl"]) == 0
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["image"]).name for line in out.splitlines()] == ["3.png"]
    assert "5 image(s) are in" in err


@pytest.mark.promise("13")
def test_a_full_disk_is_an_error_that_names_the_rows(desk, tmp_path, capsys, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    command = ["predict", str(desk / "classifier.safetensors"), str(desk / "many"), "--format", "csv"]
    assert main([*command, "--out", "/dev/full"]) == 2
    assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err


@pytest.mark.promise("13")
def test_memory_does_not_grow_with_the_images(tmp_path):
    """What was written is not kept."""
    import tracemalloc

    from van.cli.results import Results
    from van.tasks import task_named

    top = [{"label": "a", "index": 0, "probability": 0.5}]
    for form in ("csv", "json", "jsonl", "table"):
        with Results(task_named("classification").results, form, str(tmp_path / form), head={}, total=1) as results:
            results.add({"image": "first", "label": "a", "probability": 0.5, "top": top})
            tracemalloc.start()
            for number in range(2_000):
                results.add({"image": f"{number}.png", "label": "a", "probability": 0.5, "top": top})
            grown, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert grown < 3e6, form  # a block of a table, and rich's own caches


@pytest.mark.promise("13")
def test_evaluation_writes_class_names_of_every_kind(tmp_path, capsys):
    """Class folders as odd as the images: through `van eval`'s table, JSON and CSV."""
    kinds = [name.removesuffix(b".png") for name in ODD[:5]]
    for number, kind in enumerate(kinds):
        folder = os.fsencode(tmp_path) + b"/data/" + kind
        os.makedirs(folder)  # noqa: PTH103
        for name in (b"0.png", b"1.png"):
            with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123
                picture(20, 30, seed=number).save(file, "PNG")
    van.save(classifier(num_classes=5), tmp_path / "m.safetensors")
    model = van.load(tmp_path / "m.safetensors")
    model.classes = tuple(sorted(map(os.fsdecode, kinds)))
    van.save(model, tmp_path / "m.safetensors")
    files = ["--json", str(tmp_path / "e.json"), "--csv", str(tmp_path / "e.csv")]
    arguments = ["eval", str(tmp_path / "m.safetensors"), "--data", str(tmp_path / "data"), "--split", "all"]
    assert main([*arguments, "--per-class", *files]) == 0, capsys.readouterr().err
    assert safe(capsys.readouterr().out)
    (result,) = json.loads((tmp_path / "e.json").read_text())["results"]
    assert {*map(os.fsencode, result["classes"])} == {*kinds}


@pytest.mark.promise("13")
@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_evaluations_that_were_done_are_kept(desk, tmp_path, monkeypatch, capsys, kind):
    """Ctrl-C in the second of two checkpoints."""
    from van.data.scenes import Scenes
    from van.inference.evaluate import Evaluations

    if kind == "classifier":
        data, model = "digits", classifier(num_classes=10)
        monkeypatch.setattr("van.data.classification.open_classification", lambda *_, **__: Few())
    else:
        data, model = "scenes", segmenter(num_classes=11)
        few = Scenes("val", count=1, size=32)
        monkeypatch.setattr("van.data.segmentation.open_segmentation", lambda *_, **__: few)
    for number in range(2):
        van.save(model, tmp_path / f"{number}.safetensors")
    whole, calls = Evaluations._evaluate, []

    def once(self, source):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, source)

    monkeypatch.setattr(Evaluations, "_evaluate", once)
    files = ["--json", str(tmp_path / "e.json"), "--csv", str(tmp_path / "e.csv")]
    assert main(["eval", *map(str, sorted(tmp_path.glob("*.safetensors"))), "--data", data, *files]) == 130
    out, err = capsys.readouterr()
    assert "0.safetensors" in out
    assert err.endswith("van: interrupted: 1 of 2 checkpoint(s) were evaluated and are kept\n")
    assert len(json.loads((tmp_path / "e.json").read_text())["results"]) == 1
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 2


class Few(ClassificationData):
    """Three of the digits."""

    def __init__(self):
        from van.data import open_classification

        whole = open_classification("digits", "val")
        self.classes, self.labels = whole.classes, whole.labels[:3]
        self.whole = whole

    def name(self, index):
        return self.whole.name(index)

    def load(self, index):
        return self.whole.load(index)


ESCAPING = ["\x1b[31m", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066", "\r", "\x08", "\x7f", "\udcff", "\u2028"]


@pytest.mark.promise("13")
@pytest.mark.parametrize("text", ESCAPING)
def test_printable(text):
    from rich.table import Table

    table = Table("name")
    table.add_row(cell(f"a{text}b"))
    for shown in (printable(f"a{text}b"), table_text(table), json_line(f"a{text}b")):
        assert text not in shown
        assert safe(shown)
        shown.encode()
    assert json.loads(to_json({"n": [f"a{text}b"]})) == {"n": [f"a{text}b"]}
    assert printable("Ä ẞ 漢字 👩‍🚀 a\\b") == "Ä ẞ 漢字 👩‍🚀 a\\b"


VERBS = (["predict", "X", "Y"], ["info", "X"], ["eval", "X", "--data", "Y"], ["report", "X"], ["bench", "X"], ["X"])
VERBS += (["convert", "X", "Y", "--to", "van"], ["export", "X", "Y.onnx"], ["doctor", "X"], ["list", "X"])
VERBS += (["train", "finetune", "--data.path", "X"], ["train", "X"], ["list", "--X"])


@pytest.mark.promise("13")
@pytest.mark.parametrize("arguments", VERBS, ids=lambda words: " ".join(words))
def test_errors_of_every_verb_are_safe(arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bad = "x\x1b[31m\u202e\udcff"
    assert main([word.replace("X", bad).replace("Y", bad) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert safe(err)
    assert err.startswith("van: error: ")
    assert err.count("\n") == 1


@pytest.mark.promise("13")
def test_a_terminal_that_is_not_utf8():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "van", "--help"], capture_output=True, env=environment, check=True)
    assert b"usage: van COMMAND" in done.stdout
    assert done.stderr == b""


@pytest.mark.promise("13")
def test_a_file_of_images_is_read_the_same_by_suffix_or_format(desk, tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(tmp_path / "one.png")
    command = ["predict", str(desk / "classifier.safetensors"), str(tmp_path / "one.png")]
    assert main([*command, "--out", str(tmp_path / "a.ndjson")]) == 0
    assert main([*command, "--out", str(tmp_path / "b.data"), "--format", "jsonl"]) == 0
    assert (tmp_path / "a.ndjson").read_bytes() == (tmp_path / "b.data").read_bytes()
