"""The index of image folders: the same list as without it, never an outdated one, never a broken one."""

import os
import warnings
from pathlib import Path

import pytest
from PIL import Image

from van.data import folder as folder_module
from van.data import index as index_module
from van.data import open_classification, read_folder
from van.errors import DataError, VanNotice


@pytest.fixture
def root(tmp_path):
    for name in ("b/1.png", "b/2.png", "b/deep/3.png", "a/1.jpg", "a/.hidden.png", "c/x.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    age(tmp_path / "data")
    return tmp_path / "data"


def age(root, seconds=60):
    """Make every folder look as if nothing had happened for a while."""
    for here, _, _ in os.walk(root):
        stamp = Path(here).stat().st_mtime - seconds
        os.utime(here, (stamp, stamp))


def listed(root, index):
    images = read_folder(root, index=index)
    return [str(path.relative_to(root)) for path in images.paths], images.labels, images.classes


@pytest.fixture
def scans(monkeypatch):
    """Names of the classes that are really listed."""
    seen = []
    files = folder_module._files
    monkeypatch.setattr(folder_module, "_files", lambda root, name: seen.append(name) or files(root, name))
    return seen


def test_index_saves_the_listing_and_changes_nothing(root, tmp_path, scans):
    plain = listed(root, None)
    assert plain == (["a/1.jpg", "b/1.png", "b/2.png", "b/deep/3.png", "c/x.png"], (0, 1, 1, 1, 2), ("a", "b", "c"))
    assert listed(root, tmp_path / "index") == plain
    scans.clear()
    assert listed(root, tmp_path / "index") == plain
    assert scans == []
    assert [path.suffix for path in (tmp_path / "index").iterdir()] == [".index"]


@pytest.mark.parametrize(
    ("change", "scanned"),
    [
        (lambda root: Image.new("RGB", (4, 4)).save(root / "b" / "0.png"), ["b"]),
        (lambda root: (root / "b" / "deep" / "3.png").unlink(), ["b"]),
        (lambda root: (root / "b" / "2.png").rename(root / "a" / "2.png"), ["a", "b"]),
        (lambda root: (root / "c" / "x.png").rename(root / "c" / "y.png"), ["c"]),
        (lambda root: (root / "c").rename(root / "d"), ["d"]),
    ],
)
def test_changes_are_seen(root, tmp_path, scans, change, scanned):
    listed(root, tmp_path / "index")
    scans.clear()
    change(root)
    assert listed(root, tmp_path / "index") == (fresh := listed(root, None))
    assert set(scans[: len(scanned)]) == set(scanned)
    age(root)
    listed(root, tmp_path / "index")
    scans.clear()
    assert listed(root, tmp_path / "index") == fresh
    assert scans == []


def test_fresh_folders_are_not_believed(root, tmp_path, scans):
    (root / "a").touch()  # as if a file had just come, and another may in the same tick
    listed(root, tmp_path / "index")
    scans.clear()
    listed(root, tmp_path / "index")
    assert scans == ["a"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3], lambda data: data.replace(b"1.png", b"7.png"), lambda _: b"{"]
)
def test_damaged_index_is_told_and_replaced(root, tmp_path, damage):
    plain = listed(root, tmp_path / "index")
    file = next((tmp_path / "index").iterdir())
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(VanNotice, match="is damaged"):
        assert listed(root, tmp_path / "index") == plain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert listed(root, tmp_path / "index") == plain


def test_index_is_written_whole_or_not_at_all(root, tmp_path, monkeypatch):
    listed(root, tmp_path / "index")
    before = next((tmp_path / "index").iterdir()).read_bytes()
    (root / "a" / "1.jpg").rename(root / "a" / "9.jpg")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(VanNotice, match="No space left on device"):
        assert listed(root, tmp_path / "index")[0][0] == "a/9.jpg"
    assert [path.read_bytes() for path in (tmp_path / "index").iterdir()] == [before]


def test_another_root_has_another_index(root, tmp_path):
    listed(root, tmp_path / "index")
    (root / "a").rename(tmp_path / "a")
    (tmp_path / "other").mkdir()
    (tmp_path / "a").rename(tmp_path / "other" / "a")
    listed(tmp_path / "other", tmp_path / "index")
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_odd_names_survive(root, tmp_path):
    names = ["line\nbreak.png", "tüte.png", os.fsdecode(b"\xff\xfe.png")]
    for name in names:
        Image.new("RGB", (4, 4)).save(root / "a" / "1.png")
        (root / "a" / "1.png").rename(root / "a" / name)
    age(root)
    first, again = listed(root, tmp_path / "index"), listed(root, tmp_path / "index")
    assert first == again
    assert {Path(path).name for path in first[0]} >= set(names)


def test_splits_share_the_table(root, tmp_path):
    for i in range(10):
        Image.new("RGB", (4, 4)).save(root / "a" / f"n{i}.png")
        Image.new("RGB", (4, 4)).save(root / "c" / f"n{i}.png")
    train, val = (open_classification(root, split, index=tmp_path / "index") for split in ("train", "val"))
    names = {train.name(i) for i in range(len(train))} | {val.name(i) for i in range(len(val))}
    assert len(names) == len(train) + len(val) == 25
    assert train.paths.names is not None
    assert str(train.paths[1:3][0]) == train.name(1)
    assert index_module.PathTable(root, []).names == b""


def test_chosen_classes_and_their_order(root):
    with pytest.warns(VanNotice, match=r"1 class folder.*e\.g\. b"):
        images = read_folder(root, classes=("c", "a"))
    assert [(path.parent.name, label) for path, label in zip(images.paths, images.labels, strict=True)] == [
        ("c", 0),
        ("a", 1),
    ]
    with pytest.raises(DataError, match="'z'"):
        read_folder(root, classes=("a", "z"))
