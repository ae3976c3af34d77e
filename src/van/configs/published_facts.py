"""What was found in the published files themselves, by the name of their row; it wins over what their publishers state.

`van verify-weights --write FILE` proposes the next state of this module. No file has been opened yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FACTS: Mapping[str, Mapping[str, Any]] = {}
