"""The join of names, configurations, modules and files: what users of the package call."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import checkpoints, weights
from .checkpoints import Checkpoint, Info, layout
from .checkpoints.limits import ReadBack
from .checkpoints.reading import for_channels
from .errors import CheckpointError, ConfigError, VanNotice
from .nn import Backbone, Classifier
from .nn.fold import FoldedBlock
from .nn.optimize import optimize as optimize
from .preprocess import OFFICIAL
from .variants import ALIASES, VARIANTS, resolve


def list_models(pattern: str = "*") -> list[str]:
    """Known model names that match a shell-style pattern, aliases included when they match by name."""
    names = [*VARIANTS, *(ALIASES if pattern != "*" else ())]
    return [name for name in names if fnmatch.fnmatch(name, pattern)]


def create_model(name: str = "van_b0", *, seed: int | None = None, **options: Any) -> Classifier:
    """A network with fresh weights, in training mode: a plain torch.nn.Module.

    name: a variant or alias of `list_models()`; options: fields of VanConfig that differ from it
    (`num_classes=10`, `embed_dims=(8, 16, 32, 64)`, `attention="sigmoid"`, …).
    seed: of the initial weights; None draws from torch's global generator.
    Raises UnknownNameError for a name or option that does not exist, ConfigError for impossible values.
    """
    config = VARIANTS[resolve(name)].with_options(**options)
    model = Classifier(config)
    if seed is not None and torch.get_default_device().type != "meta":  # where there is nothing to draw
        generator = torch.Generator(device=torch.get_default_device()).manual_seed(seed)
        model.backbone.reset_parameters(generator)
        model.reset_classifier(config.num_classes, generator)
    _label(model, classes=None, preprocess=for_channels(OFFICIAL, config.in_chans), provenance={})
    return model


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    ema: bool = False,
    revision: str | None = None,
    **options: Any,
) -> Classifier:
    """The network in a checkpoint of any published format, in eval mode, with every tensor of the file in its place.

    source: a file, a folder, or a hub id (`org/name`); the format is detected from the content, the size from shapes.
    num_classes: a width that differs from the file's gets a fresh head (0: none); None keeps the file's.
    ema: the averaged weights. revision: branch, tag or commit of a hub id.
    options: fields of VanConfig that shapes cannot tell (`layer_norm_eps=1e-5`, `drop_path_rate=0.1`, …).
    The model's `classes`, `preprocess` and `provenance` are what the file tells, else its lineage.
    Warns with VanNotice about everything that was left out or made up.
    Raises CheckpointError for anything missing, left over, misshapen, broken or contradicted; UnsafeFileError for
    pickles with more than tensors; UnknownNameError for an unknown option.
    """
    checkpoint = _read(source, ema=ema, revision=revision, options=options)
    if num_classes is not None:
        checkpoint.config.with_options(num_classes=num_classes)  # raises ConfigError for impossible numbers
    for note in [*checkpoint.notes, *_head_notes(checkpoint, num_classes)]:
        warnings.warn(f"{source}: {note}", VanNotice, stacklevel=2)
    model = _build(checkpoint)
    if num_classes is not None and num_classes != checkpoint.config.num_classes:
        model.reset_classifier(num_classes)
        _label(model, classes=None, preprocess=checkpoint.preprocess, provenance=checkpoint.provenance)
    return model.eval()


def save(model: nn.Module, path: str | Path, *, format: str = "van") -> None:  # noqa: A002
    """Write a classifier (or a bare backbone) to a file, for "transformers" to a folder, whole or not at all.

    format: "van", "official", "mmpretrain", "mmseg", "transformers" or "keras".
    Classes, preprocessing and provenance are taken from the model's attributes of these names.
    Warns with VanNotice about what is lost in the format.
    Raises CheckpointError for a folded network or a place that cannot be written, UnknownNameError for a format.
    """
    checkpoint = _checkpoint_of(model)
    for note in checkpoint.notes:
        warnings.warn(note, VanNotice, stacklevel=2)
    for sentence in checkpoints.write(checkpoint, path, format):
        if not isinstance(sentence, ReadBack):
            warnings.warn(f"{format} cannot carry {sentence}", VanNotice, stacklevel=2)


def info(source: str | Path, *, ema: bool = False, revision: str | None = None, **options: Any) -> Info:
    """What a checkpoint is: format, model, classes, parameters, epsilon, preprocessing and where each comes from.

    Arguments and errors as in `load`; nothing is warned about, the notes are in the result.
    """
    return checkpoints.summarise(_read(source, ema=ema, revision=revision, options=options), str(source))


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion that was verified: every shared tensor bit-identical and the outputs equal.

    lost: what the new format cannot carry. notes: what reading the source had to leave out or assume.
    tensors: how many were compared. outputs: "logits", or "features" where one side has no head.
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
    **options: Any,
) -> Conversion:
    """Rewrite a checkpoint in another format, read it back, and compare tensors and outputs bit for bit.

    to: as `format` in `save`; everything else as in `load`.
    Raises CheckpointError when what was written does not reproduce the source.
    """
    checkpoint = _read(source, ema=ema, revision=revision, options=options)
    notes = list(checkpoint.notes)
    if num_classes is not None and num_classes != checkpoint.config.num_classes:
        notes += _head_notes(checkpoint, num_classes)
        model = _build(checkpoint)
        model.reset_classifier(num_classes)
        fresh = replace(_checkpoint_of(model), classes=None)
        checkpoint = replace(checkpoint, arrays=fresh.arrays, config=fresh.config, classes=None)
    lost = checkpoints.write(checkpoint, destination, to)
    back = checkpoints.read(destination)
    return Conversion(
        source=str(source),
        destination=str(destination),
        source_format=checkpoint.format,
        format=to,
        lost=tuple(lost),
        notes=tuple(notes),
        tensors=_compare_tensors(checkpoint, back, destination),
        outputs=_compare_outputs(checkpoint, back, destination),
    )


def _read(source: str | Path, *, ema: bool, revision: str | None, options: dict[str, Any]) -> Checkpoint:
    checkpoint = checkpoints.read(_local(source, revision), ema=ema, **options)
    facts: dict[str, Any] = {"averaged": True} if ema else {}
    if not Path(source).exists():
        facts |= {"source": str(source), "revision": revision} if revision else {"source": str(source)}
        row = weights.by_hub_id(str(source))
        if row is not None and row.model == checkpoint.name:
            facts |= {"published_as": row.name, "licence": row.licence}
    return replace(checkpoint, provenance={**checkpoint.provenance, **facts})


def _local(source: str | Path, revision: str | None) -> Path:
    """The file or folder of a source, downloaded when it is a hub id."""
    if not Path(source).exists():
        from . import hub  # the hub's client is slow to import, and a path needs none

        if hub.is_hub_id(source):
            return hub.download(str(source), revision=revision)
    if revision is not None:
        raise ConfigError(f"revision={revision!r} is for hub ids; {source} is a path")
    return Path(source)


def _head_notes(checkpoint: Checkpoint, wanted: int | None) -> Iterator[str]:
    has = checkpoint.config.num_classes
    if wanted is not None and wanted != has:
        old = f"the file's head of {has} classes is left out" if has else "the file has no head"
        yield f"{old}, a fresh one of {wanted} classes is put on" if wanted else old
    elif not has and wanted is None:
        yield "the file has no head, so this is a feature backbone (num_classes=0); give num_classes for a fresh head"


def _build(checkpoint: Checkpoint) -> Classifier:
    """The network of a checkpoint; its tensors share memory with the arrays, nothing is initialised for nothing."""
    with torch.device("meta"):
        model = Classifier(checkpoint.config)
    tensors = {key: torch.from_numpy(np.require(a, requirements="W")) for key, a in checkpoint.arrays.items()}
    model.load_state_dict(tensors, assign=True)
    _label(
        model,
        classes=checkpoint.classes,
        preprocess=checkpoint.preprocess,
        provenance=checkpoint.provenance,
    )
    return model.eval()


def _label(model: nn.Module, **attributes: Any) -> None:
    """Plain attributes that travel with the model; nn.Module's own setter is typed for tensors and modules."""
    model.__dict__.update(attributes)


def _checkpoint_of(model: nn.Module) -> Checkpoint:
    """The checkpoint of a network in memory, without the wrappers of data parallelism and torch.compile."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None), nn.Module):
        model = inner
    if any(isinstance(module, FoldedBlock) for module in model.modules()):
        raise CheckpointError("a folded network cannot be saved; save the original and fold it after loading")
    if not isinstance(model, Classifier | Backbone):
        raise ConfigError(f"cannot save a {type(model).__name__}; expected a van.nn.Classifier or Backbone")
    config, prefix = model.config, ""
    if isinstance(model, Backbone):
        config, prefix = config.with_options(num_classes=0), "backbone."
    notes, arrays = [], {}
    for key, tensor in model.state_dict().items():
        if tensor.dtype == torch.bfloat16:
            notes = ["bfloat16 tensors are written as float32, which holds them exactly"]
            tensor = tensor.float()
        arrays[prefix + key] = tensor.detach().cpu().numpy()
    layout.check(arrays, config, what="the model")
    return Checkpoint(
        arrays=arrays,
        config=config,
        format="van",
        classes=getattr(model, "classes", None),
        preprocess=getattr(model, "preprocess", None),
        provenance=getattr(model, "provenance", {}),
        notes=tuple(notes),
    )


def _compare_tensors(one: Checkpoint, two: Checkpoint, path: str | Path) -> int:
    """How many tensors both have; raises CheckpointError unless these are the same bits, and no field differs."""
    skipped = ("num_batches_tracked",) if two.format == "keras" else ()  # Keras has no place for it
    shared = [key for key in one.arrays if key in two.arrays and not key.endswith(skipped)]
    wrong = [key for key in shared if not _same(one.arrays[key], two.arrays[key])]
    wrong += [key for key in one.arrays if key not in two.arrays and not key.startswith("head.")]
    if wrong:
        raise CheckpointError(f"{path} does not reproduce {len(wrong)} tensors: {layout.listed(wrong)}")
    classes = two.config.num_classes
    if two.config != one.config.with_options(num_classes=classes) or classes not in (0, one.config.num_classes):
        raise CheckpointError(f"{path} was written, but reads back as another network: {two.config}, from {one.config}")
    return len(shared)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _compare_outputs(one: Checkpoint, two: Checkpoint, path: str | Path) -> str:
    """Which outputs were compared on a random image; raises CheckpointError unless they are the same bits."""
    first, second = _build(one).float(), _build(two).float()
    both = one.config.num_classes == two.config.num_classes
    image = np.random.default_rng(0).standard_normal((1, one.config.in_chans, 96, 96)).astype(np.float32)
    with torch.inference_mode():
        a, b = (m.forward_head(m.forward_features(torch.from_numpy(image)), not both) for m in (first, second))
    if not torch.equal(a.nan_to_num(), b.nan_to_num()):
        worst = (a - b).abs().max().item()
        raise CheckpointError(f"{path} was written, but its outputs differ from the source's by up to {worst:.3g}")
    return "logits" if both and one.config.num_classes else "features"
