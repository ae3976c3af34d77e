"""Checkpoints of a running training: written whole or not at all, read without running code."""

from __future__ import annotations

import errno
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from ..errors import CheckpointError, VanError, VanNotice
from ..files import atomic_output

# PREVIOUS is the LAST before the present one, to resume from if that is damaged.
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
# The folder is gone or closed, which another folder may not be.
_GONE = (
    errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EIO, errno.ENODEV,
    errno.ENOTCONN,
)  # fmt: skip


# Lightning keeps the state of a data module under its name, which in version 0.1 each task had its own.
SAMPLED_DATA_MODULE = "SampledDataModule"
EARLIER_DATA_MODULES = frozenset(("ClassificationDataModule", "SegmentationDataModule"))


class DamagedError(CheckpointError):
    """A checkpoint is not what was written."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written under a temporary name in the same folder and renamed.

    last.ckpt becomes previous.ckpt when it is replaced. Raises CheckpointError when the disk does not take the file,
    VanError when the weights are no numbers; what was there before stays.
    run: the run's folder. Where it has vanished or can no longer be written to, the checkpoint goes to a temporary
    folder from which the run can be resumed, and the error says so.
    """

    def __init__(self, run: Path | None = None) -> None:
        super().__init__()
        self.run = None if run is None else run.resolve()  # as Lightning has it

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        _check_finite(checkpoint, target)
        try:
            if self.run is not None and not self.run.is_dir():
                raise FileNotFoundError(errno.ENOENT, "the run's folder has vanished")
            target.parent.mkdir(parents=True, exist_ok=True)
            backup = PREVIOUS if target.name == LAST else None
            with (
                atomic_output(target, error=None, fsync=True, backup=backup) as temporary,
                temporary.open("wb") as file,
            ):
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            reason = _disk_error(error)
            if reason is None:
                raise
            if (refuge := self._refuge(checkpoint, error)) is not None:
                raise CheckpointError(
                    f"cannot write {target}: {reason}; step {checkpoint['global_step']} was kept in {refuge}: go on "
                    f"with trainer.resume {refuge}"
                ) from error
            raise CheckpointError(
                f"cannot write {target}: {reason}; the checkpoints before it are whole: make room, then continue with "
                f"trainer.resume {target.parent}"
            ) from error

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """As Lightning's; of a run whose folder was moved, the best checkpoint and its score are found again."""
        state = super().load_checkpoint(path, *arguments, **options)
        for earlier in EARLIER_DATA_MODULES & state.keys():
            state[SAMPLED_DATA_MODULE] = state.pop(earlier)
        for callback in state.get("callbacks", {}).values():
            before = callback.get("dirpath") if isinstance(callback, dict) else None
            if self.run is None or not isinstance(before, str):
                continue
            now = self.run / Path(before).name if Path(before).name == "history" else self.run
            callback.update(_relocated(callback, before, str(now)))
        return state

    def _refuge(self, checkpoint: dict[str, Any], error: BaseException) -> Path | None:
        """A temporary folder that holds what the run's folder does not take any more; None where that did not work."""
        if self.run is None or _errno(error) not in _GONE:
            return None
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{self.run.name}-rescued-"))
            torch.save(checkpoint, folder / LAST)
            if (self.run / BEST).is_file():
                shutil.copy(self.run / BEST, folder / BEST)
            (folder / "recipe.yaml").write_text(yaml.safe_dump(checkpoint["van_recipe"]), encoding="utf-8")
        except (OSError, RuntimeError):
            return None
        return folder


def _relocated(value: Any, before: str, now: str) -> Any:
    """Paths in a folder that was moved, where they are now; those of files that are not there stay as they were."""
    if isinstance(value, dict):
        return {_relocated(key, before, now): _relocated(item, before, now) for key, item in value.items()}
    if not isinstance(value, str) or not value.startswith(before):
        return value
    moved = now + value[len(before) :]
    return moved if Path(moved).exists() else value


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


def _system_error(error: BaseException) -> OSError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _errno(error: BaseException) -> int | None:
    cause = _system_error(error)
    return None if cause is None else cause.errno


def _disk_error(error: BaseException) -> str | None:
    """The operating system's reason why a file could not be written; None for any other error."""
    cause = _system_error(error)
    if cause is not None:
        return cause.strerror or str(cause)
    return "the file could not be written whole" if "PytorchStreamWriter failed" in str(error) else None
