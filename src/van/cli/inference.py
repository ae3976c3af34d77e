"""Options that `van eval` and `van predict` share: where and how precisely to run, and those of every task."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from ..tasks import TASKS, Task
from ..tasks.options import OWN, Flag, flags, plural
from ..tasks.options import side_or_sides as image_size
from .parser import Parser

if TYPE_CHECKING:
    from ..inference.optimizing import Optimize

__all__ = [
    "TaskArguments",
    "add_inference_arguments",
    "add_optimize_arguments",
    "add_task_arguments",
    "add_trust_argument",
    "command_line",
    "image_size",
    "wanted_optimize",
]

Kind = Literal["predict_options", "eval_options"]

BATCH_SIZE = 32
SHARED = "what several kinds of models take, each in its way"


def add_inference_arguments(parser: Any, *, trust: bool = True) -> None:
    """Device, precision, batches, EMA; trust: also what concerns exported files."""
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, help="images at a time; halved when memory runs out"
    )
    parser.add_argument("--workers", type=int, help="threads that read images (default: one per core, at most 8)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …; van eval also several: cuda:0,cuda:1")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    add_optimize_arguments(parser)
    if trust:
        add_trust_argument(parser)
    parser.add_argument(
        "--ignore-exif", action="store_true", help="pixels as stored, not turned: published protocols for ImageNet"
    )


def add_optimize_arguments(parser: Any) -> None:
    """Whether the network is optimised; see `wanted_optimize`."""
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="fold and optimise the network in any case (default: where that is faster, as on a CPU in fp32 for more "
        "than a few images; results differ by rounding alone)",
    )
    parser.add_argument("--no-optimize", action="store_true", help="run the network as it is")


def add_trust_argument(parser: Any) -> None:
    """Whether exported files run that hold programs."""
    parser.add_argument(
        "--trust", action="store_true", help="open a .pt2 file of others, which runs its author's programs"
    )


def wanted_optimize(options: Any) -> Optimize:
    """The `optimize` of sessions; raises ConfigError where both options are given."""
    if options.optimize and options.no_optimize:
        raise ConfigError("--optimize and --no-optimize exclude each other; give one, or none for the faster network")
    return "auto" if options.optimize == options.no_optimize else bool(options.optimize)


def add_task_arguments(parser: Any, kind: Kind) -> None:
    """The options of every task, each once, under their headings."""
    groups: dict[str, Any] = {}
    for flag, default in _offered(kind).values():
        group = parser
        if flag.group is not None:
            if flag.group not in groups:
                groups[flag.group] = parser.add_argument_group(flag.group)
            group = groups[flag.group]
        if flag.kind is bool:
            group.add_argument(flag.name, action="store_true", help=flag.help)
        else:
            typed = {} if flag.kind is str else {"type": flag.kind}  # text says nothing in the help
            group.add_argument(flag.name, **typed, default=default, help=flag.help)


class TaskArguments:
    """The options of whatever task a model has, from parsed arguments; see `session.Parse`.

    more: further fields, which are no flags of a task.
    """

    def __init__(self, options: Any, kind: Kind, **more: object) -> None:
        self.kind, self.more = kind, more
        offered = _offered(kind).items()
        self.given = {key: getattr(options, key) for key, (_, default) in offered if getattr(options, key) != default}

    def __call__(self, task: Task, name: str) -> object:
        """Raises ConfigError for an option that belongs to another task, and for a value that cannot be."""
        own = {flag.key: (each, flag) for each, flag in _flags(task, self.kind)}
        values = dict(self.more)
        for key, value in self.given.items():
            if key not in own:
                owners = [other.noun for other in TASKS.values() if key in _keys(other, self.kind)]
                flag = _offered(self.kind)[key][0]
                raise ConfigError(f"{flag.name} belongs to {plural(owners)}, which this is not; leave it out")
            each, flag = own[key]
            values[each.name] = value if flag.parse is None else flag.parse(value)
        return getattr(task, self.kind)(**values)

    def check_single(self, checkpoints: int, **others: object) -> None:
        """Raises ConfigError where several checkpoints meet an option for one at a time; others: further such ones."""
        names = [flag.name for flag, _ in _offered(self.kind).values() if flag.single and flag.key in self.given]
        names += [f"--{name}" for name, value in others.items() if value]
        if names and checkpoints > 1:
            raise ConfigError(f"{names[0]} shows one checkpoint, got {checkpoints}; evaluate them one at a time")


def _flags(task: Task, kind: Kind) -> Iterator[tuple[Field[Any], Flag]]:
    return flags(getattr(task, kind))


def _keys(task: Task, kind: Kind) -> set[str]:
    return {flag.key for _, flag in _flags(task, kind)}


def _offered(kind: Kind) -> dict[str, tuple[Flag, Any]]:
    """Key -> (flag, default on the command line) of every task's options."""
    owners: dict[str, list[tuple[str, Flag, Any]]] = {}
    for task in TASKS.values():
        for each, flag in _flags(task, kind):
            default = False if flag.kind is bool else None if each.default is OWN else each.default
            owners.setdefault(flag.key, []).append((task.noun, flag, default))
    return {key: (_shared([(noun, flag) for noun, flag, _ in of]), of[0][2]) for key, of in owners.items()}


def _shared(owners: Iterable[tuple[str, Flag]]) -> Flag:
    """The flag of tasks that have one of the same name: with what each says of it, where they say different things."""
    texts: dict[str, list[str]] = {}
    for noun, flag in owners:
        texts.setdefault(flag.help, []).append(noun)
    first = next(flag for _, flag in owners)
    if len(texts) == 1:
        return first
    said = "; ".join(f"{plural(nouns)}: {text}" for text, nouns in texts.items())
    return replace(first, help=said, group=SHARED)


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
