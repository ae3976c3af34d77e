"""What a GPU benchmark has measured, one JSON object a line, written as it comes: a run that was cut off goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Rows(list[dict[str, Any]]):
    """The rows of a file, and those that are appended to it; without a file they are kept in memory alone.

    keys: the columns that name a measurement. A last line that was cut off is left out.
    """

    def __init__(self, path: Path | None, keys: Sequence[str]) -> None:
        self.path, self.keys = path, keys
        if path is None or not path.exists():
            super().__init__()
            return
        whole = path.read_text().rpartition("\n")[0]
        super().__init__(json.loads(line) for line in whole.splitlines())
        path.write_text(whole + "\n" if whole else "")

    def have(self, **values: Any) -> bool:
        """Whether a row with these columns was measured already."""
        return any(all(row[key] == values[key] for key in self.keys) for row in self)

    def append(self, row: dict[str, Any]) -> None:
        """Keep a row; it is on the disk before the next one is measured."""
        super().append(row)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
