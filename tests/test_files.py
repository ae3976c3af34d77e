"""The one way in which files are written: whole or not at all."""

import os
import re
from pathlib import Path

import pytest

from van.errors import CheckpointError, ConfigError
from van.files import atomic_output, atomic_outputs, is_temporary, write_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask():
    """022, as most systems have it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("content", ["café\udce9\n", b"\0\xff"])
def test_write_file(tmp_path, content):
    write_file(tmp_path / "a", "old")
    write_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == (content if isinstance(content, bytes) else b"caf\xc3\xa9\xe9\n")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, interruption):
    def half(path):
        path.write_text("half")
        assert (tmp_path / "a").read_text() == "old"
        raise interruption

    write_file(tmp_path / "a", "old")
    with pytest.raises((KeyboardInterrupt, ConfigError)), atomic_output(tmp_path / "a") as temporary:
        half(temporary)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ConfigError, CheckpointError, None])
def test_errors_name_the_file(tmp_path, error):
    for path, reason in ((tmp_path, "a folder is there"), (tmp_path / "gone" / "a", "No such file or directory")):
        with pytest.raises(error or OSError, match=f"{re.escape(str(path)) if error else ''}.*{reason}"):
            write_file(path, "x", error=error)
    assert names(tmp_path) == []


def test_links(tmp_path):
    (tmp_path / "real").write_text("old")
    for name, follow in (("followed", True), ("replaced", False)):
        (tmp_path / name).symlink_to(tmp_path / "real")
        write_file(tmp_path / name, name, follow_links=follow)
        assert (tmp_path / name).is_symlink() is follow
        assert (tmp_path / name).read_text() == name
    assert (tmp_path / "real").read_text() == "followed"


def test_the_longest_names(tmp_path):
    for name in ("x" * 255, "é" * 127):
        write_file(tmp_path / name, "x")
        with atomic_outputs(tmp_path / name) as (file,):
            file.write_text("y")
        assert (tmp_path / name).read_text() == "y"


def test_permissions(tmp_path, umask):
    write_file(tmp_path / "shared", "x")
    with atomic_output(tmp_path / "private", mode=0o600) as temporary:
        temporary.write_text("x")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("shared", "private")] == [0o644, 0o600]


def test_a_backup_is_kept_only_once_the_new_file_is_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(names(tmp_path)))
    for content in ("one", "two"):
        with atomic_output(tmp_path / "a", fsync=True, backup="b") as temporary:
            temporary.write_text(content)
    assert [("b" in there) for there in synced] == [False, False]
    assert [(tmp_path / name).read_text() for name in names(tmp_path)] == ["two", "one"]


def test_several_files_are_moved_in_order_or_not_at_all(tmp_path, monkeypatch):
    def write(files, *, fail=False):
        for file in files:
            file.write_text(file.name)
        assert names(tmp_path / "out") == [files[0].parent.name]
        if fail:
            raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    targets = [tmp_path / "out" / name for name in ("m.bin", "m.xml")]
    with pytest.raises(KeyboardInterrupt), atomic_outputs(*targets) as files:
        write(files, fail=True)
    assert names(tmp_path / "out") == []
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: moved.append(target) or replace(path, target))
    with atomic_outputs(*targets) as files:
        write(files)
    assert moved == targets
    assert names(tmp_path / "out") == ["m.bin", "m.xml"]


def test_what_a_killed_process_leaves_is_known_by_its_name(tmp_path):
    with atomic_output(tmp_path / "last.ckpt") as temporary:
        assert is_temporary(temporary, "best", r"last\.ckpt")
        assert not is_temporary(temporary, "best", "ckpt")
        assert not is_temporary(tmp_path / "last.ckpt", r"last\.ckpt")
