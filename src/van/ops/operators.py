"""PyTorch's operators of our own, without the import of its compiler, over a second, that their first call would make.

What the compiler needs to know is said to it once it is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._library import custom_ops

Function = TypeVar("Function", bound=Callable[..., Any])

_COMPILER = "torch._dynamo"


def constant_in_graphs(function: Function) -> Function:
    """`torch.compiler.assume_constant_result`, which marks a function and imports the compiler for that."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def postpone_compiler(namespace: str) -> None:
    """Let operators run before the compiler is imported; it ignores their insides afterwards, as it always does.

    A PyTorch that keeps their functions elsewhere imports it at the first call.
    """
    for name, operator in custom_ops.OPDEFS.items():
        if name.startswith(f"{namespace}::"):
            for outer in vars(operator).get("_backend_fns", {}).values():
                if (function := getattr(outer, "__wrapped__", None)) is not None:
                    setattr(function, "__dynamo_disable", _postponed(function))


def _postponed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Stands where PyTorch keeps the function that its compiler ignores."""

    def call(*args: Any) -> Any:
        if _COMPILER not in sys.modules:
            return function(*args)
        ignored = torch.compiler.disable(function)
        setattr(function, "__dynamo_disable", ignored)
        return ignored(*args)

    return call
