"""How `van train` reads its command line: what is given, on top of files, on top of a recipe.

The recipe decides which settings there are, and what they are where none is given. jsonargparse has to know all options
and their defaults before it reads the first word; so it gets the settings of every kind of recipe, without defaults,
and what it has read is completed here. Files are read by `recipes.reading`, which bounds their size and depth.
"""

from __future__ import annotations

import argparse
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, Namespace

from ..errors import ConfigError
from ..recipes import KINDS, PRESETS_OF, RECIPES, AnyRecipe, Recipe, get_recipe, kind_of, with_preset
from ..recipes.reading import parse_settings, read_settings
from .parser import Parser
from .train_help import help_text
from .train_names import SHORT, meant

# What a file may hold outside its sections; a printed configuration has all of them.
_OUTSIDE = ("name", "task", "recipe", "list", "preset")
_SECTIONS = tuple(dict.fromkeys(section for kind in KINDS for section in kind.sections()))


class TrainParser(Parser):
    """The parser of `van train`: gives the checked settings of a recipe, and the options that are no settings.

    named: the recipe that is named first on the command line, once it has been read; name: as it is written there.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, **kwargs)
        self.named: AnyRecipe | None = None
        self.name: str | None = None

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """`recipe`: the settings of a recipe, for `recipe_of`; None where the recipes are to be listed."""
        given = super().parse_args(*args, **kwargs)
        self.name = given.recipe
        if given.list or not self.args:
            return Namespace(recipe=None, list=True)
        return Namespace(recipe=self._completed(given), list=False, preset=given.preset)

    def dump(self, namespace: Any, *args: Any, skip_default: bool = False, skip_unset: bool = False, **_: Any) -> str:
        """What --print_config prints, which --config reads; skip_default: only what differs from the named recipe."""
        import yaml

        outside = {"recipe": self.name, "list": namespace.list, "preset": namespace.preset}
        values = outside | (namespace.recipe or {})
        usual: dict[str, Any] = {"recipe": None, "list": False, "preset": None}
        usual = usual | (self.named or kind_of(values)()).to_dict() if skip_default else {}
        return yaml.safe_dump(_without(values, usual, unset=skip_unset), sort_keys=False, allow_unicode=True)

    def base(self, given: Namespace) -> AnyRecipe | None:
        """The recipe to start from: of the run to resume, else the one named first, else the one that a file names."""
        base = self.named
        resume = _options(given).get("trainer.resume")
        if resume not in (None, "auto"):
            from ..train.folder import RECIPE, read_recipe, resume_file

            base = read_recipe(resume_file(resume).parent / RECIPE).with_options(**{"trainer.out": None})
        if base is None:
            names = [values.get(key) for _, values in given.config or () for key in ("name", "recipe")]
            base = next((get_recipe(name) for name in names if isinstance(name, str) and name in RECIPES), None)
        if given.preset is None:
            return base
        if base is None:
            raise ConfigError(f"--preset {given.preset} changes a recipe; name one first")
        return with_preset(base, given.preset)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if part := re.search(r"""Parser key "\w+\.([\w.]+)".*NestedArg\(key='([\w.]+)'""", message, re.DOTALL):
            # jsonargparse takes --data.pth, which is no setting, for a part of --data
            option = next((short for short in SHORT if SHORT[short] == part[1]), f"--{part[1]}")
            message = f"unrecognized arguments: {option}.{part[2]}"
        _, unknown, words = message.partition("unrecognized arguments: ")
        if unknown:
            self._refuse(words.split())
        super().error(re.sub(r'Parser key "(?:setting|short)\.', 'Parser key "', message), ex)

    def _refuse(self, words: list[str]) -> None:
        """Raises ConfigError for words that no option takes, where it is plain what they would be."""
        late = next((word for word in words if word in RECIPES), None)
        if late and self.named is None:
            raise ConfigError(f"van train: the recipe comes first: van train {late} …")
        option = next((word.partition("=")[0] for word in words if word.startswith("--")), None)
        if option and "." not in option:
            refuse_foreign(option, settings_of(KINDS if self.named is None else [type(self.named)]))

    def _completed(self, given: Namespace) -> dict[str, Any]:
        files, options = given.config or [], _options(given)
        base = self.base(given)
        if base is None and not files:
            raise ConfigError(f"van train: name a recipe first, one of {', '.join(RECIPES)}")
        outside = {key: values[key] for _, values in files for key in ("name", "task") if values.get(key) is not None}
        outside |= {key: given[key] for key in ("name", "task") if key in given}
        recipe = kind_of(outside)() if base is None else base
        if kind_of(recipe.to_dict() | outside) is not type(recipe):
            raise ConfigError(f"task is {outside['task']!r}, which {recipe.name} is no recipe for; leave it out")
        values, settings = recipe.to_dict() | outside, settings_of([type(recipe)])
        for setting, value in [pair for _, layer in files for pair in flat(layer).items()] + [*options.items()]:
            if setting not in settings:
                self._refuse_setting(setting, given, settings)
            section, _, name = setting.partition(".")
            values[section][name] = value
        return values

    def _refuse_setting(self, setting: str, given: Namespace, settings: Mapping[str, Any]) -> NoReturn:
        """Raises ConfigError for a setting of another kind of recipe, as it was written."""
        option = next((short for short in SHORT if SHORT[short] == setting and f"short.{setting}" in given), None)
        option = option or f"--{setting}"
        refuse_foreign(option, settings)
        raise ConfigError(f"van train: there is no {option} in this recipe{near(setting, settings)}")


def settings_of(kinds: Iterable[type[AnyRecipe]]) -> dict[str, Any]:
    """Dotted name of every setting -> its type; where kinds of recipes differ, any of theirs."""
    found: dict[str, Any] = {}
    for kind in kinds:
        for section, spec in kind.sections().items():
            hints = typing.get_type_hints(spec)
            for name in (item.name for item in fields(spec)):
                setting, hint = f"{section}.{name}", hints[name]
                found[setting] = hint | found[setting] if found.get(setting, hint) != hint else hint
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names and values of the sections in a nested dict."""
    sections = {key: value for key, value in values.items() if key in _SECTIONS and isinstance(value, Mapping)}
    return {f"{section}.{name}": value for section, inner in sections.items() for name, value in inner.items()}


def _without(values: dict[str, Any], usual: Mapping[str, Any], *, unset: bool) -> dict[str, Any]:
    """The values that are not the usual ones and, if asked, not None either; sections that become empty are gone."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key in _SECTIONS:
            if inner := _without(value, usual.get(key, {}), unset=unset):
                kept[key] = inner
        elif not (key in usual and usual[key] == value) and not (unset and value is None):
            kept[key] = value
    return kept


def _options(given: Namespace) -> dict[str, Any]:
    """The settings among the options, under their long names; raises ConfigError for one that is given two values."""
    values = given.as_dict()
    found = flat(values.get("setting", {}))
    for setting, value in flat(values.get("short", {})).items():
        if found.get(setting, value) != value:
            option = next(short for short in SHORT if SHORT[short] == setting)
            raise ConfigError(f"{option} {value} and --{setting} {found[setting]} set the same; give one of them")
        found[setting] = value
    return found


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean --optim.lr?` for the setting that is spelled most like `name`, else ""."""
    found = difflib.get_close_matches(name, [*known], n=1, cutoff=0.7)
    return f"; did you mean --{found[0]}?" if found else ""


def refuse_foreign(option: str, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError for an option that other tools, or other recipes, have for one of these settings."""
    own = [f"--{setting}" for setting in meant(re.sub(r"^--(?:\w+\.)?", "", option).replace("-", "_"), settings)]
    if own:
        raise ConfigError(f"van train: there is no {option}; did you mean {' or '.join(own)}?")


def _add_file(given: Namespace, file: str, values: dict[str, Any]) -> None:
    """Let a file's settings take the place of what was given before it; raises ConfigError for unknown ones."""
    known = settings_of(KINDS)
    for key, value in values.items():
        if key in _SECTIONS and not isinstance(value, Mapping):
            raise ConfigError(f"{file}: section {key!r} is {value!r:.80}; expected keys and values")
        if key not in (*_SECTIONS, *_OUTSIDE):
            inner = [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else [key]
            raise ConfigError(
                f"{file}: there is no setting {inner[0] if inner else key}{near((inner or [key])[0], known)}"
            )
    for setting in flat(values):
        if setting not in known:
            raise ConfigError(f"{file}: there is no setting {setting}{near(setting, known)}")
        given.pop(f"setting.{setting}", None)
        given.pop(f"short.{setting}", None)
    given.config = [*(given.config or ()), (file, values)]


class SettingsFile(ActionConfigFile):
    """--config FILE."""

    def __call__(self, parser: Any, given: Any, value: Any, option_string: str | None = None) -> None:
        _add_file(given, value, read_settings(Path(value)))


class SectionFile(argparse.Action):
    """--optim FILE, or --optim '{lr: 1e-4}'."""

    def __call__(self, parser: Any, given: Any, value: Any, option_string: str | None = None) -> None:
        option = f"--{self.dest}"
        if option_string != option:  # jsonargparse takes --optim.lrr, which is no setting, for a part of --optim
            parser.error(f"unrecognized arguments: {option_string}")
        if value.lstrip().startswith("{"):
            _add_file(given, option, {self.dest: parse_settings(value, Path(option))})
            return
        if not value.endswith((".yaml", ".yml")):
            refuse_foreign(option, settings_of(KINDS if parser.named is None else [type(parser.named)]))
        _add_file(given, value, {self.dest: read_settings(Path(value))})


class RecipeName(argparse.Action):
    """The recipe, which comes before the settings that it decides about."""

    def __call__(self, parser: Any, given: Any, value: Any, option_string: str | None = None) -> None:
        if value is None:
            return
        parser.named, given.recipe = get_recipe(value), value
        if given.config or _options(given):
            raise ConfigError(f"van train: the recipe comes first: van train {value} …")


class TrainHelp(argparse.Action):
    """`--help` and `--help SECTION`: print, and stop."""

    def __call__(self, parser: Any, given: Any, value: Any, option_string: str | None = None) -> None:
        recipe = parser.base(given)
        kind = Recipe if recipe is None else type(recipe)
        print(help_text(recipe or kind(), value, list(PRESETS_OF[kind]), named=recipe is not None), flush=True)
        raise SystemExit(0)
