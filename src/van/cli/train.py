"""Train or fine-tune a classifier or a segmenter by a recipe; every setting can be overridden.

van train digits_van_b0
van train finetune --checkpoint van_tiny_754.pth.tar --data FOLDER
van train finetune --config mine.yaml --lr 5e-5 --augment.mixup 0.8 --print_config
van train light_ham_van_b0 --preset small_gpu --checkpoint van_tiny_754.pth.tar --data ADE20K
van train --resume runs/finetune-20260101-120000
"""

from __future__ import annotations

import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..recipes import (
    CLASSIFICATION_PRESETS,
    PRESETS,
    RECIPES,
    AnyRecipe,
    Recipe,
    SegmentationRecipe,
    get_recipe,
    recipe_of,
    summary,
    with_preset,
)
from ..recipes.reading import read_settings
from .output import say
from .train_help import help_text
from .train_names import SHORT, spelled_out


def add_arguments(parser: Any) -> None:
    """Options of `van train` that no recipe has."""
    parser.add_argument("recipe", nargs="?", help="name of a recipe; none: list them")
    parser.add_argument("--list", action="store_true", help="list the recipes")
    parser.add_argument("--config", action="config", help="YAML file of settings, e.g. a run's recipe.yaml")
    parser.add_argument("--name", default="custom", help="names the run's folder")
    presets = dict.fromkeys((*CLASSIFICATION_PRESETS, *PRESETS))
    parser.add_argument("--preset", help=f"the recipe for a smaller machine: {', '.join(presets)}")


def _add_sections(parser: Any, kind: type[AnyRecipe]) -> None:
    """Every field of a recipe, by its dotted name."""
    if kind is SegmentationRecipe:
        parser.add_argument("--task", default="segmentation", help="the kind of recipe")
    for section, spec in kind.sections().items():
        parser.add_class_arguments(spec, section)


def set_defaults(parser: Any, arguments: list[str]) -> None:
    """Defaults of the recipe that is named first, of the run that is resumed, or of the one a YAML file names."""
    if not arguments:
        arguments.append("--list")
    _settings(arguments)  # before anybody else reads them
    _spell_out(arguments)
    base = _preset(_base(arguments), _value(arguments, "--preset"))
    kind = SegmentationRecipe if isinstance(base, SegmentationRecipe) or _is_segmentation(arguments) else Recipe
    _help(arguments, base or kind(), named=base is not None)
    _add_sections(parser, kind)
    if base is None:
        if not {"--list", "--config", "-h", "--help"} & {word.partition("=")[0] for word in arguments}:
            raise ConfigError(f"van train: name a recipe first, one of {', '.join(RECIPES)}")
        return
    values: dict[str, Any] = {"name": base.name}
    for section in kind.sections():
        spec = getattr(base, section)
        values |= {f"{section}.{key}": value for key, value in vars(spec).items()}
    parser.set_defaults(values)


def _spell_out(arguments: list[str]) -> None:
    """Short options become the settings of the recipe at hand."""
    named = RECIPES.get(arguments[0].lower().replace("-", "_"))
    kinds: list[type[AnyRecipe]] = [type(named())] if named else [Recipe, SegmentationRecipe]
    if named is None and _is_segmentation(arguments):
        kinds = [SegmentationRecipe]
    sections = [pair for kind in kinds for pair in kind.sections().items()]
    settings = {f"{section}.{each.name}": section for section, spec in sections for each in fields(spec)}
    arguments[:] = spelled_out(arguments, settings)


def _help(arguments: list[str], recipe: AnyRecipe, *, named: bool) -> None:
    """`--help` and `--help SECTION`: print, and stop."""
    at = next((index for index, word in enumerate(arguments) if word.partition("=")[0] in ("-h", "--help")), None)
    if at is None:
        return
    following = [word for word in arguments[at + 1 : at + 2] if not word.startswith("-")]
    topic = arguments[at].partition("=")[2] or next(iter(following), None)
    known = CLASSIFICATION_PRESETS if isinstance(recipe, Recipe) else PRESETS
    print(help_text(recipe, topic, list(known), named=named), flush=True)
    raise SystemExit(0)


def run(options: Any) -> int:
    """Train, and say where the result is."""
    values = options.as_dict()
    if options.list:
        print(_listing())
        return 0
    if options.recipe is not None:
        get_recipe(options.recipe)  # raises for one that was named elsewhere than first, and is none
    kind = SegmentationRecipe if "task" in values else Recipe
    recipe = recipe_of({name: value for name, value in values.items() if name in ("task", "name", *kind.sections())})
    from ..train import run as train
    from ..train.distributed import is_first
    from ..train.folder import held_out

    folder = train(recipe)
    if not is_first():  # of several processes that trained together
        return 0
    figures = json.loads((folder / "summary.json").read_text())
    nan = float("nan")  # where nothing was there to score
    score = f"top-1 {figures['val/top1']:.2f}%" if kind is Recipe else f"mIoU {figures.get('val/mIoU', nan):.2%}"
    say(f"{folder}: {score} on {held_out(figures)}, {figures['seconds']:.0f} s")
    say(f"next: van predict {folder / figures['model']} IMAGE")
    return 0


def _preset(base: AnyRecipe | None, name: str | None) -> AnyRecipe | None:
    """The recipe for a smaller machine."""
    if name is None:
        return base
    if base is None:
        raise ConfigError(f"--preset {name} changes a recipe; name one first")
    return with_preset(base, name)


def _is_segmentation(arguments: list[str]) -> bool:
    """Whether a YAML file without a known recipe's name is a segmentation's."""
    return any(settings.get("task") == "segmentation" for settings in _settings(arguments))


def _base(arguments: list[str]) -> AnyRecipe | None:
    resume = _value(arguments, "--trainer.resume")
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    recipe = get_recipe(named) if named else None
    late = next((word for word in arguments[1:] if word in RECIPES), None)
    if recipe is None and late and _value(arguments, "--name") != late:
        raise ConfigError(f"van train: the recipe comes first: van train {late} …")
    if resume not in (None, "auto"):
        from ..train.folder import RECIPE, read_recipe, resume_file

        return read_recipe(resume_file(resume).parent / RECIPE).with_options(**{"trainer.out": None})
    if recipe is None:
        names = [settings.get(key) for settings in _settings(arguments) for key in ("name", "recipe")]
        return next((get_recipe(name) for name in names if isinstance(name, str) and name in RECIPES), None)
    return recipe


def _settings(arguments: list[str]) -> list[dict[str, Any]]:
    """What the YAML files among the arguments hold; raises ConfigError for one that is none, or cannot be read."""
    sections = dict.fromkeys((*Recipe.sections(), *SegmentationRecipe.sections()))
    for option in (f"--{section}" for section in sections):
        for file in _values(arguments, option) if option not in SHORT else ():  # --data is the data set
            if len(file) < 1000 and Path(file).exists():
                read_settings(Path(file))
    return [read_settings(Path(file)) for file in _values(arguments, "--config")]


def _value(arguments: list[str], option: str) -> str | None:
    """What follows `option`, before the arguments are parsed."""
    return next(iter(_values(arguments, option)), None)


def _values(arguments: list[str], option: str) -> list[str]:
    """What follows `option`, every time."""
    found = []
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if word == option:
            found.append(following)
        elif word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
    return found


def _listing() -> str:
    width = max(map(len, RECIPES))
    lines = [f"  {name:<{width}}  {summary(name)}" for name in RECIPES]
    usage = "usage: van train RECIPE [--data FOLDER] [--checkpoint FILE] [--lr 1e-4 …] [--config FILE] [--print_config]"
    return "\n".join([usage, "", *lines, "", "van train RECIPE --help tells a recipe's story and its settings."])
