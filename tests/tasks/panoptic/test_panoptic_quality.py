"""Panoptic quality on images of a few pixels, worked out on paper by COCO's rule.

A map is drawn as text: a letter is a segment, "." is void.
"""

import math
import pickle

import numpy as np
import pytest

from van.data.objects import Panoptic, Segment
from van.errors import DataError
from van.tasks.panoptic.metric import PanopticMetric, Segmented

CLASSES, THINGS = ("cat", "dog", "grass"), (True, True, False)
CAT, DOG, GRASS = range(3)


def ids_of(rows: str) -> np.ndarray:
    lines = rows.split()
    return np.array([[0 if letter == "." else ord(letter) for letter in line] for line in lines], np.int32)


def truth(rows: str, image_id=1, **labels) -> Panoptic:
    """labels: letter -> class, or (class, "crowd")."""
    ids, segments = ids_of(rows), []
    for letter, label in labels.items():
        crowd = isinstance(label, tuple)
        area = int((ids == ord(letter)).sum())
        segments.append(Segment(id=ord(letter), label=label[0] if crowd else label, area=area, crowd=crowd))
    return Panoptic(image_id=image_id, segment_ids=ids, segments=tuple(segments))


def found(rows: str, **labels) -> Segmented:
    ids, numbers = ids_of(rows), np.zeros(128, np.int32)
    for number, letter in enumerate(labels, start=1):
        numbers[ord(letter)] = number
    return Segmented(segment_ids=numbers[ids], labels=tuple(labels.values()), scores=(1.0,) * len(labels))


def counted(*pairs, **options) -> PanopticMetric:
    metric = PanopticMetric(CLASSES, THINGS, **options)
    for i, (one, other) in enumerate(pairs):
        metric.update([other], [one], [f"image {i}"])
    return metric


def row(metric, label):
    return {name: metric.table()[label][name] for name in ("matched", "wrong", "missed")}


def test_a_perfect_prediction():
    scores = counted((truth("aagg aagg", a=CAT, g=GRASS), found("xxyy xxyy", x=CAT, y=GRASS))).compute()
    assert scores["PQ"] == scores["SQ"] == scores["RQ"] == scores["PQ_things"] == scores["PQ_stuff"] == 1


def test_matches_misses_and_wrong_segments():
    """Cat: 6 of 8 pixels (IoU 3/4) and one missed. Dog: one wrong. Grass: 8 of 12."""
    metric = counted(
        (
            truth("aaaagggg aaaaggbb", a=CAT, b=CAT, g=GRASS),
            found("xxxyyyyy xxxyyydd", x=CAT, y=GRASS, d=DOG),
        )
    )
    assert [row(metric, label) for label in (CAT, DOG, GRASS)] == [
        {"matched": 1, "wrong": 0, "missed": 1},
        {"matched": 0, "wrong": 1, "missed": 0},
        {"matched": 1, "wrong": 0, "missed": 0},
    ]
    cat, dog, grass = (metric.table()[label] for label in (CAT, DOG, GRASS))
    assert (cat["SQ"], cat["RQ"], cat["PQ"]) == pytest.approx((3 / 4, 2 / 3, 1 / 2))
    assert (dog["SQ"], dog["RQ"], dog["PQ"]) == (0, 0, 0)
    assert (grass["SQ"], grass["RQ"], grass["PQ"]) == pytest.approx((6 / 8, 1, 6 / 8))
    scores = metric.compute()
    assert scores["PQ"] == pytest.approx((1 / 2 + 0 + 6 / 8) / 3)
    assert scores["PQ_things"] == pytest.approx(1 / 4)
    assert scores["SQ_stuff"] == pytest.approx(6 / 8)


def test_half_is_no_match():
    """2 of 4 pixels: IoU exactly 1/2."""
    metric = counted((truth("aaaagggg", a=CAT, g=GRASS), found("xxyyyyyy", x=CAT, y=GRASS)))
    assert row(metric, CAT) == {"matched": 0, "wrong": 1, "missed": 1}
    assert row(metric, GRASS) == {"matched": 1, "wrong": 0, "missed": 0}


def test_void_pixels_are_taken_from_the_union():
    """2 shared pixels, 2 of the prediction on void: IoU 2/2, where it would be 2/4."""
    metric = counted((truth("aa..gggg", a=CAT, g=GRASS), found("xxxxyyyy", x=CAT, y=GRASS)))
    assert metric.table()[CAT]["PQ"] == 1


def test_a_segment_mostly_in_void_is_not_wrong():
    """3 of 5 pixels in void: not counted; 1 of 2 is not more than half: wrong."""
    metric = counted((truth("...ggg.gg", g=GRASS), found("xxxxxyzzy", x=CAT, z=DOG, y=GRASS)))
    assert row(metric, CAT) == {"matched": 0, "wrong": 0, "missed": 0}
    assert row(metric, DOG) == {"matched": 0, "wrong": 1, "missed": 0}
    assert math.isnan(metric.table()[CAT]["PQ"])  # neither in truth nor counted: left out of the mean


def test_a_crowd_is_neither_missed_nor_matched():
    metric = counted((truth("ccccgg", c=(CAT, "crowd"), g=GRASS), found("yyyyyy", y=GRASS)))
    assert row(metric, CAT) == {"matched": 0, "wrong": 0, "missed": 0}
    assert row(metric, GRASS) == {"matched": 0, "wrong": 1, "missed": 1}


def test_a_segment_mostly_in_the_crowd_of_its_class_is_not_wrong():
    """Two cats in a crowd of cats: not counted, though they cover it; a dog there is wrong."""
    metric = counted(
        (truth("ccccccgg", c=(CAT, "crowd"), g=GRASS), found("xxxuddyy", x=CAT, u=CAT, d=DOG, y=GRASS)),
    )
    assert row(metric, CAT) == {"matched": 0, "wrong": 0, "missed": 0}
    assert row(metric, DOG) == {"matched": 0, "wrong": 1, "missed": 0}
    assert row(metric, GRASS) == {"matched": 1, "wrong": 0, "missed": 0}


def test_void_and_crowd_together_excuse_a_segment():
    """2 pixels in void and 1 in the crowd of 5: together more than half."""
    metric = counted((truth("..cgg", c=(CAT, "crowd"), g=GRASS), found("xxxxx", x=CAT)))
    assert row(metric, CAT) == {"matched": 0, "wrong": 0, "missed": 0}


def test_another_class_is_no_match():
    metric = counted((truth("aaaa", a=CAT), found("xxxx", x=DOG)))
    assert row(metric, CAT) == {"matched": 0, "wrong": 0, "missed": 1}
    assert row(metric, DOG) == {"matched": 0, "wrong": 1, "missed": 0}


def test_segments_of_different_images_may_share_their_ids():
    one = truth("aagg", 1, a=CAT, g=GRASS), found("xxyy", x=CAT, y=GRASS)
    two = truth("aagg", 2, a=DOG, g=GRASS), found("yyyy", y=GRASS)
    metric = counted(one, two)
    assert row(metric, CAT) == {"matched": 1, "wrong": 0, "missed": 0}
    assert row(metric, DOG) == {"matched": 0, "wrong": 0, "missed": 1}


def test_a_predicted_segment_without_pixels_is_none():
    metric = counted((truth("aa", a=CAT), found("xx", x=CAT, z=DOG)))
    assert row(metric, DOG) == {"matched": 0, "wrong": 0, "missed": 0}


def test_nothing_predicted_and_nothing_there():
    scores = counted((truth("..."), found("..."))).compute()
    assert all(math.isnan(value) for value in scores.values())
    assert counted((truth("aa", a=CAT), found(".."))).compute()["PQ"] == 0


def test_parts_in_any_order_make_the_scores_of_the_whole():
    draw = np.random.default_rng(0)
    pairs = []
    for _ in range(30):
        labels = {letter: int(draw.integers(3)) for letter in "abcd"}
        rows = "".join(draw.choice([*"abcd."], 60, p=[0.4, 0.3, 0.1, 0.1, 0.1]))
        guess = "".join(letter if draw.uniform() < 0.8 else str(draw.choice([*"abcd"])) for letter in rows)
        pairs.append((truth(rows, **labels), found(guess, **labels)))
    whole = counted(*pairs).compute()
    parts = [pickle.loads(pickle.dumps(counted(*pairs[start::3]))) for start in (2, 0, 1)]
    assert (parts[0] + parts[1] + parts[2]).compute() == whole
    assert 0.1 < whole["PQ"] < 0.9


def test_classes_of_the_model_are_moved_to_those_of_the_data():
    metric = counted((truth("aa", a=DOG), found("xx", x=CAT)), order=(1, 0, 2))
    assert metric.table()[DOG]["PQ"] == 1


def test_a_map_of_another_size_is_refused():
    with pytest.raises(DataError, match="image 0: the image has 1 x 3 pixels"):
        counted((truth("aa", a=CAT), found("xxx", x=CAT)))


def test_a_segment_without_an_entry_is_refused():
    with pytest.raises(DataError, match="its map holds segment 98, which its list of segments lacks"):
        counted((truth("aab", a=CAT), found("xxx", x=CAT)))
