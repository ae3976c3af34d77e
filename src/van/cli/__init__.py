"""The `van` command: one parser whose subcommands are the verbs, one thin file each, imported only when it is called.

A verb's module has `add_arguments(parser)` and `run(options) -> int | None` (the exit code, 0 by default), and may have
`PARSER`, the class of its parser.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import VanError, VanNotice
from .output import one_line, say
from .startup import importing, own_process

# verb -> (module, one line of help); the order of `van --help`.
VERBS = {
    "list": ("list", "list the models this package knows"),
    "info": ("info", "show what a model or a checkpoint file is: parameters, multiply-adds, format, classes"),
    "train": ("train", "train or fine-tune by a recipe"),
    "report": ("report", "show a training run as one HTML page: curves, confusion matrix, worst images, recipe"),
    "eval": ("eval", "evaluate checkpoints: top-1, top-5, mIoU, per-class table, confusion matrix"),
    "predict": ("predict", "label images, folders of images and globs; segmenters paint them"),
    "explain": ("explain", "show what an answer is based on: Grad-CAM, attention maps, effective receptive field"),
    "embed": ("embed", "features of images, of any stage of a backbone: one array, or Parquet"),
    "doctor": ("doctor", "check a data set before training, and report what is wrong with it"),
    "convert": ("convert", "convert a checkpoint to another format and verify the result"),
    "export": ("export", "export to ONNX, OpenVINO or torch.export, and prove that it computes the same"),
    "bench": ("bench", "measure how fast a network is on this CPU, in torch, ONNX Runtime, OpenVINO and int8"),
    "tune": ("tune", "measure the fastest blocks of the GPU kernels on this machine, and keep them"),
    "serve": ("serve", "serve models over HTTP, with dynamic batches and bounds on everything"),
    "demo": ("demo", "try models on images in the browser: labels, masks, attention, two side by side"),
    "verify-weights": ("verify_weights", "download the published weights and check them (network)"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `van VERB …`; returns the exit code: 0 fine, 1 partly failed, an error's own; the error is one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # of a terminal that is not UTF-8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", VanNotice)
            warnings.showwarning = _show_warning
            if arguments is None:
                own_process()
            return _run([*(sys.argv[1:] if arguments is None else arguments)])
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
    with importing():
        from .parser import Commands

    commands = Commands({verb: module for verb, (module, _) in VERBS.items()}, package=__name__)
    with importing():
        options = commands.parse_args(arguments)
    topic = options.help.topic if options.command == "help" else None
    if topic is not None:
        commands.parse_args([topic, "--help"])  # prints, and raises SystemExit
    if options.show_version:
        say(f"van {__version__}")
    elif options.show_help or options.command in (None, "help"):
        print(_help(), flush=True)
    else:
        return commands.module(options.command).run(options[options.command]) or 0
    return 0


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            *("usage: van COMMAND …", "", "Visual Attention Network (arXiv 2202.09741).", "", *lines, ""),
            "van COMMAND --help shows a command's options; van --version the version.",
        ]
    )


def _show_warning(message: Warning | str, category: type[Warning], *rest: object, **named: object) -> None:
    word = "note" if issubclass(category, VanNotice) else "warning"
    say(f"van: {word}: {one_line(message)}", error=True)
