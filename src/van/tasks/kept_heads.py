"""Whether a checkpoint's output layers can serve the classes of the data, and in which order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..errors import ConfigError, VanNotice
from ..recipes.model_spec import BaseModelSpec
from .class_names import first_difference, places


def why_reset(
    known: Sequence[str] | None, found: int, classes: tuple[str, ...], spec: BaseModelSpec, *, verb: str = "has"
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


def new_order(known: Sequence[str] | None, classes: tuple[str, ...], spec: BaseModelSpec) -> list[int] | None:
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
