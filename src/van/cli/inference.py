"""Options that `van eval` and `van predict` share: where and how precisely to run, what to override."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from .parser import Parser

# Passed on as they are; size, mean and std are parsed first.
_PASSED: tuple[str, ...] = (
    *("batch_size", "workers", "device", "precision", "ema", "optimize", "test_time_pool"),
    *("crop_pct", "interpolation", "resize"),
)


def add_inference_arguments(parser: Any) -> None:
    """Device, precision, batches, EMA, pooling and preprocessing."""
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time; halved when memory runs out")
    parser.add_argument("--workers", type=int, help="threads that read images (default: one per core, at most 8)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    parser.add_argument("--optimize", action="store_true", help="fold and optimise the network first")
    parser.add_argument(
        "--test-time-pool",
        action="store_true",
        help="for images larger than the network was made for: pool over windows",
    )
    group = parser.add_argument_group("preprocessing (default: the checkpoint's own)")
    group.add_argument("--size", help="pixels: 224, or height x width: 224x320")
    group.add_argument("--crop-pct", type=float, help="share of the resized image that the centre crop keeps")
    group.add_argument("--interpolation", help="nearest, bilinear, bicubic or lanczos")
    group.add_argument("--mean", help="per channel, 0 … 1, with commas: 0.485,0.456,0.406")
    group.add_argument("--std", help="per channel, 0 … 1, with commas: 0.229,0.224,0.225")
    group.add_argument("--resize", help="shortest (then a centre crop) or squash")


def inference_options(options: Any) -> dict[str, Any]:
    """The keyword arguments of Predictor and evaluate that `add_inference_arguments` defines; raises ConfigError."""
    values = {name: getattr(options, name) for name in _PASSED}
    values["size"] = None if options.size is None else image_size(options.size)
    for name in ("mean", "std"):
        text = getattr(options, name)
        values[name] = None if text is None else channels(name, text)
    return values


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
