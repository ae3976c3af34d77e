"""Digit scenes: exact truth, fixed by (seed, split, index), and hard for whoever looks at single pixels."""

import numpy as np
import pytest
from PIL import Image

from van.data.digits import Digits
from van.data.scenes import MAX_HIDDEN, Scenes, pixel_baseline_miou
from van.data.segmentation import open_segmentation
from van.errors import ConfigError


def same(one, other):
    return (
        one.image.tobytes() == other.image.tobytes()
        and (one.semantic == other.semantic).all()
        and (one.instances == other.instances).all()
        and one.segments == other.segments
    )


def test_scenes_are_segmentation_data():
    data = open_segmentation("scenes", "val")
    image, labels = data.load(3)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    assert labels.shape == (64, 64)
    assert labels.dtype == np.uint8
    assert data.classes == ("background", *"0123456789")
    assert len(set(data.palette)) == 11
    assert (len(data), len(open_segmentation("scenes", "train"))) == (400, 4000)
    assert data.name(3) == "scenes/val/3"
    assert open_segmentation("scenes", "val", scene_size=96).load(0)[0].size == (96, 96)


def test_a_scene_depends_on_seed_split_and_index_alone():
    data = Scenes("train")
    scene = data.scene(7)
    data.scene(8)
    assert same(scene, data.scene(7))
    assert same(scene, Scenes("train", count=10, cache=True).scene(7))
    assert not same(scene, data.scene(8))
    assert not same(scene, Scenes("train", seed=1).scene(7))
    other = Scenes("val").scene(7)
    ground = (scene.semantic == 0) & (other.semantic == 0)  # nor do the parts share their clutter
    assert np.abs(np.asarray(scene.image, int) - np.asarray(other.image, int))[ground].mean() > 10


def test_cache_keeps_the_object():
    data = Scenes("val", cache=True)
    assert data.scene(0) is data.scene(0)


def test_the_parts_draw_from_disjoint_digits(monkeypatch):
    """Every digit that is stamped comes from its own part of the classification data set."""
    import van.data.scenes as module

    used = []
    stamp = module._stamp
    monkeypatch.setattr(
        module, "_stamp", lambda scan, *rest: used.append(scan[2:-2, 2:-2].tobytes()) or stamp(scan, *rest)
    )
    for split, other in (("train", "val"), ("val", "train")):
        own, foreign = ({scan.tobytes() for scan in Digits(name).pixels} for name in (split, other))
        used.clear()
        data = Scenes(split)
        for index in range(30):
            data.scene(index)
        assert len(set(used)) > 25
        assert set(used) <= own
        assert not set(used) & foreign


@pytest.mark.parametrize("split", ["train", "val"])
def test_truth_is_consistent(split):
    data = Scenes(split)
    counts, labels = set(), set()
    for index in range(60):
        scene = data.scene(index)
        assert scene.instances.max() == len(scene.segments)
        counts.add(len(scene.segments))
        covered = np.zeros_like(scene.semantic, bool)
        for number, segment in enumerate(scene.segments, 1):
            region = scene.instances == segment.id
            assert segment.id == number
            assert (scene.semantic[region] == segment.label).all()
            assert segment.area == region.sum() > 20
            left, top, right, bottom = segment.box
            assert region[top:bottom, left:right].sum() == segment.area
            assert region[top].any()
            assert region[bottom - 1].any()
            assert region[:, left].any()
            assert region[:, right - 1].any()
            covered |= region
            labels.add(segment.label)
        assert (scene.semantic[~covered] == 0).all()
    assert counts == {1, 2, 3}
    assert labels == set(range(1, 11))


def test_pixels_and_truth_coincide():
    """Inside its contour a digit has one colour; across the contour the colour changes."""
    data = Scenes("val")
    inside, outside = [], []
    for index in range(40):
        scene = data.scene(index)
        pixels = np.asarray(scene.image, np.float64)
        for segment in scene.segments:
            region = scene.instances == segment.id
            core = eroded(eroded(region))
            around = ~eroded(~region) & ~region & (scene.instances == 0)
            if core.sum() < 12 or around.sum() < 12:
                continue
            color = np.median(pixels[core], axis=0)
            inside.append(np.abs(np.median(pixels[core] - color, axis=0)).mean())
            inside.append(np.abs(pixels[core] - color).mean())
            outside.append(np.linalg.norm(np.median(pixels[around], axis=0) - color))
    assert np.max(inside) < 12  # noise alone
    assert np.median(outside) > 50


def eroded(region):
    out = region.copy()
    out[1:] &= region[:-1]
    out[:-1] &= region[1:]
    out[:, 1:] &= region[:, :-1]
    out[:, :-1] &= region[:, 1:]
    return out


def test_the_upper_digit_owns_the_overlap_and_hides_little(monkeypatch):
    import van.data.scenes as module

    stamps, kept = [], []
    stamp, place = module._stamp, module.Scenes._place

    def recording(*arguments):
        stamps.append(stamp(*arguments))
        return stamps[-1]

    def keeping(*arguments):
        ink = place(*arguments)
        if ink is not None:
            kept.append(ink >= 0.5)
        return ink

    monkeypatch.setattr(module, "_stamp", recording)
    monkeypatch.setattr(module.Scenes, "_place", keeping)
    data, overlaps = Scenes("train"), 0
    for index in range(40):
        kept.clear()
        scene = data.scene(index)
        expected = np.zeros_like(scene.instances)
        for number, mask in enumerate(kept, 1):
            overlaps += int((expected[mask] > 0).any())
            expected[mask] = number
        assert (scene.instances == expected).all()
        for segment, mask in zip(scene.segments, kept, strict=True):
            assert segment.area >= (1 - MAX_HIDDEN) * mask.sum()
    assert overlaps > 3


def test_single_pixels_say_little():
    score = pixel_baseline_miou(Scenes("train"), Scenes("val"), limit=120)
    assert 0.05 < score < 0.15


def test_the_pixel_baseline_finds_what_colours_can_tell():
    class Colored(Scenes):
        def load(self, index):
            _, labels = super().load(index)
            return Image.fromarray(np.asarray(self.palette, np.uint8)[labels]), labels

    assert pixel_baseline_miou(Colored("train"), Colored("val"), limit=60) == 1.0


@pytest.mark.parametrize("options", [{"size": 8}, {"size": 5000}, {"count": 0}, {"split": "test"}])
def test_impossible_scenes(options):
    with pytest.raises(ConfigError):
        Scenes(**options)


def test_index_outside():
    with pytest.raises(IndexError):
        Scenes("val", count=3).scene(3)
