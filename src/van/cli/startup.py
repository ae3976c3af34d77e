"""Imports of a command, which are most of what a short one costs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_alone = False


def own_process() -> None:
    """This process is there for the command alone."""
    global _alone
    _alone = True


@contextmanager
def importing() -> Iterator[None]:
    """Around imports of many modules: nothing in them is garbage, and looking for it takes a fifth of their time.

    In a process of its own the command never looks through them later either.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _alone:
            gc.freeze()
        if enabled:
            gc.enable()
