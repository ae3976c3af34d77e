"""The scenes as a COCO folder: the same truth when read back, by us and by pycocotools; whole or not there."""

import json

import numpy as np
import pytest
from PIL import Image

from van.data import scene_files
from van.data.object_data import open_objects, open_panoptic
from van.data.scene_files import write_scenes
from van.errors import ConfigError

COUNTS = {"train": 5, "val": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("written") / "scenes", counts=COUNTS, size=48)


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects_are_read_back(folder, split):
    made, read = open_objects("scenes", split, scene_size=48), open_objects(folder, split, need_masks=True)
    assert len(read) == COUNTS[split]
    assert (read.classes, read.categories, read.palette) == (made.classes, made.categories, made.palette)
    for index in range(len(read)):
        (image, objects), (image_, objects_) = made.load(index), read.load(index)
        assert image.tobytes() == image_.tobytes()
        assert (objects.size, objects.image_id) == (objects_.size, objects_.image_id)
        for name in ("boxes", "labels", "areas", "crowd", "ids"):
            one, other = getattr(objects, name), getattr(objects_, name)
            assert one.dtype == other.dtype
            assert (one == other).all()
        assert (objects.read_masks() == objects_.read_masks()).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_segments_are_read_back(folder, split):
    made, read = open_panoptic("scenes", split, scene_size=48), open_panoptic(folder, split)
    assert len(read) == COUNTS[split]
    assert (read.classes, read.categories, read.palette) == (made.classes, made.categories, made.palette)
    for index in range(len(read)):
        (image, panoptic), (image_, panoptic_) = made.load(index), read.load(index)
        assert image.tobytes() == image_.tobytes()
        assert (panoptic.segment_ids == panoptic_.segment_ids).all()
        assert (panoptic.segments, panoptic.image_id) == (panoptic_.segments, panoptic_.image_id)


def test_other_tools_read_them(folder):
    from pycocotools.coco import COCO

    reference = COCO(str(folder / "annotations/instances_train2017.json"))
    data = open_objects("scenes", "train", scene_size=48)
    _, objects = data.load(2)
    found = reference.imgToAnns[objects.image_id]
    assert (np.stack([reference.annToMask(each) for each in found]) == objects.read_masks()).all()
    with Image.open(folder / "train2017" / reference.imgs[objects.image_id]["file_name"]) as image:
        assert image.size == (48, 48)
    for each in json.loads((folder / "annotations/panoptic_val2017.json").read_text())["annotations"]:
        assert (folder / "annotations/panoptic_val2017" / each["file_name"]).is_file()


def test_an_empty_folder_is_filled_and_any_other_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_scenes(tmp_path / "empty", counts={"train": 1, "val": 1}, size=32)
    assert (tmp_path / "empty/annotations").is_dir()
    with pytest.raises(ConfigError, match="is not empty; name a new folder"):
        write_scenes(tmp_path / "empty", counts=COUNTS)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is no folder"):
        write_scenes(tmp_path / "file", counts=COUNTS)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot write"):
        write_scenes(tmp_path / "no/such/place", counts=COUNTS)
    with pytest.raises(ConfigError, match="empty path"):
        write_scenes("", counts=COUNTS)
    with pytest.raises(ConfigError, match="a scene of 8 pixels"):
        write_scenes(tmp_path / "small", size=8)


def test_nothing_is_there_when_writing_is_interrupted(tmp_path, monkeypatch):
    def interrupted(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", counts=COUNTS, size=32, progress=interrupted)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(scene_files.json, "dumps", lambda value: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(ConfigError, match=r"cannot write .*scenes: No space left"):
        write_scenes(tmp_path / "scenes", counts=COUNTS, size=32)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_has_its_name_only_once_it_is_whole(tmp_path):
    seen = []
    write_scenes(
        tmp_path / "scenes",
        counts=COUNTS,
        size=32,
        progress=lambda done, total: seen.append((done, total, (tmp_path / "scenes").exists())),
    )
    assert seen == [(done, 8, False) for done in range(1, 9)]
    assert (tmp_path / "scenes").stat().st_mode & 0o777 == (tmp_path / "scenes/train2017").stat().st_mode & 0o777
