"""Options that `van eval` and `van predict` share: where and how precisely to run, what to override."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ConfigError
from .parser import Parser

# Passed on as they are; size, mean and std are parsed first.
_PASSED: tuple[str, ...] = (
    *("batch_size", "workers", "device", "precision", "ema", "optimize", "test_time_pool", "trust"),
    *("crop_pct", "interpolation", "resize"),
)


def add_inference_arguments(parser: Any) -> None:
    """Device, precision, batches, EMA, pooling and preprocessing."""
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time; halved when memory runs out")
    parser.add_argument("--workers", type=int, help="threads that read images (default: one per core, at most 8)")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1, …; van eval of segmenters also several: cuda:0,cuda:1"
    )
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    parser.add_argument("--optimize", action="store_true", help="fold and optimise the network first")
    parser.add_argument(
        "--test-time-pool",
        action="store_true",
        help="for images larger than the network was made for: pool over windows",
    )
    parser.add_argument(
        "--trust", action="store_true", help="open a .pt2 file of others, which runs its author's programs"
    )
    group = parser.add_argument_group("preprocessing (default: the checkpoint's own)")
    group.add_argument("--size", help="pixels: 224, or height x width: 224x320")
    group.add_argument("--crop-pct", type=float, help="share of the resized image that the centre crop keeps")
    group.add_argument("--interpolation", help="nearest, bilinear, bicubic or lanczos")
    group.add_argument("--mean", help="per channel, 0 … 1, with commas: 0.485,0.456,0.406")
    group.add_argument("--std", help="per channel, 0 … 1, with commas: 0.229,0.224,0.225")
    group.add_argument(
        "--ignore-exif", action="store_true", help="pixels as stored, not turned: published protocols for ImageNet"
    )
    group.add_argument("--resize", help="shortest (then a centre crop) or squash")


def inference_options(options: Any) -> dict[str, Any]:
    """The keyword arguments of Predictor and evaluate that `add_inference_arguments` defines; raises ConfigError."""
    values = {name: getattr(options, name) for name in _PASSED}
    values["exif"] = not options.ignore_exif
    values["size"] = None if options.size is None else image_size(options.size)
    for name in ("mean", "std"):
        text = getattr(options, name)
        values[name] = None if text is None else channels(name, text)
    return values


OF_MASKS = ("scales", "flip", "window", "stride", "fit", "size_divisor")
OF_LABELS = ("batch_size", "test_time_pool", "size", "crop_pct", "interpolation", "resize")


def add_mask_arguments(parser: Any) -> None:
    """How a segmenter looks at a picture."""
    group = parser.add_argument_group(
        "segmenters (default: the checkpoint's own, else the published single-scale test)"
    )
    group.add_argument("--scales", help="average views at these scales: 0.5,0.75,1,1.25,1.5,1.75")
    group.add_argument("--flip", action="store_true", help="average with mirrored views")
    group.add_argument("--window", type=int, help="side of sliding windows, pixels")
    group.add_argument("--stride", type=int, help="a window every so many pixels (default: two thirds of the window)")
    group.add_argument("--fit", help="longest x shortest side that a picture is scaled into: 2048x512, or none")
    group.add_argument(
        "--size-divisor",
        type=int,
        help="stretch sides to a multiple of it; 1: leave them alone (published: HamNet 1, all others 32)",
    )


def mask_options(options: Any) -> dict[str, Any]:
    """The fields of Inference that are given; raises ConfigError."""
    given: dict[str, Any] = {"flip": True} if options.flip else {}
    passed = ("window", "stride", "size_divisor")
    given |= {name: getattr(options, name) for name in passed if getattr(options, name) is not None}
    if options.scales is not None:
        given["scales"] = channels("scales", options.scales)
    for name in ("mean", "std"):
        if getattr(options, name) is not None:
            given[name] = channels(name, getattr(options, name))
    if options.fit == "none":
        given["resize"] = None
    elif options.fit is not None:
        sides = options.fit.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise ConfigError(f"--fit is {options.fit!r}; expected longest x shortest side, as 2048x512, or none")
        given["resize"] = (int(sides[0]), int(sides[1]))
    return given


def refuse(options: Any, parser_of: Callable[[Any], None], names: Iterable[str], owners: str) -> None:
    """Raises ConfigError when one of these options is given: it belongs to `owners` and would do nothing."""
    parser = Parser(prog="van")
    parser_of(parser)
    defaults = {action.dest: (action.option_strings, action.default) for action in parser._actions}
    for name in names:
        if name in defaults and getattr(options, name) != defaults[name][1]:
            raise ConfigError(f"{defaults[name][0][0]} belongs to {owners}; leave it out")


def image_size(text: str) -> int | tuple[int, int]:
    """`224` -> 224, `224x320` -> (224, 320); raises ConfigError."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--size is {text!r}; expected pixels as 224, or height x width as 224x320")
    return int(text) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def channels(name: str, text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` -> (0.5, 0.5, 0.5); raises ConfigError."""
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise ConfigError(f"--{name} is {text!r}; expected one number per channel, as 0.5,0.5,0.5") from None


def command_line(verb: str, add_arguments: Callable[[Any], None], options: Any) -> str:
    """The command that gives these options, without those that have their default."""
    parser = Parser(prog=f"van {verb}")
    add_arguments(parser)
    words: list[str] = []
    trailing: list[str] = []
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if not action.option_strings:
            words += map(str, value if isinstance(value, list) else [value])
        elif action.dest != "help" and value is not None and value != action.default:
            trailing.append(action.option_strings[0])
            trailing += [] if value is True else [str(value)]
    return shlex.join(["van", verb, *words, *trailing])
