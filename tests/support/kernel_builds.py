"""Builds of the C kernel that run on this processor: one per family, AMX's with its tiles in plain C too."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from van.ops import c_library
from van.ops.c_library import INSTRUCTION_FLAGS, library

EMULATED_TILES = Path(__file__).parent / "emulated_tiles.h"
EMULATED = "emulated AMX"
BUILDS = (EMULATED, *INSTRUCTION_FLAGS)


@contextmanager
def in_use(build, monkeypatch):
    """Within it this build is the kernel in use; gives its instructions, and skips the test where it does not run."""
    instructions, features = build.removeprefix("emulated "), c_library._features()
    if build == EMULATED:
        if "avx512_bf16" not in features:
            pytest.skip("the vector code around AMX needs AVX512-BF16")
        emulated = (*INSTRUCTION_FLAGS["AMX"], "-include", str(EMULATED_TILES))
        monkeypatch.setitem(INSTRUCTION_FLAGS, "AMX", emulated)
        monkeypatch.setattr(c_library, "_features", lambda: features | c_library.AMX_FEATURES)
    monkeypatch.setenv("VAN_OPS", instructions)
    library.cache_clear()
    if library().instructions != instructions:
        pytest.skip(f"this processor has {library().instructions}")
    yield instructions
    monkeypatch.undo()
    library.cache_clear()
