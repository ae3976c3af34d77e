"""Several processes that train together: who started them, which one this is, what each takes of the data.

They are started by torchrun, by Slurm's srun, or by Lightning, which runs the same command again with LOCAL_RANK in
the environment. Every one of them goes through the whole of `run`; the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ..errors import ConfigError

_FOLDER = "VAN_RUN_FOLDER"


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """Which process this is.

    rank: its number among `world_size` processes on `nodes` machines, as many on each.
    launcher: "torchrun", "slurm", or None when nobody else started them.
    """

    rank: int = 0
    world_size: int = 1
    nodes: int = 1
    launcher: str | None = None


def process_info() -> ProcessInfo:
    """What torchrun or Slurm, or the process that started this one, says in the environment.

    Raises ConfigError for a launch with different numbers of processes on its machines.
    """
    if dist.is_available() and dist.is_torchelastic_launched():
        rank, world_size, local = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        launcher = "torchrun"
    elif _slurm():
        rank, world_size, local = _number("SLURM_PROCID"), _number("SLURM_NTASKS"), 0
        local, launcher = world_size // _number("SLURM_NNODES", 1), "slurm"
    else:
        return ProcessInfo(rank=_number("LOCAL_RANK"))
    if world_size % max(local, 1):
        raise ConfigError(f"{world_size} processes are not {local} on each machine; start as many on every one")
    return ProcessInfo(rank=rank, world_size=world_size, nodes=world_size // local, launcher=launcher)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return process_info().rank == 0


def shared_folder(create: Callable[[], Path], *, several: bool) -> Path:
    """The folder that `create` makes in the first process, which those that Lightning starts take from it."""
    if several and process_info().launcher is None:
        if not is_first() and _FOLDER in os.environ:
            return Path(os.environ[_FOLDER])
        folder = create()
        os.environ[_FOLDER] = str(folder)
        return folder
    return create()


class Communicator:
    """Small values between the processes, on the CPU and beside the gradients' own connections."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.group: Any = dist.new_group(backend="gloo") if world_size > 1 else None
        self.sent: tuple[torch.Tensor, Any] | None = None

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def any(self, *asked: bool) -> list[bool]:
        """For each question, whether any process says yes."""
        answers = torch.tensor(asked, dtype=torch.uint8)
        if self.world_size > 1:
            dist.all_reduce(answers, op=dist.ReduceOp.MAX, group=self.group)
        return answers.bool().tolist()

    def any_before(self, *asked: bool) -> list[bool]:
        """`any` of what was asked at the call before this one: nobody waits for the network."""
        if self.world_size == 1:
            return list(asked)
        before, answers = self.sent, torch.tensor(asked, dtype=torch.uint8)
        self.sent = answers, dist.all_reduce(answers, op=dist.ReduceOp.MAX, group=self.group, async_op=True)
        if before is None:
            return [False] * len(asked)
        before[1].wait()
        return before[0].bool().tolist()


# What gloo and NCCL say when a process at the other end is gone.
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "socket", "timed out", "timeout",
         "nccl", "gloo")  # fmt: skip


def is_lost_contact(error: RuntimeError) -> bool:
    """Whether the error is that of a connection to another process."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in _LOST)


def is_lost_worker(error: RuntimeError) -> bool:
    """Whether the error is that a data worker ended by itself."""
    return str(error).startswith("DataLoader worker (pid")


def _slurm() -> bool:
    """Started by srun; a job that is named so is somebody's shell, as Lightning has it."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _number(name: str, default: int = 0) -> int:
    return int(os.environ.get(name, default))
