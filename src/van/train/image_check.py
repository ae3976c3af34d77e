"""Before the first step: every image of a folder is decoded once, and all that cannot be read are named together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ..data.checking import LIMIT_S, Checked, check_images
from ..errors import DataError, PreemptedError, VanNotice
from ..recipes import BaseRecipe
from .folder import write_text
from .guards import Substituting
from .preemption import Preemption

UNREADABLE = "unreadable.txt"
SHOWN = 8  # names on the screen; the file has all


def check_run(recipe: BaseRecipe, train: Substituting, val: Any, folder: Path, preemption: Preemption) -> None:
    """Decode the images of a run, as `data.check` says; those of training that may be replaced are marked.

    unreadable.txt in the run's folder names every one that was found. Raises DataError for unreadable validation
    images, and for more unreadable training images than trainer.max_unreadable; PreemptedError when asked to stop.
    """
    (folder / UNREADABLE).unlink(missing_ok=True)
    images = train.data
    if recipe.data.check == "none" or preemption.asked or not _has_files(images):
        return
    where = getattr(recipe.data, "index", None)
    index = None if where is None else Path(where)
    limit_s = None if recipe.data.check == "all" else LIMIT_S
    found: list[Checked] = []
    with _bar(recipe.trainer.progress) as progress:
        for data in (val, images):
            left = None if limit_s is None else max(0.0, limit_s - sum(each.seconds for each in found))
            found.append(
                check_images(data, index=index, limit_s=left, stop=lambda: preemption.asked, progress=progress)
            )
    if preemption.asked and any(each.left for each in found):
        raise PreemptedError("asked to stop before the first step: run the same command again")
    _report(found, val, images, folder, train)


def _report(found: list[Checked], val: Any, images: Any, folder: Path, train: Substituting) -> None:
    parts = zip((val, images), found, strict=True)
    of_val, of_train = ([data.name(place) for place in each.unreadable] for data, each in parts)
    if of_val or of_train:
        reasons = [" ".join(reason.split()) for each in found for reason in each.unreadable.values()]
        lines = [f"{name!r}\t{reason}\n" for name, reason in zip((*of_val, *of_train), reasons, strict=True)]
        text = "".join(lines).encode("utf-8", "backslashreplace").decode()  # names need not be UTF-8
        write_text(folder / UNREADABLE, text)
    where = f"all are in {folder / UNREADABLE}"
    if of_val:
        raise DataError(
            f"{len(of_val)} validation image(s) cannot be read, and a score must be of all: {_some(of_val)}; {where}; "
            "repair or remove them"
        )
    train.mark(found[1].unreadable)
    if len(of_train) > train.limit:
        raise DataError(
            f"{len(of_train)} training images cannot be read, trainer.max_unreadable is {train.limit}: "
            f"{_some(of_train)}; {where}; repair or remove them, or raise the limit"
        )
    for number, name in enumerate(of_train[:SHOWN], 1):
        warnings.warn(train.replacement_notice(name, number), VanNotice, stacklevel=4)
    if len(of_train) > SHOWN:
        text = f"{len(of_train)} training images cannot be read and are replaced; {where}"
        warnings.warn(text, VanNotice, stacklevel=4)
    left = sum(each.left for each in found)
    if left:
        done = sum(each.decoded for each in found)
        warnings.warn(
            f"{done} images were checked in {LIMIT_S:.0f} s, {left} were not; the next start goes on there (data.check "
            "all decodes every one, none not one)",
            VanNotice,
            stacklevel=4,
        )


def _has_files(data: Any) -> bool:
    return hasattr(data, "files") and len(data) > 0 and bool(data.files(0))


@contextmanager
def _bar(style: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal while images are decoded."""
    console = Console(stderr=True)
    if style not in ("auto", "bar") or not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("checking images")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
