"""Which paths of the C kernel this processor takes: those that its family was measured to gain by (measured.py).

A family that nobody measured takes none by itself, and all where VAN_OPS names instructions: who asks is served.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ..errors import UnknownNameError
from .c_library import INSTRUCTION_FLAGS, _wish, library
from .measured import NEWER, RATIOS, REPLACED
from .operators import constant_in_graphs

X86 = ("x86_64", "amd64", "i386", "i686")
ARM = ("aarch64", "arm64")
_exactly: ContextVar[frozenset[str] | None] = ContextVar("van_paths", default=None)


def family() -> str:
    """The kernel's family of processors here: a key of RATIOS, or what the system calls one that is none."""
    machine = platform.machine()
    if machine.lower() not in X86:
        return "NEON" if machine.lower() in ARM else machine
    order, instructions = list(INSTRUCTION_FLAGS), library().instructions
    newer = order.index(instructions) > order.index(torch_instructions())
    return instructions + (NEWER if newer else "")


def torch_instructions() -> str:
    """The key of INSTRUCTION_FLAGS for what PyTorch itself uses, which an environment variable may hold back."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in INSTRUCTION_FLAGS else "baseline"


@constant_in_graphs
def path_taken(path: str) -> bool:
    """Whether the C kernel computes this path (a key of REPLACED) here, where it can."""
    if library().handle is None:
        return False
    exactly, ratio = _exactly.get(), ratio_of(path)
    if exactly is not None:
        return path in exactly
    return asked_for() if ratio is None else ratio >= 1


def ratio_of(path: str) -> float | None:
    """What the path gains on this family; None: nobody measured it."""
    return RATIOS.get(family(), {}).get(path)


def asked_for() -> bool:
    """Whether VAN_OPS names instructions of the kernel."""
    return _wish() not in ("auto", "plain")


def in_mode(path: str, *tensors: Tensor | None, training: bool = False) -> str:
    """The path's name, that of training where a gradient of one of these is wanted.

    training: in any case, because reentrant checkpointing first computes without gradients what it computes again.
    """
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return f"{path}_training" if wanted or training else path


@contextmanager
def taking(*paths: str) -> Iterator[None]:
    """Within it exactly these paths are taken, whatever was measured: to measure and to check them.

    Folded networks keep what their blocks and patch embeddings were made with. Raises UnknownNameError.
    """
    for path in paths:
        if path not in REPLACED:
            raise UnknownNameError.of("path", path, REPLACED)
    token = _exactly.set(frozenset(paths))
    try:
        yield
    finally:
        _exactly.reset(token)
