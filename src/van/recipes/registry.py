"""The recipes there are, by name; their classes and presets, by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from ..errors import ConfigError, UnknownNameError
from .base import BaseRecipe

Kind = TypeVar("Kind", bound=BaseRecipe)

# classes of recipes, one per task; name -> recipe; class -> preset -> what fits a recipe to a smaller machine
KINDS: list[type[BaseRecipe]] = []
RECIPES: dict[str, Callable[[], BaseRecipe]] = {}
PRESETS_OF: dict[type[BaseRecipe], Mapping[str, Callable[[Any], BaseRecipe]]] = {}


def register(
    kind: type[Kind],
    recipes: Mapping[str, Callable[[], Kind]] | None = None,
    presets: Mapping[str, Callable[[Kind], Kind]] | None = None,
) -> None:
    """Make a task's recipes known: their class, and named ones with a story as docstring.

    Raises ConfigError for a task or a name that is another's.
    """
    known = {each.task: each for each in KINDS}.get(kind.task, kind)
    if known is not kind:
        raise ConfigError(f"recipes of task {kind.task!r} are of {known.__name__} already; choose another name")
    for name, recipe in (recipes or {}).items():
        if RECIPES.get(name, recipe) is not recipe:
            raise ConfigError(f"there is a recipe {name!r} already; choose another name")
    if kind not in KINDS:
        KINDS.append(kind)
    RECIPES.update(recipes or {})
    PRESETS_OF[kind] = presets or {}


def get_recipe(name: str) -> Any:
    """The recipe of that name (dashes allowed); raises UnknownNameError with a suggestion."""
    key = name.lower().replace("-", "_")
    if key not in RECIPES:
        raise UnknownNameError.of("recipe", name, RECIPES)
    return RECIPES[key]()


def with_preset(recipe: Any, name: str) -> Any:
    """A recipe for a smaller machine; raises UnknownNameError, ConfigError for a preset of another task."""
    known = dict.fromkeys(preset for presets in PRESETS_OF.values() for preset in presets)
    if name not in known:
        raise UnknownNameError.of("preset", name, known)
    own = PRESETS_OF[type(recipe)]
    if name not in own:
        *first, last = (kind.task for kind, presets in PRESETS_OF.items() if name in presets)
        tasks = f"{', '.join(first)} and {last}" if first else last
        raise ConfigError(f"--preset {name} belongs to {tasks} recipes; this one has {', '.join(own)}")
    return own[name](recipe)


def kind_of(values: Mapping[str, Any]) -> type[BaseRecipe]:
    """The class of the recipe in a nested dict, by its `task`; raises UnknownNameError for a task that is none."""
    kinds = {kind.task: kind for kind in KINDS}
    task = values.get("task") or next(kind.task for kind in KINDS if not kind.tagged)
    if task not in kinds:
        raise UnknownNameError.of("task", str(task), kinds)
    return kinds[task]


def recipe_of(values: Mapping[str, Any]) -> Any:
    """The recipe in a nested dict, which names its `task`. Raises as `kind_of` and `BaseRecipe.from_dict`."""
    return kind_of(values).from_dict(values)


def configured(recipe: str | BaseRecipe, settings: Mapping[str, Any]) -> Any:
    """A recipe (or the one of that name) with settings changed: `{"optim.lr": 1e-4}`, or `{"optim": {"lr": 1e-4}}`.

    Raises UnknownNameError for a setting that does not exist, ConfigError for one that cannot be.
    """
    base = get_recipe(recipe) if isinstance(recipe, str) else recipe
    if not isinstance(base, BaseRecipe):
        raise ConfigError(f"got a recipe of type {type(base).__name__}; expected a name, as 'finetune', or a Recipe")
    values = base.to_dict()
    for name, value in settings.items():
        section, _, key = name.rpartition(".")
        inner = {key: value} if section else value if isinstance(value, Mapping) else None
        section = section or name
        if inner is None and name in ("name", "task"):
            values[name] = value
        elif inner is None or section not in base.sections():
            known = [f"{part}.{each}" for part, keys in values.items() if isinstance(keys, dict) for each in keys]
            raise UnknownNameError.of("setting", name, known)
        else:
            values[section] |= {key: str(each) if isinstance(each, PurePath) else each for key, each in inner.items()}
    return recipe_of(values)


def summary(name: str) -> str:
    """First line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
