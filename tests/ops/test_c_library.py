"""The C kernel as a library: which build is loaded here, and the reason where none is."""

import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from kernel_cases import ROUNDING, check, conv, drawn, pair
from networks import gap, tiny

from van import ops
from van.errors import ConfigError, VanNotice
from van.nn import fold
from van.ops import building
from van.ops import c_library as library_module
from van.ops import reference as plain
from van.ops.c_library import INSTRUCTION_FLAGS, library
from van.ops.measured import REPLACED

needs_kernel = pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}")


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


@needs_kernel
class TestLibrary:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch, tmp_path):
        monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
        library.cache_clear()
        with ops.taking(*REPLACED):  # what the kernel computes, whichever paths were measured to win here
            yield
        library.cache_clear()

    def test_built_once(self, tmp_path):
        first = library()
        assert first.handle is not None
        (built,) = (tmp_path / "cache").glob("kernel-*.so")
        stamp = built.stat().st_mtime_ns
        library.cache_clear()
        assert library().handle is not None
        assert built.stat().st_mtime_ns == stamp
        assert (tmp_path / "cache").stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize(("setting", "reason"), [
        ({"VAN_OPS": "plain"}, "VAN_OPS=plain"),
        ({"CC": "false"}, "false failed: no output"),
        ({"CC": "no-such-compiler"}, "no-such-compiler did not run"),
        ({"PATH": "", "CC": ""}, "no C compiler was found"),
    ])  # fmt: skip
    def test_why_not(self, monkeypatch, setting, reason):
        for name, value in setting.items():
            monkeypatch.setenv(name, value)
        assert library().handle is None
        assert reason in library().reason
        assert reason in ops.report()["depthwise_pair"]
        x, c = drawn(1, 4, 6, 6), conv(4, 7, 3)
        assert torch.equal(ops.depthwise_conv2d(x, *c[:2], dilation=3), plain.convolve(x, *c))

    def test_an_unknown_wish(self, monkeypatch):
        monkeypatch.setenv("VAN_OPS", "fast")
        with pytest.raises(ConfigError, match="VAN_OPS is 'fast'; expected plain"):
            library()

    @pytest.mark.long  # compiles the kernel
    def test_a_cache_that_is_a_file(self, monkeypatch, tmp_path):
        (tmp_path / "taken").touch()
        monkeypatch.setenv("VAN_CACHE", str(tmp_path / "taken"))
        with pytest.warns(VanNotice, match="for this process alone.*taken cannot be used.*set VAN_CACHE"):
            assert library().handle is not None
        assert "set VAN_CACHE" in library().reason

    @pytest.mark.long  # compiles the kernel
    @pytest.mark.parametrize("instructions", INSTRUCTION_FLAGS)
    def test_older_processors(self, monkeypatch, instructions):
        x, convs = drawn(2, 21, 9, 9), pair(21)
        library.cache_clear()
        monkeypatch.setenv("VAN_OPS", instructions)
        if library().instructions != instructions:
            pytest.skip(f"this processor has {library().instructions}")
        check(x, convs)
        block, patch = fold(tiny()).backbone.stages[2].blocks[0], torch.nn.Conv2d(9, 37, 3, 2, padding=1)
        y, z = drawn(2, 24, 17, 10), drawn(2, 9, 17, 10)
        with torch.no_grad():
            assert gap(block(y), block.double()(y.double())) < ROUNDING
            assert (
                gap(
                    ops.folded_patch(z, ops.pack_patch(patch.weight, patch.bias, stride=2, padding=1)),
                    patch.double()(z.double()),
                )
                < ROUNDING
            )

    def test_amx_needs_all_of_it(self, monkeypatch):
        features = {"avx512f"} | library_module.AMX_FEATURES
        monkeypatch.delenv("VAN_OPS", raising=False)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        monkeypatch.setattr(library_module, "_features", lambda: features)
        assert library_module._candidates(torch.float32) == ["AMX", "AVX512"]
        assert library_module._candidates(torch.float64) == ["AVX512"]
        features.remove("amx_bf16")
        assert library_module._candidates(torch.float32) == ["AVX512"]

    @pytest.mark.long  # compiles the kernel
    def test_without_amx_where_the_system_withholds_it(self, monkeypatch):
        if library().instructions != "AMX":
            pytest.skip("no AMX here")
        load = library_module._load

        def withheld(path):
            if "amx" in path.name:
                raise library_module.NoKernelError("not for this process")
            return load(path)

        library.cache_clear()
        monkeypatch.setattr(library_module, "_load", withheld)
        assert library().instructions == "AVX512"
        assert "AMX: not for this process" in library().reason

    def test_two_at_once_compile_once(self, monkeypatch, tmp_path):
        made, compiled = [], building.compiled
        monkeypatch.setattr(building, "compiled", lambda *arguments: made.append(1) or compiled(*arguments))
        with ThreadPoolExecutor() as pool:
            built = list(pool.map(lambda _: library_module._built("baseline", torch.float32), range(2)))
        assert [unusual for _, unusual in built] == ["", ""]
        assert len(list((tmp_path / "cache").glob("kernel-baseline-*.so"))) == 1
        assert made == [1]


@needs_kernel
def test_info_tells_the_path(capsys, monkeypatch):
    from van.cli import main

    assert main(["info", "--ops"]) in (None, 0)
    assert "C kernel" in capsys.readouterr().out
