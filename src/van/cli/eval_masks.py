"""`van eval` for segmenters: tables, JSON, label maps, overlays, submissions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, VanError
from .inference import OF_LABELS, command_line, mask_options, refuse
from .output import cell, fitting_stem, one_line, print_table, progress_bar, say, to_csv, to_json, write_file

if TYPE_CHECKING:
    from ..inference.evaluate_masks import MaskEvaluation

_FIGURES = ("aAcc", "mIoU", "mAcc")
_OF_LABELS = (*OF_LABELS, "workers", "real_labels", "classes_subset", "class_map", "engine")
_LONGEST_END = "_999999999.png"  # of a file's name, its number included
_FEW_CLASSES = 30  # so many are shown without being asked for


def run_masks(checkpoints: list[str], options: Any, add_arguments: Callable[[Any], None]) -> int:
    """Evaluate; print the tables; write what was asked for. 1 when some failed."""
    refuse(options, add_arguments, _OF_LABELS, "classifiers, which this is not")
    inference = mask_options(options)
    alone = {"--confusion": options.confusion, "--out": options.out, "--overlays": options.overlays}
    for option, value in {**alone, "--submission": options.submission}.items():
        if value and len(checkpoints) > 1:
            raise ConfigError(f"{option} shows one checkpoint, got {len(checkpoints)}; evaluate them one at a time")
    if not 0 <= options.opacity <= 1:
        raise ConfigError(f"--opacity is {options.opacity}; expected 0 (picture) to 1 (colours)")
    done: list[MaskEvaluation] = []
    failed: list[tuple[str, str]] = []
    stopped: KeyboardInterrupt | None = None
    for checkpoint in checkpoints:
        try:
            done.append(_evaluate(checkpoint, options, inference))
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
            break
        except VanError as error:
            if len(checkpoints) == 1:
                raise
            failed.append((checkpoint, str(error)))
            say(f"van: failed: {checkpoint}: {one_line(error)}", error=True)
    if not done:
        raise stopped or ConfigError(f"none of {len(checkpoints)} checkpoints could be evaluated")
    done.sort(key=lambda each: -each["mIoU"])
    _write(done, failed, options, add_arguments)  # before printing: a reader of the output may stop reading
    _print(done, per_class=options.per_class)
    if stopped:
        raise KeyboardInterrupt(f"{len(done)} of {len(checkpoints)} checkpoint(s) were evaluated and are kept")
    return 1 if failed else 0


def _evaluate(checkpoint: str, options: Any, inference: dict[str, Any]) -> MaskEvaluation:
    from ..inference.evaluate_masks import evaluate_masks, open_masks
    from ..inference.segmenter_session import open_segmenter

    first, *others = options.device.split(",")
    opened = open_segmenter(
        checkpoint,
        device=first,
        precision=options.precision,
        ema=options.ema,
        optimize=options.optimize,
        trust=options.trust,
        overrides=inference,
    )
    drawn = {"seed": options.seed, "val_fraction": options.val_fraction}
    data = open_masks(opened, options.data, options.split, **drawn, exif=not options.ignore_exif)
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(data))

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        chosen: dict[str, Any] = {"seeds": options.seeds, "devices": [first, *others] if others else ()}
        result = evaluate_masks(opened, data, progress=progress, on_mask=_writer(data, options), **chosen)
    return _named(result, options.data)


def _named(result: MaskEvaluation, data: str) -> MaskEvaluation:
    from dataclasses import replace

    return replace(result, data=str(data))


def _writer(data: Any, options: Any) -> MaskWriter | None:
    """What is done with each label map; None when nothing was asked for."""
    if not (options.out or options.overlays or options.submission):
        return None
    return MaskWriter(
        stems=_stems([Path(data.name(index)) for index in range(len(data))]),
        out=options.out,
        overlays=options.overlays,
        submission=options.submission,
        opacity=options.opacity,
        classes=data.classes,
        palette=data.palette,
        layout=_submission_layout(data),
    )


@dataclass(frozen=True, kw_only=True)
class MaskWriter:
    """Writes the label map of a picture in every form that was asked for; goes to other processes with the pictures.

    stems: file name of every picture, without suffix. out, overlays, submission: folders, or None.
    """

    stems: tuple[str, ...]
    out: str | None
    overlays: str | None
    submission: str | None
    opacity: float
    classes: tuple[str, ...]
    palette: Any
    layout: str

    def __call__(self, index: int, image: Any, mask: Any, label: Any) -> None:
        from ..images.label_maps import overlay, save_index, save_overlay, save_raw, save_submission

        stem = self.stems[index]
        if self.out:
            save_index(Path(self.out) / f"{stem}.png", mask, self.palette)
            save_raw(Path(self.out) / f"{stem}.npy", mask)
        if self.overlays:
            painted = overlay(image, mask, self.palette, opacity=self.opacity, classes=self.classes)
            save_overlay(Path(self.overlays) / f"{stem}.png", painted)
        if self.submission:
            save_submission(self.submission, f"{stem}.png", mask, self.layout)


def _stems(names: list[Path]) -> tuple[str, ...]:
    """File names without suffix, each once: one that is taken gets its folder's name before it, then a number."""
    taken: dict[str, None] = {}  # in order
    numbers = Counter[str]()  # given to a stem so far
    for name in names:
        stem = fitting_stem(name.stem, longest=_LONGEST_END)
        if stem in taken:
            stem = first = fitting_stem(f"{name.parent.name}_{name.stem}", longest=_LONGEST_END)
            while stem in taken:
                numbers[first] += 1
                stem = f"{first}_{numbers[first] + 1}"
        taken[stem] = None
    return tuple(taken)


def _submission_layout(data: Any) -> str:
    """A key of masks.SUBMISSIONS, by the data set's own way to store labels."""
    layout = getattr(data, "layout", None)
    if layout is not None and layout.name == "Cityscapes":
        return "cityscapes"
    return "ade20k" if layout is not None and data.rule.reduce_zero_label else "index"


def _print(done: list[MaskEvaluation], *, per_class: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    for word in (*(f"{name} %" for name in _FIGURES), "images", "images/s"):
        table.add_column(word, justify="right")
    for each in done:
        figures = [_percent(each[name]) for name in _FIGURES]
        table.add_row(cell(each.checkpoint), *figures, str(each.count), f"{each.images_per_second:.1f}")
    print_table(table)
    for each in done:
        if each.seeds is not None:
            spread = [f"{name} {each.seeds[name]:.2%} ± {each.seeds[f'{name}.std']:.2%}" for name in _FIGURES]
            count = sum(name.startswith("mIoU.seed") for name in each.seeds)
            print(f"over {count} draws of the bases: {', '.join(spread)} (mean ± standard deviation)")
        if per_class or (len(done) == 1 and len(each.classes) <= _FEW_CLASSES):
            say()
            say(each.checkpoint)
            print_table(_per_class(each))


def _per_class(evaluation: MaskEvaluation) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    for word in ("IoU %", "Acc %", "label pixels", "predicted pixels"):
        table.add_column(word, justify="right")
    for row in evaluation.matrix.table(evaluation.classes):
        shares = [_percent(row[name]) for name in ("IoU", "Acc")]
        table.add_row(cell(row["class"]), *shares, str(row["label_pixels"]), str(row["predicted_pixels"]))
    return table


def _percent(value: float) -> str:
    return "—" if value != value else f"{100 * value:.2f}"


def _write(done: list[MaskEvaluation], failed: list[tuple[str, str]], options: Any, add_arguments: Any) -> None:
    if options.json:
        content = {
            "command": command_line("eval", add_arguments, options),
            "device": options.device,
            "precision": options.precision,
            "results": [each.to_dict() for each in done],
            "failures": [{"checkpoint": checkpoint, "reason": reason} for checkpoint, reason in failed],
        }
        write_file(options.json, to_json(content) + "\n")
    if options.csv:
        columns = done[0].keys()
        rows = [[each.checkpoint, *(each.matrix.to_dict(each.classes).get(name) for name in columns)] for each in done]
        write_file(options.csv, to_csv(("checkpoint", *columns), rows))
    if options.confusion:
        from ..images.confusion_picture import confusion_picture

        only = done[0]
        title = f"{Path(only.checkpoint).name} on {only.data}, {only.split}, {only.count} images: "
        title += f"mIoU {only['mIoU']:.2%}"
        write_file(options.confusion, confusion_picture(done[0].matrix.counts, done[0].classes, title))
