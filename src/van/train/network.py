"""The network a recipe starts from: fresh, or a checkpoint that it really starts from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

from ..configs.backbone import name_of, resolve
from ..errors import ConfigError, VanNotice
from ..images.preprocess import Preprocess
from ..models import create_model, load
from ..nn import Classifier, optimize
from ..nn.segmenter import Segmenter
from ..recipes import DataSpec, ModelSpec
from ..tasks.class_names import first_difference, places
from .distributed import place

DEFAULT_MODEL = "van_b0"
Net = TypeVar("Net", bound=nn.Module)


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


def laid_out(network: Net, device: str, *, channels_last: bool) -> Net:
    """The network in the layout to train in: on CUDA what `van.optimize` makes and checks on this process's GPU.

    Elsewhere the same network, its weights in channels_last memory where asked.
    """
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or place().rank % torch.cuda.device_count())
        return cast(Net, optimize(network.to(torch.device("cuda", index)), training=True))
    return network.to(memory_format=torch.channels_last) if channels_last else network


def _classifier(model: Any, source: object) -> Classifier:
    if isinstance(model, Segmenter):
        raise ConfigError(f"{source} is a segmenter; train it with a segmentation recipe, or give a classifier")
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


def why_reset(
    known: Sequence[str] | None, found: int, classes: tuple[str, ...], spec: Any, *, verb: str = "has"
) -> str:
    """Why a checkpoint's classifier of `found` classes cannot serve `classes`; empty when it can.

    known: the names of the checkpoint's classes. spec: the recipe's section of the network. verb: "have" of several.
    Raises ConfigError for a head that is to be kept and has another number of classes.
    """
    if spec.reset_head:
        return "model.reset_head asks for"
    if found != len(classes):
        if spec.keep_head:
            raise ConfigError(
                f"model.keep_head: {spec.checkpoint} has {found} classes, the data {len(classes)}; expected as many: "
                "leave keep_head out for a fresh head"
            )
        return f"the checkpoint's {verb} {found} classes, the data {len(classes)}"
    if known is None or spec.keep_head or places(known, classes) is not None:
        return ""
    at = first_difference(known, classes)
    return (
        f"its classes have other names (number {at} is {known[at]!r}, here {classes[at]!r}); model.keep_head true "
        "keeps the checkpoint's"
    )


def new_order(known: Sequence[str] | None, classes: tuple[str, ...], spec: Any) -> list[int] | None:
    """The checkpoint's rows in the order of the data's classes; None where they are so already.

    Warns with VanNotice about another order.
    """
    order = None if known is None or spec.keep_head else places(known, classes)
    if order is None or order == tuple(range(len(classes))):
        return None
    warnings.warn(
        f"{spec.checkpoint} has the data's classes in another order; its head is kept, class by class (by their names)",
        VanNotice,
        stacklevel=4,
    )
    return list(order)


def tell_unnamed(checkpoint: str | None, count: int, what: str, *, stacklevel: int) -> None:
    """Say that a head is kept on trust."""
    warnings.warn(
        f"{checkpoint} does not name its classes; its {what} kept for the {count} classes of the data in their order "
        "(model.reset_head true starts afresh, model.keep_head true keeps it without this note)",
        VanNotice,
        stacklevel=stacklevel,
    )
