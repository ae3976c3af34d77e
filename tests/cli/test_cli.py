"""The command line as a whole: help, unknown verbs, one-line errors, exit codes."""

import subprocess
import sys

import pytest

from van.cli import VERBS, main


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


def test_version(capsys):
    import van

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"van {van.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_a_reader_that_stops_reading_is_no_error(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "van", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_unknown_verb_suggests(capsys):
    assert main(["evl"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("van: error: unknown command 'evl'; did you mean 'eval'?")
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"van {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_an_unknown_option_on_one_line(verb, capsys):
    assert main([verb, "--no-such-option"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("van: error: ")
    assert error.count("\n") == 1


def test_list(capsys):
    assert main(["list", "van_b*"]) == 0
    assert capsys.readouterr().out.split() == [f"van_b{i}" for i in range(7)] + ["van_b6_480"]
    assert main(["list", "resnet*"]) == 2
    assert "no model matches 'resnet*'" in capsys.readouterr().err


def test_unknown_model_suggests(capsys):
    import van

    with pytest.raises(van.VanError, match=r"unknown model 'van_b9'; did you mean 'van_b\d'\?"):
        van.create_model("van_b9")
