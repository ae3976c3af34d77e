"""Checkpoints of a running training: written whole or not at all, read without running code."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from ..errors import CheckpointError, VanError, VanNotice

# What is left behind when `last` is written anew, for the day on which it turns out damaged.
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class DamagedError(CheckpointError):
    """A checkpoint is not what was written."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written under a temporary name in the same folder and renamed.

    last.ckpt becomes previous.ckpt when it is replaced. Raises CheckpointError when the disk does not take the file,
    VanError when the weights are no numbers; what was there before stays.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        _check_finite(checkpoint, target)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == LAST and target.exists():
                target.replace(target.with_name(PREVIOUS))
            temporary.replace(target)
        except (OSError, RuntimeError) as error:
            reason = _disk_error(error)
            if reason is None:
                raise
            raise CheckpointError(
                f"cannot write {target}: {reason}; the checkpoints before it are whole: make room, then continue with "
                f"trainer.resume {target.parent}"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """A file that AtomicCheckpointIO wrote, tensors on the CPU, every byte of it checked.

    Raises CheckpointError when it is something else, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            broken = parts.testzip()  # compares the checksums
        if broken:
            raise DamagedError(f"{path} is damaged: the checksum of {broken} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except DamagedError:
        raise
    except OSError as error:
        raise CheckpointError(f"cannot open {path} to resume: {error}") from error
    except Exception as error:  # torch.load raises nearly anything on corrupt bytes
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DamagedError(f"{path} is no checkpoint to resume from, or is damaged: {first}") from error
    if not isinstance(state, dict) or "van_recipe" not in state or "loops" not in state:
        raise CheckpointError(
            f"{path} holds no training state; resume needs a run's folder or its last.ckpt (for weights alone, use "
            "model.checkpoint)"
        )
    return state


def read_last(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to resume from and its content: `path`, or the previous one where the last is damaged or missing.

    Raises CheckpointError when neither can be read.
    """
    previous = path.with_name(PREVIOUS)
    if path.name != LAST or not previous.is_file():
        return path, read_training_checkpoint(path)
    try:
        if path.is_file():
            return path, read_training_checkpoint(path)
        reason = f"{path} is missing"  # the process ended between two renames
    except DamagedError as error:
        reason = str(error)
    state = read_training_checkpoint(previous)
    warnings.warn(f"{reason}; resuming from {PREVIOUS}, step {state['global_step']}", VanNotice, stacklevel=4)
    return previous, state


def _check_finite(checkpoint: dict[str, Any], target: Path) -> None:
    for name, value in checkpoint.get("state_dict", {}).items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise VanError(
                f"{name} is not finite after step {checkpoint['global_step']}, which is not kept; {target} stays what "
                "it was; lower optim.lr, set optim.clip_norm, or use trainer.precision bf16 or fp32"
            )


def _disk_error(error: BaseException) -> str | None:
    """What the system said when a file could not be written, for anything else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return "the file could not be written whole" if "PytorchStreamWriter failed" in str(error) else None
