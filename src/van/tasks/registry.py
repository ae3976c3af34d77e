"""The tasks that are known, and what is found by looking through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from ..configs.model_config import ModelConfig
from ..errors import ConfigError, UnknownNameError, UnknownOptionError, with_article
from .base import EvalOptions, Task
from .classification.task import CLASSIFICATION
from .detection.task import DETECTION
from .instance.task import INSTANCE
from .options import plural
from .panoptic.task import PANOPTIC
from .segmentation.task import SEGMENTATION

if TYPE_CHECKING:
    from torch import nn

Options = TypeVar("Options")

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION, DETECTION, INSTANCE, PANOPTIC)}


def register(task: Task) -> Task:
    """Make a task known: its models are built, saved, loaded, evaluated and used like those of this package.

    The shapes of its checkpoints' tensors are those of a model that is built without memory, unless
    `checkpoints.layout.shapes` knows them already.
    """
    from ..checkpoints.layout import shapes
    from ..nn.build import BUILDERS, built_shapes

    TASKS[task.name] = task
    BUILDERS.setdefault(task.config, task.build)
    if shapes.dispatch(task.config) is shapes.dispatch(object):
        shapes.register(task.config, built_shapes)
    return task


def task_of(config: ModelConfig) -> Task:
    """The task of a configuration; raises ConfigError for one that is not registered."""
    if config.task not in TASKS:
        raise ConfigError(
            f"no task is known for {with_article(config.noun)} ({config.task}); expected one of {', '.join(TASKS)}"
        )
    return TASKS[config.task]


def task_named(name: str) -> Task:
    """The task of that name; raises UnknownNameError."""
    if name not in TASKS:
        raise UnknownNameError.of("task", name, TASKS)
    return TASKS[name]


def described(model: nn.Module, name: str) -> tuple[Task, ModelConfig]:
    """What a model in memory is for, and its configuration; name: what to call it in errors.

    Raises ConfigError for a module that is no model of any task.
    """
    for task in TASKS.values():
        if (config := task.config_of(model)) is not None:
            return task, config
    number = getattr(model, "num_classes", None)
    raise ConfigError(
        f"{name} has no classification head (num_classes is {number}), nor is it a model of this package; expected "
        f"a {' or '.join(task.noun for task in TASKS.values())}"
    )


def parse_options(
    kind: type[Options], given: Mapping[str, object], *, task: Task, name: str, others: Iterable[str] = ()
) -> Options:
    """Options of a task from keyword arguments; what belongs to another task may be there with its default or None.

    kind: the task's predict_options or eval_options. name: what to call the model in errors. others: further names
    that could have been meant.
    Raises ConfigError for a value of another task's option, UnknownOptionError for a name that no task has.
    """
    own = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    for option_name, value in given.items():
        if option_name in own:
            continue
        owners = _owners(option_name, evaluation=issubclass(kind, EvalOptions))
        if not owners:
            raise UnknownOptionError.of(f"option of {with_article(task.noun)}", option_name, [*others, *sorted(own)])
        if value is not None and value not in owners.values():
            raise ConfigError(f"{option_name} belongs to {plural(owners)}, which {name} is not; leave it out")
    return kind(**{key: value for key, value in given.items() if key in own})


def _owners(name: str, *, evaluation: bool) -> dict[str, object]:
    """The tasks that have an option of this name, by what their models are called, and its default."""
    kinds = {task.noun: task.eval_options if evaluation else task.predict_options for task in TASKS.values()}
    return {noun: each.default for noun, kind in kinds.items() for each in fields(kind) if each.name == name}
