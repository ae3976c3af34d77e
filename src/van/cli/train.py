"""Train or fine-tune a model by a recipe; every setting can be overridden.

van train digits_van_b0
van train finetune --checkpoint van_tiny_754.pth.tar --data FOLDER
van train finetune --config mine.yaml --lr 5e-5 --augment.mixup 0.8 --print_config
van train retinanet_digits
van train light_ham_van_b0 --preset small_gpu --checkpoint van_tiny_754.pth.tar --data ADE20K
van train --resume runs/finetune-20260101-120000
"""

from __future__ import annotations

import json
from argparse import SUPPRESS
from typing import Any

from ..recipes import KINDS, PRESETS_OF, RECIPES, recipe_of, summary
from .output import say
from .train_names import SHORT
from .train_parser import RecipeName, SectionFile, SettingsFile, TrainHelp, TrainParser, settings_of

PARSER = TrainParser


def add_arguments(parser: Any) -> None:
    """Options of `van train`: its own, and the settings of every kind of recipe under their dotted and short names.

    A setting that is not given is not there: its value is the recipe's.
    """
    parser.add_argument("-h", "--help", nargs="?", action=TrainHelp, default=SUPPRESS, help="what there is to set")
    parser.add_argument("recipe", nargs="?", action=RecipeName, help="name of a recipe; none: list them")
    parser.add_argument("--list", action="store_true", help="list the recipes")
    parser.add_argument("--config", action=SettingsFile, help="YAML file of settings, e.g. a run's recipe.yaml")
    parser.add_argument("--name", default=SUPPRESS, help="names the run's folder")
    presets = dict.fromkeys(preset for own in PRESETS_OF.values() for preset in own)
    parser.add_argument("--preset", help=f"the recipe for a smaller machine: {', '.join(presets)}")
    parser.add_argument("--task", default=SUPPRESS, help="the kind of recipe, in a file that names none")
    for section in dict.fromkeys(section for kind in KINDS for section in kind.sections()):
        if f"--{section}" not in SHORT:
            parser.add_argument(f"--{section}", action=SectionFile, default=SUPPRESS, help="YAML file of its settings")
    hints = settings_of(KINDS)
    for setting, hint in hints.items():
        parser.add_argument(f"--{setting}", dest=f"setting.{setting}", type=hint, default=SUPPRESS)
    for option, setting in SHORT.items():
        spellings = dict.fromkeys((option, f"--{option[2:].replace('-', '_')}"))
        parser.add_argument(*spellings, dest=f"short.{setting}", type=hints[setting], default=SUPPRESS)


def run(options: Any) -> int:
    """Train, and print where the result is."""
    if options.list:
        print(_listing())
        return 0
    recipe = recipe_of(options.recipe)
    from ..train import run as train
    from ..train.distributed import is_first
    from ..train.folder import held_out

    folder = train(recipe)
    if not is_first():  # of several processes that trained together
        return 0
    figures = json.loads((folder / "summary.json").read_text())
    say(f"{folder}: {recipe.score_text(figures)} on {held_out(figures)}, {figures['seconds']:.0f} s")
    say(f"next: van predict {folder / figures['model']} IMAGE")
    return 0


def _listing() -> str:
    width = max(map(len, RECIPES))
    lines = [f"  {name:<{width}}  {summary(name)}" for name in RECIPES]
    usage = "usage: van train RECIPE [--data FOLDER] [--checkpoint FILE] [--lr 1e-4 …] [--config FILE] [--print_config]"
    return "\n".join([usage, "", *lines, "", "van train RECIPE --help describes a recipe and its settings."])
