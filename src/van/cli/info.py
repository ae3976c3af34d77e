"""What a checkpoint file is, or what a model costs: `van info FILE`, `van info org/name`, `van info van_b0`.

`van info --ops`: which way this machine computes the network's primitives.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..configs.catalog import ALIASES, MODELS, OBJECT_MODELS, resolve
from ..configs.segmenter import SEGMENTERS
from ..errors import ConfigError, UnknownNameError, with_article
from .output import say


def add_arguments(parser: Any) -> None:
    """Options of `van info`."""
    parser.add_argument(
        "target",
        nargs="?",
        help="a checkpoint file or folder, an exported file, a hub id (org/name), published weights (official/van_b0), "
        "or a model name; none: every model",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ema", action="store_true", help="checkpoint: use the averaged weights")
    parser.add_argument("--revision", help="checkpoint: branch, tag or commit of a hub id")
    parser.add_argument(
        "--size",
        nargs="+",
        metavar="SIDE",
        help="model: side of the image, or its H and W, also as HxW (default 224; segmenters 512; models that find "
        "objects 1280x800, or the side they stretch to)",
    )
    parser.add_argument("--ablations", action="store_true", help="model: what the options of its attention cost")
    parser.add_argument("--ops", action="store_true", help="how this machine computes the primitives, and why")


def run(options: Any) -> None:
    """Print what the target is."""
    if options.ops:
        _ops(options)
    elif options.target is None:
        from .costs import show_variants

        show_variants(size=_size(options) or [224], as_json=options.json)
    elif is_model_name(options.target):
        _model(resolve(options.target), options)
    else:
        _checkpoint(options)


def is_model_name(target: str) -> bool:
    """Whether the target is a model rather than a file; raises UnknownNameError where it is likely a misspelt model."""
    if Path(target).exists():
        return False
    try:
        resolve(target)
    except UnknownNameError:
        if _looks_like_a_model(target):
            raise UnknownNameError.of("model or file", target, [*MODELS, *ALIASES]) from None
        return False
    return True


def _looks_like_a_model(target: str) -> bool:
    starts = tuple({name[: name.index("van") + 3] for name in MODELS})
    key = target.lower().replace("-", "_")
    return (
        (key.startswith(starts) or re.search(r"_van_b\d", key) is not None)
        and not Path(target).suffix
        and "/" not in target
    )


def _model(name: str, options: Any) -> None:
    from .costs import show_model, show_objects, show_segmenter

    size, with_head = _size(options), name in SEGMENTERS or name in OBJECT_MODELS
    if not with_head:
        show_model(name, size=size or [224], with_ablations=options.ablations, as_json=options.json)
    elif options.ablations:
        raise ConfigError(
            f"--ablations is for classifiers; {name} is {with_article(MODELS[name].noun)}, try it with its backbone"
        )
    elif name in SEGMENTERS:
        show_segmenter(name, size=size or [512], as_json=options.json)
    else:
        show_objects(name, size=size, as_json=options.json)


def _size(options: Any) -> list[int]:
    """The sides in --size; [] without. Raises ConfigError for what is no whole numbers."""
    words = [side for word in options.size or () for side in str(word).lower().split("x")]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--size is {' '.join(map(str, options.size))!r:.80}; expected 224, 1280 800 or 1280x800")
    return [int(word) for word in words]


def _ops(options: Any) -> None:
    if options.target is not None:
        raise ConfigError(f"--ops is about this machine, not about {options.target!r}; leave one of the two out")
    from ..ops import report

    paths = report()
    width = max(map(len, paths))
    lines = [f"{primitive:<{width}}  {path}" for primitive, path in paths.items()]
    print(json.dumps(paths, indent=2) if options.json else "\n".join(lines))


def _checkpoint(options: Any) -> None:
    from ..inference.engines.exported import info_of, is_exported
    from ..models import info

    if is_exported(options.target):
        if options.ema or options.revision is not None:
            raise ConfigError(f"--ema and --revision are for checkpoints; {options.target} is an exported file")
        _show(info_of(options.target), as_json=options.json)
        return
    _show(info(options.target, ema=options.ema, revision=options.revision), as_json=options.json)


def _show(facts: Any, *, as_json: bool) -> None:
    """Print what is known of a file, its `rows()` or `to_dict()`."""
    if as_json:
        print(json.dumps(facts.to_dict(), indent=2))
        return
    width = max(len(what) for what, _ in facts.rows())
    for what, value in facts.rows():
        say(f"{what:<{width}}  {value}")
