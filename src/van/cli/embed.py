"""Features of images: the output of a stage of a model's backbone, its mean or the whole map.

Takes a model of any task and prepares images as `van predict` does. --out NAME.npy is one array (N, C), or
(N, C, h, w) with --pool none, in the order of the images, with their ids in NAME.ids.json; --out NAME.parquet, or a
folder of parts, has columns id, image, features and shape. An image that cannot be used is reported and has no row;
exit code 1 when there were some, 2 when none could be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .batch import (
    add_batch_arguments,
    check_device,
    find_inputs,
    is_parquet_input,
    placed,
    refuse_batch_options,
    run_batch,
)
from .inference import add_inference_arguments, image_size

if TYPE_CHECKING:
    from ..inference.session import Session
    from ..tasks import Task


def add_arguments(parser: Any) -> None:
    """Options of `van embed`."""
    parser.add_argument("checkpoint", help="a checkpoint file, folder, hub id or published weights, of any task")
    parser.add_argument("paths", nargs="+", help="images, folders, globs, Parquet files, addresses such as s3://…")
    parser.add_argument("--out", required=True, help="NAME.npy, NAME.parquet, or a folder for parts (Parquet)")
    parser.add_argument("--stage", type=int, default=4, help="whose output, from 1")
    parser.add_argument("--pool", default="avg", help="avg: the mean over all positions; none: the map")
    parser.add_argument("--size", help="pixels: 224, or height x width: 224x320 (default: the checkpoint's own)")
    parser.add_argument("--format", help="npy or parquet (default: by the suffix of --out, parquet for a folder)")
    parser.add_argument("--resume", action="store_true", help="leave out what an earlier run wrote into --out")
    add_inference_arguments(parser, trust=False)
    add_batch_arguments(parser)


def run(options: Any) -> int:
    """Write the features; name bad images on stderr."""
    from ..serve.batch_work import EmbedWork
    from ..serve.part_forms import FEATURES, form_of

    check_device(options)
    if options.ray is None:
        refuse_batch_options(options, parquet=is_parquet_input(options))
    form = form_of(options.out, options.format, FEATURES)
    single = options.out.lower().endswith(form.suffix)
    if form.name == "npy" and not single:
        raise ConfigError(f"--out {options.out}: an array is one file; name it *.npy, or leave --format out")
    work = EmbedWork(
        _open(options),
        stage=options.stage,
        pool=options.pool,
        batch_size=options.batch_size,
        workers=options.workers,
        exif=not options.ignore_exif,
    )
    return run_batch(options, work, find_inputs(options), form, keep_failures=False)


def _open(options: Any) -> Session:
    from ..inference.session import open_session
    from ..tasks import parse_options

    given = {} if options.size is None else {"size": image_size(options.size)}

    def parse(task: Task, name: str) -> object:
        return parse_options(task.predict_options, given, task=task, name=name)

    return open_session(
        options.checkpoint, precision=options.precision, ema=options.ema, parse=parse, **placed(options)
    )
