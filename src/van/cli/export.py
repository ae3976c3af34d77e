"""Export a model for ONNX Runtime, OpenVINO or torch.export, after proof that it computes the same.

The file takes any batch and image size (that of a D-FINE one size) and holds preprocessing, classes and all else that
`van predict` and `van eval` need. Before it gets its name it is read back and compared with the network on random and
on real images; exit code 2, and nothing is written, when it computes something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .inference import image_size
from .int8 import add_int8_arguments, check_int8, run_int8
from .output import cell, check_writable, print_table, say, to_json, write_file

if TYPE_CHECKING:
    from ..exporting import Export


def add_arguments(parser: Any) -> None:
    """Options of `van export`."""
    parser.add_argument("checkpoint", help="a checkpoint file, folder or hub id")
    parser.add_argument("out", help="the file to write: .onnx, .xml (weights in a .bin file beside it) or .pt2")
    parser.add_argument("--format", help="onnx, openvino or torch, for a name without such a suffix, which it gets")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of a file that holds both")
    parser.add_argument("--size", help="pixels that images are brought to, if all to one size: 224, or height x width")
    parser.add_argument("--no-fold", action="store_true", help="keep BatchNorm and layer scales as they are")
    parser.add_argument(
        "--dilation-free", action="store_true", help="dilated convolutions as dense ones, for accelerators without"
    )
    group = parser.add_argument_group("the comparison that decides whether the file is written")
    group.add_argument("--images", help="folder of images to compare on (default: some that come with scikit-learn)")
    group.add_argument("--tolerance", type=float, help="largest difference, as a part of the largest logit (1e-4)")
    group.add_argument("--agreement", type=float, help="share of the classes that must be the same (0.99)")
    add_int8_arguments(parser)
    parser.add_argument("--json", help="write the report here")


def run(options: Any) -> None:
    """Export, compare, print the report."""
    check_writable(options.json, ".json")
    check_int8(options)
    if options.int8:
        run_int8(options)
        return
    from ..exporting import export

    limits = {name: getattr(options, name) for name in ("tolerance", "agreement") if getattr(options, name) is not None}
    done = export(
        options.checkpoint,
        options.out,
        format=options.format,
        size=None if options.size is None else image_size(options.size),
        fold=not options.no_fold,
        dilation_free=options.dilation_free,
        images=options.images,
        ema=options.ema,
        **limits,
    )
    if options.json:
        write_file(options.json, to_json(done.to_dict()) + "\n")
    _print(done)


def _print(done: Export) -> None:
    from rich.table import Table

    network, what = done.description, done.comparison.decisions
    say(f"{done.path}: {network.name}, {network.task}, {done.format}, {done.bytes / 1e6:.1f} MB, {done.seconds:.1f} s")
    table = Table("compared on", box=None, pad_edge=False)
    for word in ("batch", "max error", "mean error", f"{what} agree"):
        table.add_column(word, justify="right")
    for case in done.parity.cases:
        shape = " x ".join(map(str, case.shape))
        errors = (f"{case.max_error:.1e}", f"{case.mean_error:.1e}")
        table.add_row(cell(case.name), shape, *errors, f"{case.agreement:.2%}")
    print_table(table)
    print(
        f"the same within {done.parity.tolerance:g} of the largest logit: max {done.max_error:.1e},"
        f" mean {done.mean_error:.1e}; {done.agreement:.2%} of the {what} agree"
    )
