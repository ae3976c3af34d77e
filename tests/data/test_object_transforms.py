"""Augmentation of images with objects: pixels, boxes and masks move together, by the given generator alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from van.data.object_steps import (
    FixedCrop,
    Flip,
    OneOf,
    OverlapCrop,
    Photometric,
    RandomSizeCrop,
    ScaleJitter,
    ShortSide,
    Stretch,
    ZoomOut,
)
from van.data.object_transforms import ObjectTransform, boxes_around
from van.data.objects import Objects, Panoptic, Segment
from van.errors import ConfigError, DataError

pytest.importorskip("torchvision")

H, W = 40, 60
COLORS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))
BOXES = ((4, 6, 20, 26), (30, 10, 50, 34), (24, 2, 28, 6))
# of images that are not normalised: pixels can be read off
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
EVERY_STEP = (
    Flip(probability=0.7),
    ShortSide(sides=(24, 48), longest=70),
    ScaleJitter(size=(40, 50), scale=(0.5, 2.0)),
    FixedCrop(size=(30, 30)),
    RandomSizeCrop(smallest=12, largest=36),
    OverlapCrop(probability=0.9),
    ZoomOut(probability=0.9, most=2.0),
    Stretch(sides=(32, 48)),
    OneOf(choices=((Flip(probability=1.0),), (Stretch(sides=(20,)), FixedCrop(size=(16, 16))))),
)


def scene(crowd=()):
    """An image with three rectangles, each of a colour of its own."""
    pixels, masks = np.zeros((H, W, 3), np.uint8), np.zeros((3, H, W), np.uint8)
    for color, (left, top, right, bottom), mask in zip(COLORS, BOXES, masks, strict=True):
        pixels[top:bottom, left:right], mask[top:bottom, left:right] = color, 1
    return Image.fromarray(pixels), Objects(
        size=(H, W),
        image_id=7,
        boxes=np.array(BOXES, np.float32),
        labels=np.array([2, 0, 1]),
        areas=masks.sum((1, 2)).astype(np.float32),
        crowd=np.isin(np.arange(3), crowd),
        ids=np.arange(3),
        read_masks=lambda: masks,
    )


def segments(crowd=()):
    """The same scene as panoptic segments: stuff 3 on the left half, void on the right."""
    image, objects = scene()
    map_ = np.zeros((H, W), np.int32)
    map_[:, :30] = 9
    for place, mask in enumerate(objects.read_masks()):
        map_[mask == 1] = 70_000 + place
    labels = {9: 3, 70_000: 2, 70_001: 0, 70_002: 1}
    found = (
        Segment(id=id_, label=label, area=int((map_ == id_).sum()), crowd=id_ in crowd) for id_, label in labels.items()
    )
    return image, Panoptic(image_id=7, segment_ids=map_, segments=tuple(found))


def rng(seed=0):
    return np.random.default_rng(seed)


def color_of(label):
    return COLORS[(2, 0, 1).index(label)]


@pytest.mark.parametrize("step", EVERY_STEP, ids=lambda step: type(step).__name__)
def test_boxes_and_masks_follow_the_pixels(step):
    image, objects = scene()
    transform, found = ObjectTransform(**PLAIN, steps=(step,), masks=True), 0
    for seed in range(30):
        pixels, target = transform(image, objects, rng(seed))
        assert target["size"] == tuple(pixels.shape[1:]) == tuple(target["masks"].shape[1:])
        for label, box, mask in zip(target["labels"], target["boxes"], target["masks"], strict=True):
            channel = color_of(int(label)).index(250)
            shown = pixels[channel] > 0.5  # (h, w)
            assert (shown != mask.bool()).float().mean() < 0.03  # borders, where images shrink
            assert (box - boxes_around(shown[None].byte())[0]).abs().max() <= 1.01
            found += 1
    assert found > 30


@pytest.mark.parametrize(
    "step",
    [step for step in EVERY_STEP if not isinstance(step, OverlapCrop)],
    ids=lambda step: type(step).__name__,
)
def test_segments_follow_the_pixels(step):
    image, panoptic = segments()
    transform = ObjectTransform(**PLAIN, steps=(step,), masks=True)
    for seed in range(20):
        pixels, target = transform.panoptic(image, panoptic, rng(seed))
        assert int(target["masks"].sum(0).max()) <= 1
        for label, box, mask in zip(target["labels"], target["boxes"], target["masks"], strict=True):
            assert mask.any()
            assert box.tolist() == boxes_around(mask[None])[0].tolist()
            if label != 3:
                shown = pixels[color_of(int(label)).index(250)] > 0.5
                assert (shown != mask.bool()).float().mean() < 0.03


def test_the_generator_decides_and_global_ones_are_left_alone():
    image, objects = scene()
    transform = ObjectTransform(steps=(*EVERY_STEP, Photometric()), masks=True)
    torch.manual_seed(0)
    np.random.seed(0)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (transform(image, objects, rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


def test_images_are_normalised_and_padded_with_the_mean_colour():
    image, objects = scene()
    transform = ObjectTransform(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), pad_to=(48, 64), masks=True)
    pixels, target = transform(image, objects, rng())
    assert pixels.dtype == torch.float32
    assert tuple(pixels.shape) == (3, 48, 64)
    assert target["size"] == (H, W)
    assert tuple(target["masks"].shape) == (3, 48, 64)
    assert not pixels[:, H:].any()
    assert not pixels[:, :, W:].any()
    expected = (np.asarray(image)[0, 0] / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.2, 0.1)
    assert pixels[:, 0, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_one_channel_is_gray():
    image, objects = scene()
    pixels, _ = ObjectTransform(mean=(0.5,), std=(0.5,), steps=(Photometric(),))(image, objects, rng())
    assert tuple(pixels.shape) == (1, H, W)


def test_crowds_are_no_targets():
    image, objects = scene(crowd=[1])
    _, target = ObjectTransform(masks=True)(image, objects, rng())
    assert target["labels"].tolist() == [2, 1]
    assert len(target["boxes"]) == len(target["masks"]) == 2
    _, target = ObjectTransform(masks=True).panoptic(*segments(crowd=[70_001]), rng())
    assert target["labels"].tolist() == [3, 2, 1]


def test_void_belongs_to_no_segment():
    image, panoptic = segments()
    _, target = ObjectTransform(masks=True).panoptic(image, panoptic, rng())
    assert torch.equal(target["masks"].sum(0) == 0, torch.from_numpy(panoptic.segment_ids == 0))


def test_boxes_around_cut_masks_and_as_annotated_otherwise():
    image, objects = scene()
    loose = np.array(BOXES, np.float32) + np.array([-1.5, -1.5, 2.25, 1.5], np.float32)
    objects = Objects(**{**vars(objects), "boxes": loose})
    _, target = ObjectTransform(masks=True, steps=(Flip(probability=0),))(image, objects, rng())
    assert target["boxes"].tolist() == loose.tolist()
    _, target = ObjectTransform(masks=True, steps=(FixedCrop(size=(H - 1, W - 1)),))(image, objects, rng())
    assert torch.equal(target["boxes"], boxes_around(target["masks"]))


def test_boxes_end_at_the_image_and_small_ones_are_dropped():
    image, objects = scene()
    wild = np.array([(-5, -5, 10, 10), (50, 30, 90, 90), (3, 3, 3.5, 20)], np.float32)
    objects = Objects(**{**vars(objects), "boxes": wild})
    _, target = ObjectTransform()(image, objects, rng())
    assert target["boxes"].tolist() == [[0, 0, 10, 10], [50, 30, W, H]]
    assert target["labels"].tolist() == [2, 0]
    assert len(ObjectTransform(least_side=0)(image, objects, rng())[1]["boxes"]) == 3


def test_images_without_objects_pass_every_step():
    image, objects = scene()
    none = np.zeros(0, bool)
    objects = Objects(
        size=(H, W),
        image_id=1,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        areas=np.zeros(0, np.float32),
        crowd=none,
        ids=np.zeros(0, np.int64),
        read_masks=lambda: np.zeros((0, H, W), np.uint8),
    )
    pixels, target = ObjectTransform(steps=(*EVERY_STEP, Photometric()), masks=True)(image, objects, rng())
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, *pixels.shape[1:])


def test_sizes_are_those_asked_for():
    image, objects = scene()

    def size(*steps, seed=0):
        return ObjectTransform(steps=steps)(image, objects, rng(seed))[1]["size"]

    assert size(ShortSide(sides=(80,), longest=None)) == (80, 120)
    assert size(ShortSide(sides=(80,), longest=90)) == (60, 90)
    assert {size(ShortSide(sides=(20, 30), longest=None), seed=seed)[0] for seed in range(20)} == {20, 30}
    assert size(Stretch(sides=(33,))) == (33, 33)
    assert size(ScaleJitter(size=(80, 80), scale=(1.0, 1.0))) == (53, 80)
    assert size(FixedCrop(size=(30, 100))) == (30, W)
    heights = {size(RandomSizeCrop(smallest=10, largest=50), seed=seed)[0] for seed in range(60)}
    assert (min(heights) >= 10, max(heights) <= H, len(heights) > 10) == (True, True, True)


def test_what_cannot_work_is_refused():
    image, objects = scene()
    with pytest.raises(DataError, match=r"40 x 60 pixels .* more than pad_to, 30 x 30; crop"):
        ObjectTransform(pad_to=(30, 30))(image, objects, rng())
    boxes_only = Objects(**{**vars(objects), "read_masks": None})
    with pytest.raises(DataError, match="image 7 have no masks"):
        ObjectTransform(masks=True)(image, boxes_only, rng())
    with pytest.raises(ConfigError, match="which a map of segments has not; use FixedCrop"):
        ObjectTransform(steps=(OverlapCrop(probability=0),)).panoptic(*segments(), rng())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flip(probability=1.5),
        lambda: Photometric(probability=-0.1),
        lambda: ShortSide(sides=()),
        lambda: ShortSide(sides=(800,), longest=700),
        lambda: ScaleJitter(scale=(0.0, 1.0)),
        lambda: ScaleJitter(size=(0, 5)),
        lambda: Stretch(sides=(0,)),
        lambda: FixedCrop(size=(5,)),
        lambda: RandomSizeCrop(smallest=9, largest=8),
        lambda: OverlapCrop(scale=(0.3, 1.2)),
        lambda: ZoomOut(most=0.5),
        lambda: ZoomOut(fill=(255,)),
        lambda: OneOf(choices=((Flip(),),)),
        lambda: ObjectTransform(mean=(0.5, 0.5), std=(1.0, 1.0)),
        lambda: ObjectTransform(std=(0.0, 1.0, 1.0)),
        lambda: ObjectTransform(pad_to=(0, 4)),
        lambda: ObjectTransform(least_side=-1),
    ],
)
def test_options_that_cannot_work_are_refused(make):
    with pytest.raises(ConfigError, match=r"expected|give both"):
        make()


def test_crops_by_overlap_keep_objects_by_their_centre():
    image, objects = scene()
    transform, shares = ObjectTransform(**PLAIN, steps=(OverlapCrop(probability=1.0),), masks=True), []
    for seed in range(60):
        target = transform(image, objects, rng(seed))[1]
        areas = dict(zip(objects.labels.tolist(), objects.areas.tolist(), strict=True))
        shares += [
            int(mask.sum()) / areas[label]
            for label, mask in zip(target["labels"].tolist(), target["masks"], strict=True)
        ]
    assert min(shares) >= 0.25  # of a box whose centre is in the part
    assert min(shares) < 1
