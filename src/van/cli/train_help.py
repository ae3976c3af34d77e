"""`van train --help`: first what is changed most, then the sections; a section's settings on request.

van train RECIPE --help             the recipe's story and the frequent options
van train RECIPE --help optim       every setting of a section
van train RECIPE --help all         every setting
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

from ..errors import UnknownNameError
from ..recipes import RECIPES, AnyRecipe
from .train_names import SHORT

_WIDTH, _INDENT = 110, 30
OWN = (
    ("--config FILE", "YAML file of settings, e.g. a run's recipe.yaml"),
    ("--preset NAME", "the recipe for a smaller machine: {presets}"),
    ("--name NAME", "names the run's folder"),
    ("--print_config", "print every setting as YAML, and stop"),
    ("--list", "list the recipes"),
)


def help_text(recipe: AnyRecipe, topic: str | None, presets: Sequence[str], *, named: bool) -> str:
    """What to print; topic: None, a section or "all"; named: whether the user has named the recipe.

    Raises UnknownNameError for another topic.
    """
    sections = type(recipe).sections()
    if topic not in (None, "all", *sections):
        raise UnknownNameError.of("topic of --help", str(topic), [*sections, "all"])
    if topic is not None:
        wanted = sections if topic == "all" else [topic]
        return "\n\n".join(_section(name, sections[name], _values(recipe, name)) for name in wanted)
    called = recipe.name if named else "RECIPE"
    story = inspect.getdoc(RECIPES[recipe.name]) if named and recipe.name in RECIPES else None
    lines = [f"usage: van train {called} [--SHORT VALUE …] [--SECTION.SETTING VALUE …] [--config FILE]", ""]
    lines += [story or "Train or fine-tune a model by a recipe; van train lists the recipes.", ""]
    lines += ["options that are changed most, and the settings they are short for:"]
    lines += _frequent(recipe)
    lines += ["", "sections of settings:"]
    lines += [_entry(f"--help {name}", _lead(kind)) for name, kind in sections.items()]
    lines += [_entry("--help all", "every setting of every section"), "", "further:"]
    lines += [_entry(option, text.format(presets=", ".join(presets))) for option, text in OWN]
    return "\n".join(lines)


def _frequent(recipe: AnyRecipe) -> list[str]:
    lines = []
    for option, setting in SHORT.items():
        section, _, name = setting.partition(".")
        kind = type(recipe).sections()[section]
        if name in _values(recipe, section):
            text = field_texts(kind).get(name, "").rstrip(".")
            default = _shown(_values(recipe, section)[name])
            lines.append(_entry(option, f"{text} [{default}]", f"--{setting}"))
    return lines


def _section(name: str, kind: type, values: Mapping[str, object]) -> str:
    """Its settings in order; neighbours that share a text have it once."""
    lines, texts = [f"{name}: {_lead(kind)}", ""], field_texts(kind)
    for text, fields in groupby(values, key=lambda field: texts.get(field, "")):
        lines += [f"  --{name}.{field} [{_shown(values[field])}]" for field in fields]
        lines += textwrap.wrap(text, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _values(recipe: AnyRecipe, section: str) -> dict[str, object]:
    return dict(vars(getattr(recipe, section)))


def _shown(value: object) -> str:
    """A default as it is typed."""
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(_shown, value))}]" if isinstance(value, tuple | list) else str(value)


def _lead(kind: type) -> str:
    """What a section is, by its first line."""
    text = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".")
    return text[:1].lower() + text[1:]


def _entry(option: str, text: str, setting: str = "") -> str:
    left = f"  {option:<16}{setting}" if setting else f"  {option}"
    width = _INDENT + 12 if setting else _INDENT - 6
    rest = textwrap.wrap(text, _WIDTH - width) or [""]
    return "\n".join([f"{left:<{width}}{rest[0]}", *(" " * width + line for line in rest[1:])])


def field_texts(kind: type) -> dict[str, str]:
    """Field -> what the docstrings of a section and its bases say about it ("name, name: text"), its own last."""
    texts: dict[str, str] = {}
    fields = "|".join(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    start = rf"((?:(?:{fields}),\s)*(?:{fields})): "
    entry = rf"^{start}(.*(?:\n(?!{start.replace('((', '(?:(', 1)}).*)*)"
    for part in reversed(kind.__mro__[:-1]):
        _, _, body = inspect.cleandoc(vars(part).get("__doc__") or "").partition("\n\n")
        for names, text in re.findall(entry, body, re.MULTILINE):
            texts |= {name: " ".join(text.split()) for name in re.split(r",\s", names)}
    return texts
