"""The `van` command: one thin verb per file; a verb is imported only when it is called.

A verb's module has `add_arguments(parser)` and `run(options) -> int | None` (the exit code, 0 by default), and may
have `set_defaults(parser, arguments)`.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import UnknownNameError, VanError, VanNotice
from .output import one_line, say

# verb -> (module, one line of help); the order of `van --help`.
VERBS = {
    "list": ("list", "list the models this package knows"),
    "info": ("info", "what a model or a checkpoint file is: parameters, multiply-adds, format, classes"),
    "train": ("train", "train or fine-tune by a recipe"),
    "report": ("report", "a training run as one HTML page: curves, confusion matrix, worst images, recipe"),
    "eval": ("eval", "evaluate checkpoints: top-1, top-5, mIoU, per-class table, confusion matrix"),
    "predict": ("predict", "label images, folders of images and globs; segmenters paint them"),
    "doctor": ("doctor", "read a data set before training, and tell what is wrong with it"),
    "convert": ("convert", "convert a checkpoint to another format and verify the result"),
    "export": ("export", "export to ONNX, OpenVINO or torch.export, and prove that it computes the same"),
    "bench": ("bench", "measure how fast a network is on this CPU, in torch, ONNX Runtime, OpenVINO and int8"),
    "tune": ("tune", "measure the fastest blocks of the GPU kernels on this machine, and keep them"),
    "verify-weights": ("verify_weights", "download the published weights and check them (network)"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `van VERB …`; returns the exit code: 0 fine, 1 partly failed, an error's own, told on one line."""
    # not list(…): importing the verb of that name puts its module here
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # of a terminal that is not UTF-8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", VanNotice)
            warnings.showwarning = _show_warning
            return _run(arguments)
    except (VanError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `van list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        say(f"van: error: {one_line(error)}", error=True)
        return error.exit_code if isinstance(error, VanError) else 2
    except KeyboardInterrupt as stop:  # a verb may say what is kept
        say(": ".join(filter(None, ("van: interrupted", str(stop)))), error=True)
        return 130


def _run(arguments: list[str]) -> int:
    verb, *rest = arguments or ["help"]
    if verb == "help" and rest:  # van help predict
        verb, rest = rest[0], ["--help"]
    if verb in ("-h", "--help", "help"):
        print(_help(), flush=True)
        return 0
    if verb in ("-V", "--version"):
        say(f"van {__version__}")
        return 0
    if verb not in VERBS:
        raise UnknownNameError.of("command", verb, VERBS)
    from .parser import Parser

    module = importlib.import_module(f".{VERBS[verb][0]}", __name__)
    parser = Parser(prog=f"van {verb}", description=(module.__doc__ or "").strip())
    module.add_arguments(parser)
    if hasattr(module, "set_defaults"):  # what is named first decides the defaults of the other options
        module.set_defaults(parser, rest)
    return module.run(parser.parse_args(rest)) or 0


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            *("usage: van COMMAND …", "", "Visual Attention Network (arXiv 2202.09741).", "", *lines, ""),
            "van COMMAND --help tells a command's options; van --version the version.",
        ]
    )


def _show_warning(message: Warning | str, category: type[Warning], *rest: object, **named: object) -> None:
    word = "note" if issubclass(category, VanNotice) else "warning"
    say(f"van: {word}: {one_line(message)}", error=True)
