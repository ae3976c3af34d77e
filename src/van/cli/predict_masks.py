"""`van predict` for segmenters: an overlay with a legend and an index PNG per image, and a table of what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .inference import command_line
from .output import cell, fitting_stem, progress_bar, say
from .results import COMPLAINTS, Layout, Results, result_format

if TYPE_CHECKING:
    from ..inference.predictor import MaskPrediction

FOLDER = "segmentation"
OVERLAY, MASK = "-overlay.png", "-mask.png"
_SHOWN = 5  # classes per picture


def run_masks(options: Any, inference: dict[str, Any], add_arguments: Callable[[Any], None]) -> int:
    """Predict; write the pictures; print what is in them, all as it comes. 1 when some failed."""
    from ..inference.predictor import Failure, Predictor, find_images

    form = result_format(None, options.format)
    if not 0 <= options.opacity <= 1:
        raise ConfigError(f"--opacity is {options.opacity}; expected 0 (picture) to 1 (colours)")
    folder = Path(options.out or FOLDER)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"cannot write into {folder}: a file is there; give a folder")
    images, failures = find_images(options.paths)
    if not images:
        raise DataError("; ".join(f"{failure.image}: {failure.reason}" for failure in failures[:COMPLAINTS]))
    names = _names(images)
    if options.resume:
        images = _to_do(images, names, folder)
        if not images:
            return 0
    chosen = {name: getattr(options, name) for name in ("device", "precision", "ema", "optimize", "workers", "trust")}
    chosen["exif"] = not options.ignore_exif
    predictor = Predictor(options.checkpoint, classes=options.classes, **chosen, inference=inference)
    head = {"command": command_line("predict", add_arguments, options), "checkpoint": options.checkpoint}
    with Results(MASKS, form, None, head=head, total=len(images)) as results:
        for failure in failures:
            results.fail(failure)
        with progress_bar() as bar:
            found = bar.track(predictor.predict_many(images), total=len(images), description="predicting")
            for image, result in zip(images, found, strict=True):
                if isinstance(result, Failure):
                    results.fail(result)
                else:
                    results.add(_entry(result, _save(result, folder, names[image], options.opacity)))
    return 1 if results.failures else 0


def _names(images: list[Path]) -> dict[Path, str]:
    """A file name for each image: its stem, with the folder's name before it where two share one."""
    sharing = Counter(image.stem for image in images)
    taken: dict[str, int] = {}  # and how often it was asked for
    chosen: dict[Path, str] = {}
    for image in images:
        name = image.stem if sharing[image.stem] == 1 else f"{image.parent.name}_{image.name.replace('.', '_')}"
        name = fitting_stem(name, longest=OVERLAY)
        while name in taken:
            taken[name] += 1
            name += "_" if taken[name] == 2 else f"_{taken[name]}"
        taken[name] = 1
        chosen[image] = name
    return chosen


def _to_do(images: list[Path], names: dict[Path, str], folder: Path) -> list[Path]:
    """Images whose two pictures are not there yet."""
    left = [
        image for image in images if not all((folder / f"{names[image]}{end}").is_file() for end in (OVERLAY, MASK))
    ]
    say(f"van: note: {len(images) - len(left)} image(s) are in {folder} already; {len(left)} to do", error=True)
    return left


def _save(prediction: MaskPrediction, folder: Path, name: str, opacity: float) -> Path:
    """Write overlay and index PNG; the overlay's path."""
    from ..images.label_maps import save_index, save_overlay

    save_overlay(folder / f"{name}{OVERLAY}", prediction.overlay(opacity))
    save_index(folder / f"{name}{MASK}", prediction.mask, prediction.palette)
    return folder / f"{name}{OVERLAY}"


def _entry(prediction: MaskPrediction, overlay: Path) -> dict[str, Any]:
    return {
        "image": prediction.image,
        "overlay": str(overlay),
        "mask": str(overlay).removesuffix(OVERLAY) + MASK,
        "classes": prediction.to_dict()["classes"],
    }


def _rows(entry: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(entry["image"], *each.values(), entry["overlay"]) for each in entry["classes"]]


def _table(entries: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("classes", overflow="fold")
    table.add_column("overlay", overflow="fold")
    for entry in entries:
        parts = [f"{each['class']} {each['share']:.1%}" for each in entry["classes"]]
        more = f", … {len(parts)} in all" if len(parts) > _SHOWN else ""
        table.add_row(cell(entry["image"]), cell(", ".join(parts[:_SHOWN]) + more), cell(entry["overlay"]))
    return table


MASKS = Layout(("image", "class", "index", "share", "overlay"), _rows, _table)
