"""Checks of what trainers of all tasks have: devices, BatchNorm over them, checkpoints between epochs."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigError
from ..files import why_no_path
from .checks import at_least, in_range, one_of

# Of data workers and threads; and the largest seed from which every order of an epoch still fits into 64 bits.
MAX_PROCESSES, MAX_SEED = 4096, 10**13
BATCH_NORMS = ("reduce", "sync", "frozen", "recalibrate")


def check_processes(spec: Any) -> None:
    """The fields of a trainer's section."""
    for name in ("devices", "recalibrate_images", "checkpoint_every_steps"):
        at_least(f"trainer.{name}", getattr(spec, name), 1)
    if spec.checkpoint_every_s is not None:
        in_range("trainer.checkpoint_every_s", spec.checkpoint_every_s, 0, math.inf)
    one_of("trainer.batch_norm", spec.batch_norm, BATCH_NORMS)
    if spec.recalibrate_images is not None and spec.batch_norm != "recalibrate":
        raise ConfigError("trainer.recalibrate_images belongs to trainer.batch_norm recalibrate; leave it out")
    if spec.resume_with_changed_data and spec.resume is None:
        raise ConfigError("trainer.resume_with_changed_data needs trainer.resume, the run to continue; leave it out")
    for name in ("out", "resume"):
        if (value := getattr(spec, name)) is not None and (reason := why_no_path(value)):
            raise ConfigError(f"trainer.{name} {value!r} {reason}; give a folder, or leave it out")
    if spec.resume == "auto" and spec.out is None:
        raise ConfigError("trainer.resume auto continues the run in trainer.out; give trainer.out")


def check_frozen(recipe: Any) -> None:
    """Frozen statistics must come from somewhere."""
    if recipe.trainer.batch_norm == "frozen" and recipe.model.checkpoint is None:
        raise ConfigError("trainer.batch_norm frozen keeps a checkpoint's statistics; give model.checkpoint, or reduce")
