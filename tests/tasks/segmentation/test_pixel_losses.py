"""Dice, Lovász-Softmax, focal loss and mining of the hardest pixels: by hand, and as segmentation-models-pytorch's."""

import math

import pytest
import torch
import torch.nn.functional as F

from van.errors import ConfigError
from van.recipes import get_recipe
from van.recipes.segmentation.loss_spec import SegmentationLossSpec
from van.tasks.segmentation.losses import PixelLoss, dice_loss, focal_loss, lovasz_loss

# Two classes, four pixels: probabilities of class 1 are 0.8, 0.4, 0.3 and (ignored) 0.9.
SHARES = torch.tensor([[0.8, 0.4], [0.3, 0.9]])
LOGITS = torch.stack((torch.zeros(2, 2), torch.logit(SHARES)))[None]  # (1, 2, 2, 2)
LABELS = torch.tensor([[[1, 1], [0, 255]]])
ALL_IGNORED = torch.full((1, 2, 2), 255)


def drawn(classes=5, ignored=True, seed=0, shape=(3, 9, 11)):
    """Random logits and labels; the last class never occurs."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn((shape[0], classes, *shape[1:]), generator=draw) * 2
    labels = torch.randint(0, classes - 1, shape, generator=draw)
    if ignored:
        labels[torch.rand(shape, generator=draw) < 0.3] = 255
    return logits, labels


@pytest.mark.promise("22")
def test_dice_by_hand():
    of_one = 2 * (0.8 + 0.4) / (0.8 + 0.4 + 0.3 + 2)
    of_zero = 2 * 0.7 / (0.2 + 0.6 + 0.7 + 1)
    loss = dice_loss(LOGITS, LABELS, ignore_index=255)
    assert loss == pytest.approx(1 - (of_one + of_zero) / 2)
    weighted = dice_loss(LOGITS, LABELS, ignore_index=255, weights=torch.tensor([3.0, 1.0]))
    assert weighted == pytest.approx(1 - (of_one + 3 * of_zero) / 4)
    alone = dice_loss(LOGITS, LABELS.where(LABELS != 0, 1), ignore_index=255)  # class 0 has no label: adds nothing
    assert alone == pytest.approx((1 - 2 * 1.5 / (1.5 + 3)) / 2)


@pytest.mark.promise("22")
def test_lovasz_by_hand():
    # class 1: errors 0.6 (its own), 0.3 (the other's), 0.2 (its own): IoU falls from 1 to 1/2, 1/3, 0
    of_one = 0.6 * 1 / 2 + 0.3 * (1 / 2 - 1 / 3) + 0.2 * (1 / 3)
    # class 0: the same errors; the first is foreign, the second its own: IoU 1/2, 0, 0
    of_zero = 0.6 * 1 / 2 + 0.3 * 1 / 2 + 0.2 * 0
    loss = lovasz_loss(LOGITS, LABELS, ignore_index=255)
    assert loss == pytest.approx((of_one + of_zero) / 2)
    weighted = lovasz_loss(LOGITS, LABELS, ignore_index=255, weights=torch.tensor([3.0, 1.0]))
    assert weighted == pytest.approx((of_one + 3 * of_zero) / 4)
    right = lovasz_loss(torch.stack((LABELS == 0, LABELS == 1), 1) * 100.0, LABELS, ignore_index=255)
    assert right == pytest.approx(0, abs=1e-6)


@pytest.mark.promise("22")
def test_focal_by_hand():
    # sigmoid: logit 0 of class 0 is 0.5 everywhere, that of class 1 the shares above
    yes = [0.5 if label == 0 else share for label, share in ((1, 0.8), (1, 0.4))]
    terms = [0.5**2 * math.log(2)] * 3 + [(1 - p) ** 2 * -math.log(p) for p in (*yes, 0.7)]
    assert focal_loss(LOGITS, LABELS, ignore_index=255) == pytest.approx(sum(terms) / 6)
    plain = focal_loss(LOGITS, LABELS, ignore_index=255, gamma=0.0)
    assert plain == pytest.approx((3 * math.log(2) - math.log(0.8) - math.log(0.4) - math.log(0.7)) / 6)
    half = focal_loss(LOGITS, LABELS, ignore_index=255, gamma=0.0, alpha=0.5)
    assert half == pytest.approx(float(plain) / 2)


@pytest.mark.promise("22")
def test_the_hardest_pixels_by_hand():
    losses = F.cross_entropy(LOGITS, LABELS, ignore_index=255, reduction="none")[0].flatten()
    order = losses.sort(descending=True).values
    loss = PixelLoss(SegmentationLossSpec(ohem_top_k=2), ignore_index=255)
    assert loss(LOGITS, LABELS) == pytest.approx(float(order[:2].sum()) / 4)  # over all pixels, as mmseg
    every = PixelLoss(SegmentationLossSpec(ohem_top_k=9, average="labelled"), ignore_index=255)
    assert every(LOGITS, LABELS) == pytest.approx(float(losses.sum()) / 3)
    # of several images the hardest of all: k times as many
    two = (torch.cat((LOGITS, LOGITS.flip(1))), torch.cat((LABELS, LABELS)))
    together = F.cross_entropy(*two, ignore_index=255, reduction="none").flatten().sort(descending=True).values
    assert PixelLoss(SegmentationLossSpec(ohem_top_k=1), ignore_index=255)(*two) == pytest.approx(
        float(together[:2].sum()) / 8
    )


@pytest.mark.promise("22")
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 0.0, 3.0)])
@pytest.mark.parametrize("ignored", [True, False])
def test_as_segmentation_models_pytorch(ignored, weights):
    smp = pytest.importorskip("segmentation_models_pytorch").losses
    logits, labels = drawn(ignored=ignored)
    own = None if weights is None else torch.tensor(weights)
    options = {"ignore_index": 255, "weights": own}
    theirs = {"mode": "multiclass", "ignore_index": 255, "class_weights": weights}
    assert dice_loss(logits, labels, **options) == pytest.approx(
        float(smp.DiceLoss(**theirs)(logits, labels)), rel=1e-5
    )
    want = float(smp.FocalLoss(**theirs)(logits, labels))
    assert focal_loss(logits, labels, **options) == pytest.approx(want, rel=1e-5)
    want = float(smp.FocalLoss(**theirs, gamma=0.7, alpha=0.2)(logits, labels))
    assert focal_loss(logits, labels, **options, gamma=0.7, alpha=0.2) == pytest.approx(want, rel=1e-5)
    if weights is None:  # its Lovász has no weights
        want = float(smp.LovaszLoss("multiclass", ignore_index=255)(logits, labels))
        assert lovasz_loss(logits, labels, ignore_index=255) == pytest.approx(want, rel=1e-5)


@pytest.mark.promise("22")
def test_losses_add_up_by_their_weights():
    logits, labels = drawn()
    spec = SegmentationLossSpec(cross_entropy=0.5, dice=2.0, lovasz=3.0, focal=4.0, focal_gamma=1.0, focal_alpha=0.3)
    alone = F.cross_entropy(logits, labels, ignore_index=255, reduction="none").mean()
    want = 0.5 * alone + 2 * dice_loss(logits, labels, ignore_index=255)
    want += 3 * lovasz_loss(logits, labels, ignore_index=255)
    want += 4 * focal_loss(logits, labels, ignore_index=255, gamma=1.0, alpha=0.3)
    assert PixelLoss(spec, ignore_index=255)(logits, labels) == pytest.approx(float(want), rel=1e-6)
    only = PixelLoss(SegmentationLossSpec(cross_entropy=0.0, dice=1.0), ignore_index=255)
    assert only(logits, labels) == pytest.approx(float(dice_loss(logits, labels, ignore_index=255)))


@pytest.mark.promise("22")
@pytest.mark.parametrize("name", ["dice", "lovasz", "focal"])
@pytest.mark.parametrize("labels", [LABELS, ALL_IGNORED])
def test_gradients_are_finite_and_spare_ignored_pixels(name, labels):
    logits = (LOGITS * 30).clone().requires_grad_()  # nearly 0 and 1
    loss = PixelLoss(SegmentationLossSpec(**{"cross_entropy": 0.0, name: 1.0}), ignore_index=255)(logits, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:, :, labels[0] == 255] == 0).all()
    if labels is ALL_IGNORED:
        assert loss == 0


@pytest.mark.promise("22")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_entropy": 0.0}, "are all 0"),
        ({"dice": -1.0}, r"loss\.dice is -1"),
        ({"focal_gamma": 2.0}, r"loss\.focal_gamma belongs to focal loss"),
        ({"focal": 1.0, "focal_alpha": 2.0}, "focal_alpha is 2"),
        ({"ohem_top_k": 0}, "ohem_top_k is 0"),
        ({"ohem_top_k": 9, "ohem_threshold": 0.7}, "two ways"),
        ({"cross_entropy": 0.0, "dice": 1.0, "ohem_top_k": 9}, "mining belongs to cross-entropy"),
        ({"cross_entropy": 0.0, "dice": 1.0, "average": "labelled"}, "belongs to cross-entropy"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SegmentationLossSpec(**options)


@pytest.mark.promise("22")
def test_the_losses_train_by_the_command_lines_names(tmp_path):
    from tiny_segmentation import slim_segmentation

    from van.train import run

    options = {"loss.dice": 0.5, "loss.lovasz": 0.5, "loss.focal": 1.0, "augment.vflip": 0.5, "loss.ohem_top_k": 100}
    folder = run(slim_segmentation(tmp_path / "run", **options, **{"trainer.monitor": "val/mDice"}))
    assert (folder / "model.safetensors").is_file()
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert {"val/mDice", "val/mFscore"} <= set(header.split(","))
    assert get_recipe("light_ham_digits").loss.dice == 0
