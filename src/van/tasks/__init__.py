"""What models are for: one folder per task, one contract (`base.py`), and the table of the tasks that are known.

Importing this package imports no torch: a task's members import what they need when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..configs.model_config import ModelConfig
from ..errors import ConfigError, UnknownNameError
from .base import Task
from .classification.task import CLASSIFICATION
from .segmentation.task import SEGMENTATION

if TYPE_CHECKING:
    from torch import nn

    from ..checkpoints.layout import Shape

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION)}


def register(task: Task) -> Task:
    """Make a task known: its models are built, saved, loaded, evaluated and used like those of this package.

    The shapes of its checkpoints' tensors are those of a model that is built without memory, unless
    `checkpoints.layout.shapes` knows them already.
    """
    from ..checkpoints.layout import shapes
    from ..nn.build import BUILDERS

    TASKS[task.name] = task
    BUILDERS.setdefault(task.config, task.build)
    if shapes.dispatch(task.config) is shapes.dispatch(object):
        shapes.register(task.config, _built_shapes)
    return task


def _built_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name -> shape of every tensor of a model, which is built on the meta device."""
    import torch

    with torch.device("meta"):
        model = task_of(config).build(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def task_of(config: ModelConfig) -> Task:
    """The task of a configuration; raises ConfigError for one that is not registered."""
    if config.task not in TASKS:
        raise ConfigError(f"no task is known for a {config.noun} ({config.task}); expected one of {', '.join(TASKS)}")
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
