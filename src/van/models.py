"""The join of names, configurations, modules and files: what users of the package call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from . import checkpoints
from .checkpoints import Checkpoint, Info, layout
from .checkpoints.compare import compare
from .checkpoints.folders import refuse_overwriting
from .checkpoints.head_keys import BASES
from .checkpoints.limits import ReadBack
from .checkpoints.reading import describe, for_channels
from .checkpoints.sources import find
from .checkpoints.widened import Widened
from .configs.catalog import MODELS, resolve
from .configs.catalog import list_models as list_models
from .configs.metadata import ModelMetadata
from .configs.model_config import ModelConfig
from .configs.object_config import ObjectConfig
from .errors import CheckpointError, ConfigError, UnknownOptionError, VanNotice
from .images.preprocess import RECORDS, Preprocess
from .nn import Backbone, Model
from .nn.build import build, built_shapes
from .nn.dtypes import AUTO, dtype_of, require_values
from .nn.fold import FoldedBlock
from .nn.hamburger import draw_bases
from .nn.optimize import optimize as optimize

layout.shapes.register(ObjectConfig, built_shapes)  # whose heads are other libraries', so that no table lists them


def create_model(name: str = "van_b0", *, seed: int | None = None, **options: Any) -> Any:
    """A network with fresh weights, in training mode: a plain torch.nn.Module.

    name: of `list_models()` or an alias, a classifier ("van_b0"), a segmenter ("light_ham_van_b0"), a model that finds
    objects ("retinanet_van_b0", "mask_rcnn_van_b0").
    options: fields of VanConfig that differ from it (`num_classes=10`, `embed_dims=(8, 16, 32, 64)`,
    `attention="sigmoid"`, …), for a model with another head also of its configuration (`ham_rank=32`, `min_size=320`).
    seed: of the initial weights; None draws from torch's global generator.
    Raises UnknownNameError for a name or option that does not exist, ConfigError for impossible values.
    """
    if "pretrained" in options:
        raise UnknownOptionError(
            f"create_model draws fresh weights; van.load({name!r}, pretrained=True) fetches published ones"
        )
    config = MODELS[resolve(name)].with_options(**options)
    # the heads of other libraries draw from the global generator, which is given back; ours do not, and a training's
    # order of draws is part of its result
    with torch.random.fork_rng(devices=[], enabled=seed is not None and config.draws_globally):
        model = build(config)
    if not isinstance(model, Model):
        return model
    model.metadata = ModelMetadata(preprocess=for_channels(RECORDS[config.statistics], config.backbone.in_chans))
    if seed is not None and torch.get_default_device().type != "meta":  # where there is nothing to draw
        model.reset_parameters(torch.Generator(device=torch.get_default_device()).manual_seed(seed))
    return model


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    ema: bool = False,
    revision: str | None = None,
    backbone_only: bool = False,
    pretrained: bool = False,
    dtype: torch.dtype | str = torch.float32,
    **options: Any,
) -> Model:
    """The network in a checkpoint of any published format, in eval mode, with every tensor of the file in its place.

    A Classifier, or a Segmenter where the file holds one.

    source: a file, a folder, a hub id (`org/name`, `hf-hub:org/name`, a link to it), or the name of published weights
    ("official/van_b0"); the format is detected from the content, the size from shapes.
    pretrained: `source` is a model's name ("van_b0"), whose published weights are downloaded.
    dtype: of the weights, and so what the network computes in, whatever the file stores; "auto": the file's own.
    num_classes: a width that differs from the file's gets a fresh head (0: none); None keeps the file's.
    ema: the averaged weights. revision: branch, tag or commit of a hub id.
    backbone_only: leave the file's head out, also a segmenter's, and give a Classifier of `num_classes` (None: 0).
    options: fields of VanConfig that do not follow from shapes (`layer_norm_eps=1e-5`, `drop_path_rate=0.1`, …), for a
    segmenter also of SegmenterConfig (`ham_rank=16`).
    The model's `classes`, `preprocess` and `provenance`, and a segmenter's `palette`, are those in the file, else those
    of its lineage.
    Warns with VanNotice about everything that was left out or made up.
    Raises CheckpointError for anything missing, left over, misshapen, broken or contradicted; UnsafeFileError for
    pickles with more than tensors; UnknownNameError for an unknown option.
    """
    dtype_of(dtype)  # raises for a name that is none, before anything is read
    chosen: dict[str, Any] = {
        "ema": ema,
        "revision": revision,
        "backbone_only": backbone_only,
        "pretrained": pretrained,
    }
    checkpoint = _read(source, options=options, **chosen)
    computed = dtype_of(dtype, checkpoint.stored)
    if num_classes is not None:  # raises ConfigError for impossible numbers
        checkpoint.config.with_options(num_classes=num_classes)
    for note in [*checkpoint.notes, *_head_notes(checkpoint, num_classes)]:
        if not (isinstance(note, Widened) and computed == torch.bfloat16):  # it is what the file stores again
            warnings.warn(f"{source}: {note}", VanNotice, stacklevel=2)
    if dtype != AUTO and computed == torch.float32 and checkpoint.stored not in ("float32", "bfloat16"):
        note = f"stored as {checkpoint.stored}, computed in float32; dtype={AUTO!r} keeps the file's type"
        warnings.warn(f"{source}: {note}", VanNotice, stacklevel=2)
    model = _build(checkpoint).to(computed)
    if num_classes is not None and num_classes != checkpoint.num_classes:
        _reset_head(model, num_classes)
    return model.eval()


def save(model: nn.Module, path: str | Path, *, format: str = "van") -> None:  # noqa: A002
    """Write a network (or a bare backbone) to a file, for "transformers" to a folder, whole or not at all.

    format: "van", "official", "mmpretrain", "mmseg", "transformers" or "keras"; for a segmenter "van" or "mmseg".
    Classes, palette, preprocessing and provenance are taken from the model's attributes of these names.
    Warns with VanNotice about what is lost in the format.
    Raises CheckpointError for a folded network, a segmenter in a format without a place for its heads, or a place that
    cannot be written; UnknownNameError for a format.
    """
    checkpoint = _checkpoint_of(model)
    for note in checkpoint.notes:
        warnings.warn(note, VanNotice, stacklevel=2)
    for sentence in _write(checkpoint, path, format):
        if not isinstance(sentence, ReadBack):
            warnings.warn(f"{format} cannot carry {sentence}", VanNotice, stacklevel=2)


def record_of(model: Model, *, preprocess: Preprocess | None, provenance: dict[str, Any]) -> dict[str, Any]:
    """What is in no tensor of a network, as plain values for a file: configuration, classes, preprocessing, origin."""
    facts: dict[str, Any] = {"preprocess": preprocess, "provenance": provenance}
    return describe(
        Checkpoint(arrays={}, config=model.config, format="van", classes=model.classes, palette=model.palette, **facts)
    )


def info(source: str | Path, *, ema: bool = False, revision: str | None = None, **options: Any) -> Info:
    """What a checkpoint is: format, model, classes, parameters, epsilon, preprocessing and where each comes from.

    Arguments and errors as in `load`; the notes are in the result, and only where published weights come from is
    warned about.
    """
    return checkpoints.summarize(_read(source, ema=ema, revision=revision, options=options), str(source))


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion that was verified: every shared tensor bit-identical and the outputs equal.

    lost: what the new format cannot carry. notes: what reading the source had to leave out or assume.
    tensors: how many were compared. outputs: "logits", or "features" where one side has no head; a segmenter's logits
    are those of `decode`, with the same bases on both sides.
    """

    source: str
    destination: str
    source_format: str
    format: str
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    tensors: int
    outputs: str


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    num_classes: int | None = None,
    ema: bool = False,
    revision: str | None = None,
    backbone_only: bool = False,
    **options: Any,
) -> Conversion:
    """Rewrite a checkpoint in another format, read it back, and compare tensors and outputs bit for bit.

    to: as `format` in `save`; everything else as in `load`.
    Raises CheckpointError when what was written does not reproduce the source, or would overwrite it or a run's result.
    """
    refuse_overwriting(source, Path(destination, "model.safetensors") if to == "transformers" else Path(destination))
    checkpoint = _read(source, ema=ema, revision=revision, options=options, backbone_only=backbone_only)
    notes = list(checkpoint.notes)
    if num_classes is not None and num_classes != checkpoint.num_classes:
        notes += _head_notes(checkpoint, num_classes)
        model = _build(checkpoint)
        _reset_head(model, num_classes)
        fresh = _checkpoint_of(model)
        checkpoint = replace(
            checkpoint,
            arrays=fresh.arrays,
            config=fresh.config,
            classes=None,
            palette=None,
        )
    lost = _write(checkpoint, destination, to)
    back = checkpoints.read(destination)
    return Conversion(
        source=str(source),
        destination=str(destination),
        source_format=checkpoint.format,
        format=to,
        lost=tuple(lost),
        notes=tuple(notes),
        tensors=compare(checkpoint, back, destination),
        outputs=_compare_outputs(checkpoint, back, destination),
    )


def _read(
    source: str | Path,
    *,
    ema: bool,
    revision: str | None,
    options: dict[str, Any],
    backbone_only: bool = False,
    pretrained: bool = False,
) -> Checkpoint:
    found = find(source, revision=revision, pretrained=pretrained)
    checkpoint = checkpoints.read(found.path, ema=ema, **options)
    checkpoint = checkpoint.without_head() if backbone_only else _with_bases(checkpoint)
    facts = found.facts | ({"averaged": True} if ema else {})
    if found.row is not None and found.row.model == checkpoint.name:
        facts |= {"published_as": found.row.name, "licence": found.row.licence}
    return replace(checkpoint, provenance={**checkpoint.provenance, **facts})


def _with_bases(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the bases that its Hamburger starts from, where it has one and the file holds none."""
    if BASES in checkpoint.arrays or (bases := _seeded_bases(checkpoint)) is None:
        return checkpoint
    return replace(checkpoint, arrays={**checkpoint.arrays, BASES: bases})


def _seeded_bases(checkpoint: Checkpoint) -> np.ndarray | None:
    """(D, R), the same for every network of these sizes; None for one without a Hamburger."""
    if (shape := layout.shapes(checkpoint.config).get(BASES)) is None:
        return None
    like = checkpoint.arrays["head.hamburger.upper.weight"]
    return draw_bases(shape[0], shape[1], seed=0).numpy().astype(like.dtype)


def _write(checkpoint: Checkpoint, path: str | Path, format: str) -> list[str]:  # noqa: A002
    """Write the checkpoint; what the format cannot carry, the bases included where they are not the usual ones."""
    lost = checkpoints.write(checkpoint, path, format)
    bases, usual = checkpoint.arrays.get(BASES), _seeded_bases(checkpoint)
    if format == "mmseg" and bases is not None and usual is not None and not np.array_equal(bases, usual):
        lost.append("the bases of the Hamburger, which are not those of seed 0: its files hold none")
    return lost


def _head_notes(checkpoint: Checkpoint, wanted: int | None) -> Iterator[str]:
    has = checkpoint.num_classes
    if wanted is not None and wanted != has:
        layers, plural = checkpoint.config.output_layers, checkpoint.config.output_layers.endswith("s")
        old = (
            f"the file's {layers} of {has} classes {'are' if plural else 'is'} left out"
            if has
            else "the file has no head"
        )
        yield f"{old}; a new one of {wanted} classes is used" if wanted else old
    elif not has and wanted is None:
        yield "the file has no head, so this is a feature backbone (num_classes=0); give num_classes for a new head"


def _reset_head(model: Model, num_classes: int) -> None:
    """Fresh output layers; names and colours of the old ones' classes do not fit any more."""
    model.reset_classifier(num_classes)
    model.metadata = replace(model.metadata, classes=None, palette=None)


def _build(checkpoint: Checkpoint) -> Model:
    """The network of a checkpoint; its tensors share memory with the arrays, nothing is initialised for nothing."""
    with torch.device("meta"):
        model = cast(Model, build(checkpoint.config))
    tensors = {key: torch.from_numpy(np.require(a, requirements="W")) for key, a in checkpoint.arrays.items()}
    model.load_state_dict(tensors, assign=True)
    model.metadata = checkpoint.metadata
    return model.eval()


def _checkpoint_of(model: nn.Module) -> Checkpoint:
    """The checkpoint of a network in memory, without the wrappers of data parallelism and torch.compile."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None), nn.Module):
        model = inner
    if any(isinstance(module, FoldedBlock) for module in model.modules()):
        raise CheckpointError("a folded network cannot be saved; save the original and fold it after loading")
    if not isinstance(model, Model | Backbone):
        raise ConfigError(f"cannot save a {type(model).__name__}; expected a model of van.create_model, or a Backbone")
    require_values(model)
    arrays, notes = _arrays(model, "backbone." if isinstance(model, Backbone) else "")
    config: ModelConfig = model.config.backbone if isinstance(model, Backbone) else model.config
    layout.check(arrays, layout.shapes(config), what="the model")
    return Checkpoint(
        arrays=arrays,
        config=config,
        format="van",
        classes=getattr(model, "classes", None),
        palette=getattr(model, "palette", None),
        preprocess=getattr(model, "preprocess", None),
        provenance=getattr(model, "provenance", {}),
        notes=notes,
    )


def _arrays(model: nn.Module, prefix: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The model's tensors as arrays, and notes."""
    notes: tuple[str, ...] = ()
    arrays = {}
    for key, tensor in model.state_dict().items():
        if tensor.dtype == torch.bfloat16:
            notes = ("bfloat16 tensors are written as float32, which holds them exactly",)
            tensor = tensor.float()
        if key == BASES and tensor.ndim == 3 and len(tensor) == 1:  # a batch of one, as mmseg's code has it
            tensor = tensor[0]
        arrays[prefix + key] = tensor.detach().cpu().numpy()
    return arrays, notes


def _compare_outputs(one: Checkpoint, two: Checkpoint, path: str | Path) -> str:
    """Which outputs were compared on a random image; raises CheckpointError unless they are the same bits."""
    both = one.num_classes == two.num_classes
    if BASES in one.arrays:  # of which a format without a place for them knows nothing
        two = replace(two, arrays={BASES: one.arrays[BASES]} | two.arrays)
    shape = (1, one.backbone.in_chans, *one.config.trial_size)
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.inference_mode():
        a, b = (_outputs(_build(side).float(), torch.from_numpy(image), both) for side in (one, two))
    for name, values in a.items():
        if torch.equal(values.nan_to_num(), b[name].nan_to_num()):
            continue
        worst = (values - b[name]).abs().max().item()
        raise CheckpointError(f"{path} was written, but its outputs differ from the source's by up to {worst:.3g}")
    return "logits" if both and one.num_classes else "features"


def _outputs(model: Model, image: torch.Tensor, with_head: bool) -> dict[str, torch.Tensor]:
    """The head's outputs by name, else the pooled map of the last stage."""
    raw = model.raw(image) if with_head else model.backbone.last(image).mean((2, 3))
    return {"": raw} if isinstance(raw, torch.Tensor) else raw
