"""Digit scenes as objects and as panoptic segments, with the truth of the scene itself."""

import pickle

import numpy as np
import pytest

from van.data.object_data import open_objects, open_panoptic
from van.data.scenes import Scenes
from van.errors import ConfigError, DataError


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects_are_the_digits_of_the_scene(split):
    data, scenes = open_objects("scenes", split), Scenes(split)
    assert data.classes == tuple("0123456789") == data.categories.names
    assert (data.split, data.has_masks, len(data), len(data.palette)) == (split, True, len(scenes), 10)
    for index in range(20):
        image, objects = data.load(index)
        scene = scenes.scene(index)
        assert image.tobytes() == scene.image.tobytes()
        masks = objects.read_masks()
        assert masks.shape == (len(objects), *objects.size)
        for mask, box, label, area, digit in zip(
            masks, objects.boxes, objects.labels, objects.areas, scene.segments, strict=True
        ):
            assert (mask == (scene.instances == digit.id)).all()
            assert tuple(box) == digit.box
            assert (label, area) == (digit.label - 1, mask.sum())
        assert not objects.crowd.any()
        assert objects.image_id == data.image_id(index)


def test_ids_of_objects_are_unique_and_not_zero():
    data = open_objects("scenes", "val")
    ids = np.concatenate([data.load(index)[1].ids for index in range(40)])
    assert len(set(ids.tolist())) == len(ids)
    assert ids.min() > 0


def test_class_counts_are_those_of_all_scenes():
    data = open_objects("scenes", "val", scene_size=32)
    labels = np.concatenate([data.load(index)[1].labels for index in range(len(data))])
    assert list(data.class_counts()) == np.bincount(labels, minlength=10).tolist()


def test_panoptic_covers_every_pixel_and_things_come_first():
    data, scenes = open_panoptic("scenes", "val"), Scenes("val")
    assert (data.classes[-1], data.num_things, len(data.palette)) == ("background", 10, 11)
    assert data.categories.things == (True,) * 10 + (False,)
    for index in range(20):
        _, panoptic = data.load(index)
        semantic = scenes.scene(index).semantic
        assert panoptic.segment_ids.dtype == np.int32
        assert {each.id for each in panoptic.segments} == set(np.unique(panoptic.segment_ids).tolist())
        for each in panoptic.segments:
            pixels = panoptic.segment_ids == each.id
            assert pixels.sum() == each.area
            assert set(semantic[pixels].tolist()) == {0 if each.label == 10 else each.label + 1}


@pytest.mark.parametrize("opening", [open_objects, open_panoptic])
def test_options_reach_the_scenes(opening):
    assert opening("scenes", "val", scene_size=96).load(0)[0].size == (96, 96)
    first, other = (opening("scenes", "val", seed=seed).load(0)[0].tobytes() for seed in (0, 1))
    assert first != other
    with pytest.raises(ConfigError, match="split is 'test'"):
        opening("scenes", "test")
    with pytest.raises(DataError, match="empty path"):
        opening("", "val")


def test_objects_go_to_other_processes_with_their_masks():
    objects = open_objects("scenes").load(0)[1]
    again = pickle.loads(pickle.dumps(objects))
    assert np.array_equal(again.read_masks(), objects.read_masks())
    assert np.array_equal(again.boxes, objects.boxes)
    assert again.image_id == objects.image_id
    assert len(pickle.dumps(objects)) < 5000
