"""The compiled kernel in the user's cache: nothing foreign is loaded, damage is mended, a bad compiler is a reason."""

import errno
import fcntl
import os
import shlex
import tempfile
import time
from pathlib import Path

import pytest
import torch

from van import ops
from van.errors import VanNotice
from van.ops import building
from van.ops import c_library as library_module
from van.ops.c_library import library

pytestmark = [
    pytest.mark.promise("kernel-cache"),
    pytest.mark.skipif(library().handle is None, reason=f"no kernel here: {library().reason}"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The kernel of this machine, compiled once."""
    loaded, folder = [], tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAN_CACHE", str(folder / "cache"))
        load = library_module._load
        patch.setattr(library_module, "_load", lambda path: loaded.append(path) or load(path))
        library.cache_clear()
        assert library().handle is not None
    library.cache_clear()
    return loaded[0]


@pytest.fixture
def cache(tmp_path, monkeypatch, built):
    """An empty cache; the compiler is a script that copies the kernel and counts how often it was called."""
    folder, script = tmp_path / "cache", tmp_path / "compiler"
    script.write_text(
        f'#!/bin/sh\necho . >> {tmp_path}/calls\nwhile [ "$1" != -o ]; do shift; done\nexec cp {built} "$2"\n'
    )
    script.chmod(0o700)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("VAN_CACHE", str(folder))
    monkeypatch.setenv("CC", str(script))
    library.cache_clear()
    yield folder
    library.cache_clear()


@pytest.fixture
def loaded(monkeypatch):
    """The folders from which libraries were loaded."""
    seen, load = [], library_module._load
    monkeypatch.setattr(library_module, "_load", lambda path: seen.append(path.parent) or load(path))
    return seen


def again():
    library.cache_clear()
    return library()


def kept(cache):
    (path,) = cache.glob("kernel-*.so")
    return path


def calls(cache):
    return len((cache.parent / "calls").read_text().split())


def damage(path, how):
    content = path.read_bytes()
    if how == "flipped":
        content = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    path.unlink()  # a library that this process has loaded must not change under it
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}.get(how, content))


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "flipped"])
def test_a_damaged_kernel_is_compiled_again(cache, built, how):
    assert again().handle is not None
    damage(kept(cache), how)
    with pytest.warns(VanNotice, match="is damaged: the C kernel was compiled again"):
        assert again().handle is not None
    assert kept(cache).read_bytes() == built.read_bytes()
    again()
    assert calls(cache) == 2


def test_a_damaged_kernel_without_a_compiler_is_said(cache, monkeypatch):
    monkeypatch.setenv("CC", "false")
    (cache / f"{name_of_kernel(monkeypatch)}-{'0' * 32}.so").write_bytes(b"")
    with pytest.warns(VanNotice, match="could not be compiled again"):
        assert "false failed" in again().reason


def name_of_kernel(monkeypatch):
    """What the kernel's file is called here, but for its content."""
    names, opened = [], library_module.open_kernel
    monkeypatch.setattr(library_module, "open_kernel", lambda name, *more: names.append(name) or opened(name, *more))
    again()
    monkeypatch.setattr(library_module, "open_kernel", opened)
    return names[0]


@pytest.mark.parametrize("mode", [0o777, 0o722])
def test_nothing_is_loaded_from_a_folder_that_others_can_write(cache, loaded, mode):
    again()
    cache.chmod(mode)
    loaded.clear()
    with pytest.warns(VanNotice, match=r"compiled for this process alone.*chmod go-w it, or set VAN_CACHE"):
        assert again().handle is not None
    assert loaded
    assert cache not in loaded
    assert "can be written by" in ops.report()["depthwise_pair"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_nothing_of_another_user_is_loaded(cache, loaded, what, monkeypatch):
    if os.getuid():
        pytest.skip("only root can give files away")
    again()
    first = kept(cache)
    os.chown(cache if what == "folder" else first, 4321, -1)
    loaded.clear()
    with pytest.warns(VanNotice, match="belongs to another user"):
        assert again().handle is not None
    if what == "folder":
        assert cache not in loaded
    else:
        assert kept(cache).stat().st_uid == 0  # compiled again
    os.chown(cache, 0, -1)


def test_a_file_that_others_can_write_is_compiled_again(cache):
    again()
    kept(cache).chmod(0o666)
    with pytest.warns(VanNotice, match="can be written by every user: the C kernel was compiled again"):
        assert again().handle is not None
    assert not kept(cache).stat().st_mode & 0o022


def test_a_pipe_by_the_kernels_name_does_not_block(cache, monkeypatch):
    os.mkfifo(cache / f"{name_of_kernel(monkeypatch)}-0000.so")
    assert again().handle is not None


@pytest.mark.parametrize(("compiler", "reason"), [
    ("'", "which is no command"),
    ("true", "ended well and made no file"),
    ("cat", "cat failed"),
    ("sh -c 'printf \"\\377 bad\" >&2; exit 1'", "bad"),
    ("/", "did not run"),
])  # fmt: skip
def test_a_compiler_that_is_none_is_a_reason(cache, monkeypatch, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    assert again().handle is None
    assert reason in library().reason


def test_a_compiler_that_makes_nonsense_is_a_reason(cache, monkeypatch):
    monkeypatch.setenv("CC", """sh -c 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"' sh""")
    with pytest.raises(building.NoKernelError, match="does not load"):
        library_module._built("baseline", torch.float32)


def test_a_compiler_that_makes_another_library_is_a_reason(cache, monkeypatch, tmp_path):
    script = """while [ "$1" != -o ]; do shift; done; echo 'int other;' | exec cc -shared -x c - -o "$2" """
    monkeypatch.setenv("CC", f"sh -c {shlex.quote(script)} sh")
    with pytest.raises(building.NoKernelError, match=r"made another library .*set CC to a C compiler"):
        library_module._built("baseline", torch.float32)


@pytest.mark.parametrize("given", [".", "kernels", "~/kernels"])
def test_a_cache_by_another_spelling(cache, loaded, monkeypatch, tmp_path, given):
    monkeypatch.setenv("VAN_CACHE", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(cache)
    for _ in range(2):
        assert again().handle is not None
    place = {".": cache, "kernels": cache / "kernels", "~/kernels": tmp_path / "kernels"}[given]
    assert set(loaded) == {place}
    assert calls(cache) == 1


def test_a_hanging_compiler_is_ended_with_its_children_and_remembered(cache, tmp_path, monkeypatch):
    script = tmp_path / "compiler"
    script.write_text(f"#!/bin/sh\necho . >> {tmp_path}/calls\nsleep 1000 &\necho $! > {tmp_path}/child\nwait\n")
    monkeypatch.setattr(building, "COMPILER_TIMEOUT_S", 1)
    with pytest.warns(VanNotice, match="there is no C kernel: .* did not end in 1 s"):
        assert again().handle is None
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "the compiler's child goes on"
    assert "did not end when it was tried last" in again().reason  # in another process too
    assert calls(cache) == 1
    (marker,) = cache.glob("*.hangs")
    assert str(marker) in library().reason
    marker.unlink()
    with pytest.warns(VanNotice, match="there is no C kernel"):
        again()
    assert calls(cache) == 2


@pytest.mark.parametrize("fault", ["a file", "no space", "no programs", "locked"])
def test_a_cache_that_cannot_be_used(cache, loaded, monkeypatch, fault):
    if fault == "a file":
        cache.rmdir()
        cache.touch()
    elif fault == "no space":
        make = tempfile.mkstemp

        def full(*arguments, **options):
            if options.get("dir") == cache:
                raise OSError(errno.ENOSPC, "No space left on device")
            return make(*arguments, **options)

        monkeypatch.setattr(building.tempfile, "mkstemp", full)
    elif fault == "no programs":
        load = library_module._load

        def refused(path):
            if path.parent == cache:
                raise OSError("failed to map segment from shared object")
            return load(path)

        monkeypatch.setattr(library_module, "_load", refused)
    else:
        name = name_of_kernel(monkeypatch)
        kept(cache).unlink()
        holder = (cache / f"{name}.lock").open("w")
        fcntl.flock(holder, fcntl.LOCK_EX)
        hours = iter(range(0, 10**6, 3600))
        monkeypatch.setattr(building.time, "monotonic", lambda: next(hours))
    with pytest.warns(VanNotice, match="compiled for this process alone"):
        found = again()
    assert found.handle is not None
    assert "set VAN_CACHE" in found.reason or fault == "no programs"


def test_a_user_without_a_home(cache, monkeypatch):
    monkeypatch.delenv("VAN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(VanNotice, match="no home folder; set VAN_CACHE"):
        assert again().handle is not None
