"""Convert a checkpoint to another format, read it back, and compare tensors and outputs bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checkpoints import FORMATS, folders
from ..checkpoints.files import SUFFIXES
from ..errors import ConfigError
from .output import say

_SUFFIXES = tuple(dict.fromkeys((*SUFFIXES, ".keras")))


def add_arguments(parser: Any) -> None:
    """Options of `van convert`."""
    parser.add_argument("source", help="a checkpoint file, a folder, a hub id (org/name), or published weights")
    parser.add_argument("destination", help="the file to write; for transformers a folder")
    parser.add_argument("--to", choices=list(FORMATS), required=True, help="format to write")
    parser.add_argument("--ema", action="store_true", help="take the averaged weights")
    parser.add_argument("--num-classes", type=int, help="a fresh head of this width where it differs; 0 for none")
    parser.add_argument("--layer-norm-eps", type=float, help="for a file that does not hold its epsilon")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--card",
        metavar="ORG/NAME",
        help="a model card for this repository; with --to transformers, or --to van and a model.safetensors",
    )


def run(options: Any) -> None:
    """Convert, verify, and print what was lost."""
    from ..models import convert

    own = options.to == "van" and Path(options.destination).name == folders.WEIGHTS[0]
    if options.card and not (own or options.to == "transformers"):
        raise ConfigError(
            f"--card belongs to --to transformers, or to --to van and a destination named {folders.WEIGHTS[0]}; "
            "leave it out, or change these"
        )
    suffix = Path(options.destination).suffix
    if options.to != "transformers" and suffix and suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{options.destination}: {suffix} is no checkpoint's suffix; expected {', '.join(_SUFFIXES)}")
    known = {} if options.layer_norm_eps is None else {"layer_norm_eps": options.layer_norm_eps}
    done = convert(
        options.source,
        options.destination,
        to=options.to,
        num_classes=options.num_classes,
        ema=options.ema,
        revision=options.revision,
        **known,
    )
    say(f"{done.source} ({done.source_format}) -> {done.destination} ({done.format})")
    say(f"verified: {done.tensors} tensors bit-identical, {done.outputs} equal")
    for note in done.notes:
        say(f"note: {note}")
    for sentence in done.lost:
        say(f"not carried: {sentence}")
    if options.card:
        from ..hosts import model_card as card

        folder = Path(options.destination).parent if own else options.destination
        say(f"model card: {card.write(folder, options.card)}")
