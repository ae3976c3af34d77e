"""The classifier a recipe starts from: fresh, or a checkpoint that it really starts from."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from ...configs.backbone import name_of, resolve
from ...errors import ConfigError, VanNotice, with_article
from ...images.preprocess import Preprocess
from ...models import create_model, load
from ...nn import Classifier
from ...recipes import DataSpec, ModelSpec, Recipe
from ..kept_heads import new_order, tell_unnamed, why_reset

DEFAULT_MODEL = "van_b0"


def build_network(spec: ModelSpec, classes: tuple[str, ...], *, seed: int) -> Classifier:
    """A classifier for `classes` in training mode; its `classes` attribute is set.

    From a checkpoint every weight is the file's; the head too, its rows in the order of `classes`, unless the number or
    the names of the classes differ (spelling apart) or `spec.reset_head`. Raises what `models.load` and
    `models.create_model` raise, ConfigError for a checkpoint of another variant than `spec.name`.
    """
    if spec.checkpoint is None:
        name = spec.name or DEFAULT_MODEL
        model = _classifier(create_model(name, seed=seed, num_classes=len(classes), **spec.options()), name)
    else:
        model = _classifier(load(spec.checkpoint, **spec.options()), spec.checkpoint)
        _same_variant(model, spec)
        reason = _why_reset(model, classes, spec)
        if reason:
            warnings.warn(
                f"{spec.checkpoint}: a fresh head of {len(classes)} classes, as {reason}", VanNotice, stacklevel=2
            )
            model.reset_classifier(len(classes), torch.Generator().manual_seed(seed))
        elif order := new_order(model.classes, classes, spec):
            model.reorder_classes(order)
    model.classes = classes
    model.set_grad_checkpointing(spec.grad_checkpointing)
    return model.train()


def _classifier(model: Any, source: object) -> Classifier:
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"{source} is {with_article(model.config.noun)}; train it with a recipe of {model.config.task}, or give a "
            "classifier"
        )
    return model


def resolve_preprocess(model: Classifier, data: DataSpec) -> Preprocess:
    """The network's own record with the recipe's overrides; raises ConfigError when channels do not fit."""
    own: Preprocess = model.preprocess or Preprocess()
    preprocess = own.with_overrides(**data.preprocess_overrides())
    wanted = model.config.in_chans
    if wanted not in (1, 3):
        raise ConfigError(
            f"the network takes {wanted} channels, but images have 3 (RGB) or 1 (gray); use such a network"
        )
    if preprocess.channels != wanted:
        raise ConfigError(
            f"the network takes {wanted} channel(s), but data.mean and data.std have {preprocess.channels} entries; "
            f"give {wanted} each, or use model.in_chans {preprocess.channels}"
        )
    return preprocess


def check_map(recipe: Recipe, network: Classifier, preprocess: Preprocess) -> None:
    """BatchNorm cannot train on one value per channel: raises ConfigError for such a batch."""
    total = network.config.reductions[-1]
    positions = math.ceil(preprocess.size[0] / total) * math.ceil(preprocess.size[1] / total)
    if recipe.trainer.batch_size * positions < 2:
        raise ConfigError(
            f"trainer.batch_size is 1 and images of {preprocess.size} leave one position in the last stage, too "
            "little for BatchNorm; use a batch of at least 2"
        )


def _same_variant(model: Classifier, spec: ModelSpec) -> None:
    found = name_of(model.config)
    if spec.name is not None and resolve(spec.name) != found:
        raise ConfigError(f"{spec.checkpoint} holds a {found}, model.name is {spec.name!r}; set model.name to null")


def _why_reset(model: Classifier, classes: tuple[str, ...], spec: ModelSpec) -> str:
    """Why the checkpoint's head cannot stay; empty when it can."""
    known = model.classes
    if known is None and not (spec.reset_head or spec.keep_head) and model.num_classes == len(classes):
        tell_unnamed(spec.checkpoint, len(classes), "head is", stacklevel=4)
    return why_reset(known, model.num_classes, classes, spec)
