"""The C kernel as a library: which build is loaded here, and the reason where none is."""

import os
import shlex
import shutil
import subprocess

import pytest
import torch

from van.ops.c_library import library


@pytest.fixture
def _working_compiler(tmp_path):
    """Skips the test without a compiler that makes programs for this processor."""
    pytest.importorskip("fcntl", reason="the kernel is not built on this system")
    names = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
    command = shlex.split(os.environ.get("CC", "")) or names[:1]
    if not command or not shutil.which(command[0]):
        pytest.skip("no C compiler here")
    source, made = tmp_path / "program.c", tmp_path / "program"
    source.write_text("#include <math.h>\n#include <pthread.h>\nint main(void) { return 0; }\n")
    built = subprocess.run([*command, "-march=native", str(source), "-o", str(made)], capture_output=True, text=True)
    if built.returncode or subprocess.run([made]).returncode:
        pytest.skip(f"{command[0]} makes no programs for this processor: {built.stderr}")


@pytest.mark.usefixtures("_working_compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_compiler_that_works_gives_a_kernel(dtype, monkeypatch):
    """Without a kernel all its other tests are skipped: a source that does not compile must not pass so."""
    monkeypatch.delenv("VAN_OPS", raising=False)
    library.cache_clear()
    found = library(dtype)
    library.cache_clear()
    assert found.handle is not None, found.reason
