"""What counts as missed and as wrong in the worst images of a report."""

from made_objects import made_found, made_objects

from van.tasks.coco.mistakes import mistakes


def found_in(truth, boxes, labels, scores):
    found = made_found(boxes, labels, scores)
    return mistakes(found, found.labels, truth)


def test_right_missed_and_wrong():
    truth = made_objects(1, [[0, 0, 40, 40], [80, 40, 120, 80], [100, 100, 140, 140]], [0, 1, 2])
    found = found_in(truth, [[2, 0, 40, 40], [80, 40, 120, 80], [10, 100, 30, 120]], [0, 2, 1], [0.9, 0.8, 0.7])
    assert (found.missed, found.wrong, found.right, found.count) == ((1, 2), (1, 2), 1, 4)


def test_an_object_is_found_once():
    truth = made_objects(1, [[0, 0, 40, 40]], [0])
    assert found_in(truth, [[0, 0, 40, 40], [1, 0, 40, 40]], [0, 0], [0.6, 0.9]).wrong == (1,)


def test_what_lies_in_a_crowd_of_its_class_is_not_wrong():
    truth = made_objects(1, [[0, 0, 100, 100]], [0], crowd=[True])
    found = found_in(truth, [[0, 0, 20, 20], [30, 30, 50, 50], [95, 0, 150, 50]], [0, 1, 0], [0.9, 0.8, 0.7])
    assert (found.missed, found.wrong, found.right) == ((), (1, 2), 0)


def test_nothing_anywhere():
    empty = made_objects(1, [], [])
    assert found_in(empty, [], [], []).count == 0
    assert found_in(empty, [[0, 0, 9, 9]], [0], [0.5]).wrong == (0,)
    assert found_in(made_objects(1, [[0, 0, 9, 9]], [0]), [], [], []).missed == (0,)
