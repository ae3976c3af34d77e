"""Options and report of `van export --int8`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .inference import image_size
from .output import cell, print_table, say, to_json, write_file

if TYPE_CHECKING:
    from ..exporting import Quantized

_WORST = 5  # layers in the printed table
# What belongs to the export in float32, and what to int8: (option, its value when it is left out).
_FP32 = (("no_fold", False), ("dilation_free", False), ("images", None), ("tolerance", None), ("agreement", None))
_INT8 = (("calibration", None), ("validation", None), ("max_drop", None), ("samples", None))


def add_int8_arguments(parser: Any) -> None:
    """Calibration and accuracy control."""
    group = parser.add_argument_group("int8 (.onnx, .xml): refused when it loses more accuracy than is allowed")
    group.add_argument("--int8", action="store_true", help="matrix products in int8, with a report on what that costs")
    group.add_argument("--calibration", help="images like those the network will see: a folder, digits or scenes")
    group.add_argument("--validation", help="labelled data to lose nothing on, as van eval takes them")
    group.add_argument(
        "--max-drop", type=float, help="largest loss of top-1, as a share of the images, or of mIoU (0.01)"
    )
    group.add_argument("--samples", type=int, help="images to calibrate on, at most (300)")


def check_int8(options: Any) -> None:
    """Raises ConfigError for options of the other kind of export, which would do nothing."""
    others, remedy = (_FP32, "leave it out with --int8") if options.int8 else (_INT8, "give --int8 too")
    for name, unset in others:
        if getattr(options, name) != unset:
            raise ConfigError(f"--{name.replace('_', '-')} has no effect here; {remedy}")
    if options.int8 and options.calibration is None:
        raise ConfigError("--int8 needs images to calibrate on; give --calibration FOLDER, or digits")


def run_int8(options: Any) -> None:
    """Quantise, print the report."""
    from ..exporting import quantize

    given = {name: getattr(options, name) for name, unset in _INT8 if getattr(options, name) != unset}
    done = quantize(
        options.checkpoint,
        options.out,
        format=options.format,
        size=None if options.size is None else image_size(options.size),
        ema=options.ema,
        **given,
    )
    if options.json:
        write_file(options.json, to_json(done.to_dict()) + "\n")
    _print(done)


def _print(done: Quantized) -> None:
    from rich.table import Table

    network, report, comparison = done.description, done.report, done.comparison
    say(f"{done.path}: {network.name}, {network.task}, {done.format} int8, {done.seconds:.1f} s")
    table = Table(box=None, pad_edge=False)
    for word in ("", "MB", "ms per image", comparison.heading):
        table.add_column(word, justify="right" if word else "left")
    percent = 100 / report.perfect
    fp32, int8 = ("" if x is None else f"{percent * x:.2f}" for x in (report.fp32_score, report.score))
    table.add_row("float32", f"{done.fp32_bytes / 1e6:.2f}", f"{report.fp32_ms:.2f}", fp32)
    table.add_row("int8", f"{done.bytes / 1e6:.2f}", f"{report.ms:.2f} ({report.speedup:.2f}x)", int8)
    print_table(table)
    figures = "".join(f", {words} {report.figures[key]:.2%}" for key, words in comparison.figures.items())
    say(
        f"calibrated on {report.images} images ({report.calibration}); {report.agreement:.2%} of the {comparison.unit}"
        f" of {report.compared} images keep their class{figures}, logits {report.sqnr_db:.1f} dB"
    )
    print(f"drop {report.drop:.2%} of at most {report.max_drop:.2%}; in float32: {len(report.float_layers)} products")
    worst = Table("largest errors", box=None, pad_edge=False)
    worst.add_column("dB", justify="right")
    for layer in sorted(report.layers, key=lambda each: each.sqnr_db)[:_WORST]:
        worst.add_row(cell(layer.layer), f"{layer.sqnr_db:.1f}")
    print_table(worst)
