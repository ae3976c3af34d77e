"""`van predict` for segmenters: an overlay with a legend and an index PNG per image, and a table of what is in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, UnknownNameError
from .inference import command_line
from .output import print_table, progress_bar, to_csv, to_json

if TYPE_CHECKING:
    from ..predict import Failure, MaskPrediction

Shares = tuple[tuple[str, int, float], ...]

FOLDER = "segmentation"
FORMATS = ("table", "json", "csv")
_SHOWN = 5  # classes per picture


def run_masks(options: Any, inference: dict[str, Any], add_arguments: Callable[[Any], None]) -> int:
    """Predict; write the pictures; print what is in them. 1 when some failed."""
    from ..predict import Failure, Predictor, find_images

    form = options.format or "table"
    if form not in FORMATS:
        raise UnknownNameError.of("format", form, FORMATS)
    if not 0 <= options.opacity <= 1:
        raise ConfigError(f"--opacity is {options.opacity}; expected 0 (picture) to 1 (colours)")
    folder = Path(options.out or FOLDER)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"cannot write into {folder}: a file is there; give a folder")
    images, failures = find_images(options.paths)
    if not images:
        raise DataError("; ".join(f"{failure.image}: {failure.reason}" for failure in failures))
    chosen = {name: getattr(options, name) for name in ("device", "precision", "ema", "optimize", "workers", "trust")}
    chosen["exif"] = not options.ignore_exif
    predictor = Predictor(options.checkpoint, classes=options.classes, **chosen, inference=inference)
    done: list[tuple[str, Shares, Path]] = []  # without the pictures: there may be thousands
    names = _names(images)
    with progress_bar() as bar:
        results = bar.track(predictor.predict_many(images), total=len(images), description="predicting")
        for image, result in zip(images, results, strict=True):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                path = _save(result, folder, names[image], options.opacity)
                done.append((result.image, result.shares, path))
    for failure in failures:
        reason = failure.reason if failure.image in failure.reason else f"{failure.image}: {failure.reason}"
        print(f"van: skipped: {reason}", file=sys.stderr)
    if not done:
        raise DataError(f"none of {len(images)} image(s) could be predicted; the first: {failures[0].reason}")
    _show(done, failures, form, options, add_arguments)
    return 1 if failures else 0


def _names(images: list[Path]) -> dict[Path, str]:
    """A file name for each image: its stem, with the folder's name before it where two share one."""
    stems = [image.stem for image in images]
    chosen: dict[Path, str] = {}
    for image, stem in zip(images, stems, strict=True):
        name = stem if stems.count(stem) == 1 else f"{image.parent.name}_{image.name.replace('.', '_')}"
        while name in chosen.values():
            name += "_"
        chosen[image] = name
    return chosen


def _save(prediction: MaskPrediction, folder: Path, name: str, opacity: float) -> Path:
    """Write overlay and index PNG; the overlay's path."""
    from ..masks import save_index, save_overlay

    save_overlay(folder / f"{name}-overlay.png", prediction.overlay(opacity))
    save_index(folder / f"{name}-mask.png", prediction.mask, prediction.palette)
    return folder / f"{name}-overlay.png"


def _show(
    done: list[tuple[str, Shares, Path]],
    failures: list[Failure],
    form: str,
    options: Any,
    add_arguments: Callable[[Any], None],
) -> None:
    if form == "table":
        print_table(_table(done))
    elif form == "csv":
        rows = [
            (image, label, number, share, str(path)) for image, shares, path in done for label, number, share in shares
        ]
        sys.stdout.write(to_csv(("image", "class", "index", "share", "overlay"), rows))
    else:
        content = {
            "command": command_line("predict", add_arguments, options),
            "checkpoint": options.checkpoint,
            "predictions": [
                {
                    "image": image,
                    "overlay": str(path),
                    "mask": str(path).removesuffix("-overlay.png") + "-mask.png",
                    "classes": [{"class": label, "index": n, "share": share} for label, n, share in shares],
                }
                for image, shares, path in done
            ],
            "failures": [{"image": each.image, "reason": each.reason} for each in failures],
        }
        sys.stdout.write(to_json(content) + "\n")


def _table(done: list[tuple[str, Shares, Path]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("classes", overflow="fold")
    table.add_column("overlay", overflow="fold")
    for image, shares, path in done:
        parts = [f"{label} {share:.1%}" for label, _, share in shares]
        more = f", … {len(parts)} in all" if len(parts) > _SHOWN else ""
        table.add_row(escape(image), escape(", ".join(parts[:_SHOWN]) + more), escape(str(path)))
    return table
