"""The losses of D-FINE: matched and computed as defined, part by part as transformers', the same over processes."""

import pytest
import torch

pytest.importorskip("scipy")

from gloo import over_two_processes
from tiny_dfine import images, targets, tiny_dfine

from van.nn.detection.boxes import overlap, to_centers, to_corners
from van.nn.detection.dfine_losses import WEIGHTS, Noisy, Offsets, Pairs, Predictions, Truth, dfine_losses, match

BINS = 8
OFFSETS = Offsets(values=torch.tensor([-4.0, -1.5, -0.7, -0.3, 0, 0.3, 0.7, 1.5, 4.0]), scale=4.0)


def predictions(layers=3, others=2, count=2, queries=6, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape):
        center = torch.rand(*shape, 2, generator=generator) * 0.6 + 0.2
        return torch.cat([center, torch.rand(*shape, 2, generator=generator) * 0.3 + 0.1], -1)

    sets = layers + others
    return Predictions(
        logits=torch.randn(sets, count, queries, classes, generator=generator),
        boxes=boxes(sets, count, queries),
        corners=torch.randn(layers, count, queries, 4, BINS + 1, generator=generator),
        references=boxes(count, queries),
    )


def truth(seed=1):
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(3, 2, generator=generator) * 0.4 + 0.3
    sides = torch.rand(3, 2, generator=generator) * 0.3 + 0.2
    return Truth(boxes=torch.cat([center, sides], 1), labels=torch.tensor([0, 2, 1]), images=torch.tensor([0, 0, 1]))


def labels_of(true, count=2):
    """The same as transformers takes it."""
    here = [true.images == i for i in range(count)]
    return [{"class_labels": true.labels[one], "boxes": true.boxes[one]} for one in here]


def criterion():
    theirs = pytest.importorskip("transformers.loss.loss_d_fine")
    from transformers import DFineConfig

    loss = theirs.DFineLoss(DFineConfig(num_labels=3, max_num_bins=BINS, reg_scale=4.0, up=0.5))
    return loss


def test_boxes_are_the_same_in_both_notations():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    corners = to_corners(boxes)
    torch.testing.assert_close(corners, torch.tensor([[0.4, 0.3, 0.6, 0.7]]))
    torch.testing.assert_close(to_centers(corners), boxes)


def test_overlap_of_boxes_that_touch_contain_or_miss_each_other():
    one = torch.tensor([0.0, 0, 2, 2])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [0, 0, 1, 1], [2, 0, 4, 2], [4, 0, 6, 2], [1, 1, 1, 1]])
    iou, giou = overlap(one, others)
    torch.testing.assert_close(iou, torch.tensor([1, 1 / 3, 1 / 4, 0, 0, 0]))
    torch.testing.assert_close(giou, torch.tensor([1, 1 / 3, 1 / 4, 0, -1 / 3, 0]))
    nothing = torch.zeros(4)
    assert [value.item() for value in overlap(nothing, nothing)] == [0, 0]


def test_matching_is_transformers():
    found, true = predictions(), truth()
    for one, pairs in enumerate(match(found, true)):
        outputs = {"logits": found.logits[one], "pred_boxes": found.boxes[one]}
        start = 0
        for image, (queries, boxes) in enumerate(criterion().matcher(outputs, labels_of(true))):
            here = pairs.images == image
            order = pairs.truths[here].argsort()
            assert (pairs.truths[here] - start)[order].tolist() == sorted(boxes.tolist())
            assert pairs.queries[here][order].tolist() == queries[boxes.argsort()].tolist()
            start += len(boxes)


def test_each_part_is_transformers_for_the_same_pairs(monkeypatch):
    """With one matching for all layers, where the union is that matching."""
    found, true = predictions(layers=2, others=0), truth()
    pairs = Pairs(images=true.images, queries=torch.tensor([4, 1, 2]), truths=torch.arange(3))
    monkeypatch.setattr("van.nn.detection.dfine_losses.match", lambda *_: [pairs] * 2)
    ours = dfine_losses(found, true, OFFSETS)
    theirs = criterion()
    indices = [(torch.tensor([4, 1]), torch.tensor([0, 1])), (torch.tensor([2]), torch.tensor([0]))]
    monkeypatch.setattr("transformers.loss.loss_d_fine.weighting_function", lambda *_: OFFSETS.values)
    total = dict.fromkeys(WEIGHTS, 0.0)
    names = {"loss_vfl": "vfl", "loss_bbox": "box", "loss_giou": "giou", "loss_fgl": "fgl", "loss_ddf": "ddf"}
    for layer in range(2):
        outputs = {"logits": found.logits[layer], "pred_boxes": found.boxes[layer]}
        outputs |= {"pred_corners": found.corners[layer].flatten(2), "ref_points": found.references}
        outputs |= {"teacher_corners": found.corners[-1].flatten(2), "teacher_logits": found.logits[-1].clone()}
        for loss in ("vfl", "boxes", "local"):
            for name, value in theirs.get_loss(loss, outputs, labels_of(true), indices, 3).items():
                total[names[name]] += value * theirs.weight_dict[name]
    for name, value in total.items():
        torch.testing.assert_close(ours[name], torch.as_tensor(value), msg=name)


def test_a_query_keeps_the_box_that_most_outputs_gave_it(monkeypatch):
    found = predictions(layers=1, others=2, count=1)
    true = Truth(boxes=truth().boxes[:2], labels=torch.tensor([0, 1]), images=torch.tensor([0, 0]))
    zero = torch.zeros(2, dtype=torch.int64)
    matchings = [(5, 1), (1, 5), (1, 5)]  # queries of the two boxes: 1 and 5 stand twice for one, once for the other
    each = [Pairs(images=zero, queries=torch.tensor(queries), truths=torch.arange(2)) for queries in matchings]
    monkeypatch.setattr("van.nn.detection.dfine_losses.match", lambda *_: each)
    losses = dfine_losses(found, true, OFFSETS)
    expected = (found.boxes[:, 0, [1, 5]] - true.boxes).abs().sum() / 2
    torch.testing.assert_close(losses["box"], expected * WEIGHTS["box"])
    # with a further query all pairs count: three of them
    more = [*each[:2], Pairs(images=zero, queries=torch.tensor([1, 3]), truths=torch.arange(2))]
    monkeypatch.setattr("van.nn.detection.dfine_losses.match", lambda *_: more)
    losses = dfine_losses(found, true, OFFSETS)
    rows, columns = [1, 3, 5], [0, 1, 0]  # 5 stands once for each: the first of them
    expected = (found.boxes[:, 0, rows] - true.boxes[columns]).abs().sum() / 3
    torch.testing.assert_close(losses["box"], expected * WEIGHTS["box"])


def test_noisy_copies_count_once_each():
    found, true = predictions(), truth()
    noisy = predictions(layers=3, others=1, queries=8, seed=3)
    pairs = Pairs(images=true.images.tile(2), queries=torch.tensor([0, 1, 0, 4, 5, 4]), truths=torch.arange(3).tile(2))
    losses = dfine_losses(found, true, OFFSETS, Noisy(predictions=noisy, pairs=pairs, groups=2))
    boxes = noisy.boxes[:, pairs.images, pairs.queries]
    expected = (boxes - true.boxes[pairs.truths]).abs().sum() / 6
    torch.testing.assert_close(losses["denoising_box"], expected * WEIGHTS["box"])
    alone = dfine_losses(found, true, OFFSETS)
    assert all(torch.equal(losses[name], value) for name, value in alone.items())


def test_more_boxes_than_queries_are_matched_as_far_as_they_go():
    found = predictions(queries=2)
    true = Truth(boxes=truth().boxes, labels=torch.tensor([0, 2, 1]), images=torch.tensor([1, 1, 1]))
    assert [len(pairs) for pairs in match(found, true)] == [2] * 5
    assert all(value.isfinite() for value in dfine_losses(found, true, OFFSETS).values())


def test_a_diverged_network_is_matched_all_the_same():
    found = predictions()
    found.boxes[0, 0, 0] = float("nan")
    assert [len(pairs) for pairs in match(found, truth())] == [3] * 5


NOISELESS = {"denoising_queries": 4, "label_noise": 0.0, "box_noise": 0.0}
CASES = [((3, 1), {}), ((2, 0), {}), ((2, 2), NOISELESS)]  # boxes of the two images, options
ONE_WITHOUT_COPIES = ((2, 0), NOISELESS)


def trained(rank):
    """Losses and gradients of each case: of one process's image of two, or of both where rank is None."""
    here = slice(None) if rank is None else slice(rank, rank + 1)
    results = []
    for counts, options in (*CASES, ONE_WITHOUT_COPIES):
        model = tiny_dfine(**options).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        losses = model.losses(images()[here], targets(counts)[here])
        sum(losses.values()).backward()
        losses = {name: value.detach() for name, value in losses.items()}
        results.append((losses, [parameter.grad for parameter in model.parameters()]))
    return results


@pytest.mark.long
def test_two_processes_are_one():
    """Noisy copies are comparable only where images have as many boxes: a process makes as many as fit its own."""
    results = list(zip(*over_two_processes(trained), trained(None), strict=True))
    for first, second, whole in results:
        for name in second[0]:
            mean = (first[0][name] + second[0][name]) / 2
            torch.testing.assert_close(mean, whole[0][name], atol=1e-5, rtol=1e-5, msg=name)
    for first, second, whole in results[: len(CASES)]:
        assert first[0].keys() == second[0].keys() == whole[0].keys()
        for one, other, expected in zip(first[1], second[1], whole[1], strict=True):
            torch.testing.assert_close((one + other) / 2, expected, atol=2e-5, rtol=1e-4)
