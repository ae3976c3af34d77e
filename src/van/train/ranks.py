"""Several processes that train together: one folder, one writer.

Lightning starts the further processes by running the same command again, with LOCAL_RANK in their environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

_FOLDER = "VAN_RUN_FOLDER"


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("GROUP_RANK", "0") == "0"


def shared_folder(create: Callable[[], Path], *, several: bool) -> Path:
    """The folder that `create` makes in the first process, which the others take from their environment."""
    if not several:
        return create()
    if not is_first() and _FOLDER in os.environ:
        return Path(os.environ[_FOLDER])
    folder = create()
    os.environ[_FOLDER] = str(folder)
    return folder
