"""Open a page to try models on images: labels, boxes, masks, attention and Grad-CAM, two models side by side.

Without a checkpoint it is the quickstart's. Images come from a file, the clipboard, a camera or the examples, stay on
this machine, and are deleted when the page ends. Ctrl-C ends it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from ..errors import ConfigError, MissingExtraError
from .inference import add_optimize_arguments, add_trust_argument, wanted_optimize
from .output import say


def add_arguments(parser: Any) -> None:
    """Options of `van demo`."""
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CKPT",
        help="checkpoints or exported files to choose from on the page, the first two side by side (default: "
        "quickstart/model.safetensors)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all of this machine")
    parser.add_argument("--port", type=int, default=7860, help="0: one that is free")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--max-bytes", type=int, default=32 * 2**20, help="bytes in an image file")
    parser.add_argument("--max-pixels", type=int, default=50_000_000, help="pixels in an image, by its header")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--classes", help="names of the classes: a text or JSON file in their order, or imagenet-1k")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    add_optimize_arguments(parser)
    add_trust_argument(parser)
    parser.add_argument("--ignore-exif", action="store_true", help="pixels as stored, not turned")


def run(options: Any) -> int:
    """Check what can be checked at once, then show the page until it is ended."""
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtraError.of("gradio", "demo", "for van demo")
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port is {options.port}; expected 0 to 65535")
    for name in ("max_bytes", "max_pixels"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}; expected at least 1")
    from ..serve.demo.answers import Limits
    from ..serve.demo.start import serve

    names = ("device", "precision", "classes", "ema", "trust")
    return serve(
        options.checkpoints,
        Limits(options.max_bytes, options.max_pixels),
        host=options.host,
        port=options.port,
        open_browser=options.open,
        exif=not options.ignore_exif,
        say=say,
        optimize=wanted_optimize(options),
        **{name: getattr(options, name) for name in names},
    )
