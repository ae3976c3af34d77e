"""Several processes that train together: who started them, which one this is, what each takes of the data.

They are started by torchrun, by Slurm's srun, or by Lightning, which runs the same command again with LOCAL_RANK in
the environment. Every one of them goes through the whole of `run`; the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from ..errors import ConfigError

_FOLDER = "VAN_RUN_FOLDER"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process stands.

    rank: its number among `ranks` processes on `nodes` machines, as many on each.
    launcher: "torchrun", "slurm", or None when nobody else started them.
    """

    rank: int = 0
    ranks: int = 1
    nodes: int = 1
    launcher: str | None = None


def place() -> Place:
    """What torchrun or Slurm, or the process that started this one, says in the environment.

    Raises ConfigError for a launch with different numbers of processes on its machines.
    """
    if dist.is_available() and dist.is_torchelastic_launched():
        rank, ranks, local = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        launcher = "torchrun"
    elif _slurm():
        rank, ranks, local = _number("SLURM_PROCID"), _number("SLURM_NTASKS"), 0
        local, launcher = ranks // _number("SLURM_NNODES", 1), "slurm"
    else:
        return Place(rank=_number("LOCAL_RANK"))
    if ranks % max(local, 1):
        raise ConfigError(f"{ranks} processes cannot stand {local} on each machine; start as many on every one")
    return Place(rank=rank, ranks=ranks, nodes=ranks // local, launcher=launcher)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return place().rank == 0


def shared_folder(create: Callable[[], Path], *, several: bool) -> Path:
    """The folder that `create` makes in the first process, which those that Lightning starts take from it."""
    if several and place().launcher is None:
        if not is_first() and _FOLDER in os.environ:
            return Path(os.environ[_FOLDER])
        folder = create()
        os.environ[_FOLDER] = str(folder)
        return folder
    return create()


class RankShare(Sampler[Any]):
    """Every `ranks`-th entry of a sampler that all processes have alike; all get equally many, the rest is left out.

    A global batch is so the one that a single process would see.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.rank, self.ranks = sampler, 0, 1

    def __len__(self) -> int:
        whole: Sized = self.sampler
        return len(whole) // self.ranks

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.sampler), self.rank, len(self) * self.ranks, self.ranks)

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the sampler."""
        self.sampler.set_epoch(epoch)


class Talk:
    """Small words between the processes, on the CPU and beside the gradients' own connections."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.group: Any = dist.new_group(backend="gloo") if ranks > 1 else None
        self.sent: tuple[torch.Tensor, Any] | None = None

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of ranks."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        dist.all_gather_object(values, value, group=self.group)
        return values

    def any(self, *asked: bool) -> list[bool]:
        """For each question, whether any process says yes."""
        answers = torch.tensor(asked, dtype=torch.uint8)
        if self.ranks > 1:
            dist.all_reduce(answers, op=dist.ReduceOp.MAX, group=self.group)
        return answers.bool().tolist()

    def any_before(self, *asked: bool) -> list[bool]:
        """`any` of what was asked at the call before this one: nobody waits for the network."""
        if self.ranks == 1:
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
