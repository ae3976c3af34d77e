"""The network a recipe starts from: fresh, on the backbone of any VAN checkpoint, or a model's weights entirely."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ...configs.backbone import VanConfig
from ...configs.catalog import resolve
from ...configs.object_config import ObjectConfig
from ...errors import ConfigError, VanNotice
from ...models import load
from ...nn.build import build
from ...nn.object_model import ObjectModel
from ...recipes.coco.model_spec import ObjectModelSpec, check_fields
from ..backbone_sizes import require_same_sizes
from ..kept_heads import new_order, tell_unnamed, why_reset


def build_object_model(
    spec: ObjectModelSpec, classes: tuple[str, ...], *, seed: int, num_things: int | None = None
) -> ObjectModel:
    """A model for `classes` in training mode; its `classes` and `provenance` are set.

    From a checkpoint of the same method everything is the file's, except classifiers that do not fit the classes or
    that `spec.reset_head` renews; those whose classes stand in another order are put into that of `classes`. From any
    other one every weight of the backbone is the file's and the rest is fresh.
    num_things: of panoptic models: the first so many classes are things.
    Raises what `models.load` raises, ConfigError for a checkpoint of another network than `spec.name`.
    """
    generator = torch.Generator().manual_seed(seed)
    own = {} if num_things is None else {"num_things": num_things}
    if spec.checkpoint is None:
        model = _fresh(_config(spec).with_options(num_classes=len(classes), **own), generator)
        start: dict[str, Any] = {}
    else:
        found = load(spec.checkpoint)
        start = found.provenance
        if isinstance(found, ObjectModel) and _is_same_method(found, spec):
            model = _continued(found, spec, classes, own, generator)
        else:
            config = _config(spec).with_options(num_classes=len(classes), **own)
            model = _on_backbone(found, config, spec, generator)
    model.classes, model.provenance = classes, start
    model.set_grad_checkpointing(spec.grad_checkpointing)
    return model.train()


def _config(spec: ObjectModelSpec) -> ObjectConfig:
    return spec.KNOWN[resolve(spec.name or spec.EXAMPLE)].with_options(**spec.options())


def _fresh(config: ObjectConfig, generator: torch.Generator) -> ObjectModel:
    model = build(config)
    assert isinstance(model, ObjectModel)
    model.reset_parameters(generator)
    return model


def _is_same_method(found: ObjectModel, spec: ObjectModelSpec) -> bool:
    """Whether the checkpoint holds what is to be trained, and not only a backbone for it."""
    config = found.config
    if type(config) not in {type(each) for each in spec.KNOWN.values()}:
        return False
    return spec.name is None or spec.KNOWN[resolve(spec.name)].method == config.method


def _on_backbone(found: Any, config: ObjectConfig, spec: ObjectModelSpec, generator: torch.Generator) -> ObjectModel:
    """A fresh model on the backbone of whatever was loaded."""
    if spec.name is None:
        raise ConfigError(
            f"{spec.checkpoint} is no {config.noun}, so it gives a backbone only; set model.name, e.g. {spec.EXAMPLE}"
        )
    if spec.keep_head:
        raise ConfigError(
            f"{spec.checkpoint} is no {config.method}, so it has no classifiers to keep; leave model.keep_head out"
        )
    theirs: VanConfig = found.config.architecture
    require_same_sizes(config.backbone, theirs, spec)
    if spec.layer_norm_eps is None:
        config = config.with_options(layer_norm_eps=theirs.layer_norm_eps)
    model = _fresh(config, generator)
    backbone = found.backbone if hasattr(found, "backbone") else found
    model.backbone.load_state_dict(backbone.state_dict())
    return model


def _continued(
    found: ObjectModel,
    spec: ObjectModelSpec,
    classes: tuple[str, ...],
    own: dict[str, Any],
    generator: torch.Generator,
) -> ObjectModel:
    """The loaded model, rebuilt when options change what its tensors do not show."""
    if spec.name is not None:
        require_same_sizes(_config(spec).backbone, found.config.backbone, spec)
    check_fields(spec, found.config, str(spec.checkpoint))
    model = _with_options(found, spec)
    known = model.classes
    if known is None and not (spec.reset_head or spec.keep_head) and model.num_classes == len(classes):
        tell_unnamed(spec.checkpoint, len(classes), "classifiers are", stacklevel=5)
    if reason := why_reset(known, model.num_classes, classes, spec, verb="have"):
        warnings.warn(f"{spec.checkpoint}: fresh {model.config.output_layers}, as {reason}", VanNotice, stacklevel=4)
        model.reset_classifier(len(classes), generator)
    elif order := new_order(known, classes, spec):
        model.reorder_classes(order)
    if own and {name: getattr(model.config, name) for name in own} != own:
        model.config = model.config.with_options(**own)
    return model


def _with_options(found: ObjectModel, spec: ObjectModelSpec) -> ObjectModel:
    config = found.config.with_options(**spec.options())
    if config == found.config:
        return found
    model = build(config)
    assert isinstance(model, ObjectModel)
    try:
        model.load_state_dict(found.state_dict())
    except RuntimeError as error:
        old, new = found.config, config
        changed = [name for name in spec.options() if _value(old, name) != _value(new, name)]
        raise ConfigError(
            f"{spec.checkpoint} does not fit the options {', '.join(changed)}; leave out what changes its sizes"
        ) from error
    model.metadata = found.metadata
    return model


def _value(config: ObjectConfig, name: str) -> Any:
    return getattr(config, name, getattr(config.backbone, name, None))
