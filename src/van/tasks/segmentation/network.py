"""The segmenter a recipe starts from: fresh, on a classifier's backbone, or a segmenter's weights entirely."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ...configs.segmenter import SEGMENTERS, name_of, resolve
from ...errors import ConfigError, VanNotice
from ...models import load
from ...nn.segmenter import Segmenter
from ...recipes.segmentation.spec import SegmentationModelSpec
from ..backbone_sizes import require_same_sizes
from ..kept_heads import new_order, tell_unnamed, why_reset

DEFAULT_MODEL = "light_ham_van_b0"


def build_segmenter(
    spec: SegmentationModelSpec, classes: tuple[str, ...], palette: tuple[tuple[int, int, int], ...], *, seed: int
) -> Segmenter:
    """A segmenter for `classes` in training mode; its `classes`, `palette` and `provenance` attributes are set.

    From a classifier every weight of the backbone is the file's and neck and heads are fresh; from a segmenter
    everything is the file's, except pixel classifiers that do not fit the classes or that `spec.reset_head` renews;
    those whose classes stand in another order are put into that of `classes`.
    Raises what `models.load` raises, ConfigError for a checkpoint of another network than `spec.name`.
    """
    generator = torch.Generator().manual_seed(seed)
    options = spec.options()
    if spec.checkpoint is None:
        model = Segmenter(SEGMENTERS[resolve(spec.name or DEFAULT_MODEL)].with_options(**options))
        model.reset_parameters(generator)
        start: dict[str, Any] = {}
    else:
        found = load(spec.checkpoint)
        start = found.provenance
        if isinstance(found, Segmenter):
            model = _continued(found, spec, classes, generator)
        else:
            model = _on_backbone(found, spec, generator)
    if model.num_classes != len(classes):
        model.reset_classifier(len(classes), generator)
    model.classes, model.palette, model.provenance = classes, palette, start
    model.set_grad_checkpointing(spec.grad_checkpointing)
    return model.train()


def _on_backbone(found: Any, spec: SegmentationModelSpec, generator: torch.Generator) -> Segmenter:
    """A fresh segmenter on the backbone of a classifier (or of a bare backbone) that was loaded."""
    if spec.name is None:
        raise ConfigError(
            f"{spec.checkpoint} is no segmenter, so it gives a backbone only; set model.name, e.g. {DEFAULT_MODEL}"
        )
    if spec.keep_head:
        raise ConfigError(
            f"{spec.checkpoint} is no segmenter, so it has no pixel classifiers to keep; leave model.keep_head out"
        )
    options, theirs = spec.options(), found.config
    config = SEGMENTERS[resolve(spec.name)].with_options(**options)
    require_same_sizes(config.backbone, theirs, spec)
    model = Segmenter(config.with_options(layer_norm_eps=options.get("layer_norm_eps", theirs.layer_norm_eps)))
    model.reset_parameters(generator)
    backbone = found.backbone if hasattr(found, "backbone") else found
    model.backbone.load_state_dict(backbone.state_dict())
    return model


def _continued(
    found: Segmenter, spec: SegmentationModelSpec, classes: tuple[str, ...], generator: torch.Generator
) -> Segmenter:
    """The loaded segmenter, rebuilt when options change what its tensors do not show."""
    if spec.name is not None and resolve(spec.name) != name_of(found.config):
        raise ConfigError(
            f"{spec.checkpoint} holds a {name_of(found.config)}, model.name is {spec.name!r}; set model.name to null"
        )
    model = found
    config = found.config.with_options(**spec.options())
    if config != found.config:
        model = Segmenter(config)
        model.reset_parameters(generator)
        try:
            model.load_state_dict(found.state_dict())
        except RuntimeError as error:
            changed = [name for name, value in spec.options().items() if value != _of(found, name)]
            raise ConfigError(
                f"{spec.checkpoint} does not fit the options {', '.join(changed)}; leave out what changes its sizes"
            ) from error
        model.metadata = found.metadata
    known = model.classes
    if known is None and not (spec.reset_head or spec.keep_head) and model.num_classes == len(classes):
        tell_unnamed(spec.checkpoint, len(classes), "pixel classifiers are", stacklevel=5)
    if reason := why_reset(known, model.num_classes, classes, spec, verb="have"):
        warnings.warn(f"{spec.checkpoint}: fresh pixel classifiers, as {reason}", VanNotice, stacklevel=4)
        model.reset_classifier(len(classes), generator)
    elif order := new_order(known, classes, spec):
        model.reorder_classes(order)
    return model


def _of(model: Segmenter, name: str) -> Any:
    return getattr(model.config, name, getattr(model.config.backbone, name, None))
