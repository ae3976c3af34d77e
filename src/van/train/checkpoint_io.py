"""Checkpoints of a running training: written whole or not at all, read without running code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from ..errors import CheckpointError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written under a temporary name in the same folder and renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """A file that AtomicCheckpointIO wrote, tensors on the CPU; raises CheckpointError when it is something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(f"cannot open {path} to resume: {error}") from error
    except Exception as error:  # torch.load raises nearly anything on corrupt bytes
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is no checkpoint to resume from, or is damaged: {first}") from error
    if not isinstance(state, dict) or "van_recipe" not in state or "loops" not in state:
        raise CheckpointError(
            f"{path} holds no training state; resume needs a run's folder or its last.ckpt (for weights alone, use "
            "model.checkpoint)"
        )
    return state
