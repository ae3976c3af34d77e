"""The models of a demo page, opened once and warmed up."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import ConfigError, DataError
from ...inference.predictor import Predictor
from ...tools.explain import Explainer
from ...tools.quickstart import FOLDER, MODEL

CELLS = 9  # of a map that is worth looking at
TOP = 5  # classes that a classifier lists


@dataclass(frozen=True, kw_only=True)
class DemoModel:
    """A model that the page offers.

    name: what the page calls it. explainer: None for a model that cannot be explained, `unexplained` says why.
    paints: whether its results are painted over the image. stages: of its attention;
    stage: the one that is shown first, the last whose map has CELLS or more.
    """

    name: str
    predictor: Predictor
    explainer: Explainer | None
    unexplained: str = ""
    paints: bool = False
    stages: int = 0
    stage: int = 1

    @property
    def kind(self) -> str:
        """`classifier, torch`."""
        return f"{self.predictor.task.noun}, {self.predictor.opened.runtime}"


def checkpoints_or_quickstart(named: Sequence[str]) -> list[str]:
    """The checkpoints that were named, each once; the quickstart's where none was.

    Raises ConfigError where there is neither.
    """
    if named:
        return list(dict.fromkeys(named))
    own = FOLDER / MODEL
    if not own.is_file():
        raise ConfigError(
            f"no checkpoint was named, and there is no {own} here; name one, or train the quickstart's: "
            "make quickstart (python -m van.tools.quickstart)"
        )
    return [str(own)]


def open_predictors(checkpoints: Sequence[str], **options: Any) -> dict[str, Predictor]:
    """Predictors by the names that the page has for them, in order; options: of Predictor.

    Raises VanError for a checkpoint that cannot be opened.
    """
    paths = zip(short_names(checkpoints), checkpoints, strict=True)
    return {name: Predictor(path, **options).listing(TOP) for name, path in paths}


def warmed_up(name: str, predictor: Predictor, image: Image.Image) -> DemoModel:
    """A model that has seen an image once: the first run takes longer, and shows what the model can do.

    Raises VanError for one that cannot run.
    """
    paints = predictor(image).overlay(legend=False) is not None
    found, stage = DemoModel(name=name, predictor=predictor, explainer=None, paints=paints), 1
    try:
        explainer = Explainer(predictor)
        with contextlib.suppress(DataError):  # of this image, in which nothing may be found
            maps = explainer(image).attention
            stage = max((number for number, each in enumerate(maps, start=1) if each.size >= CELLS), default=1)
    except ConfigError as error:
        return replace(found, unexplained=str(error))
    return replace(found, explainer=explainer, stages=len(explainer.stages), stage=stage)


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as make them different."""
    parts = [Path(path).parts or (path,) for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = [str(Path(*each[-count:])) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)
