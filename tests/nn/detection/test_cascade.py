"""The cascade: what its stages learn from and pass on, the means of their answers, and one stage as Mask R-CNN."""

import pytest
import torch

pytest.importorskip("torchvision")

from torchvision_detectors import noise, objects, targets, tiny

from van.configs.mask_rcnn import MASK_RCNNS
from van.errors import ConfigError
from van.nn.detection.cascade import coder_weights, moved

NAME = "cascade_mask_rcnn_van_b0"


def everything(**options):
    """A cascade that takes every proposal, so that nothing is drawn."""
    return tiny(NAME, rpn_samples=60000, box_samples=60000, **options)


def test_every_stage_asks_for_a_larger_overlap():
    model = everything()
    box = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    # the first 1, 2, 3 and 5 tenths of the box left out: overlaps 0.9, 0.8, 0.65, 0.55 and 0.45
    proposals = torch.tensor([[10 + 20 * part, 10.0, 30.0, 30.0] for part in (0.1, 0.2, 0.35, 0.45, 0.55)])
    target = [{"boxes": box, "labels": torch.tensor([2])}]
    labels = [stage.sample([proposals], target).labels[0].tolist() for stage in model.roi_heads.stages]
    own = [2]  # the object's own box is among what a stage learns from
    assert labels == [[2, 2, 2, 2, 0, *own], [2, 2, 2, 0, 0, *own], [2, 2, 0, 0, 0, *own]]


def test_deltas_of_later_stages_are_finer():
    model = everything()
    assert [stage.box_coder.weights for stage in model.roi_heads.stages] == [
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    ]
    assert coder_weights(1) == (20.0, 20.0, 10.0, 10.0)
    box = [torch.tensor([[10.0, 10.0, 30.0, 30.0]])]
    shifts = [moved(s, torch.tensor([[3.0, 0, 0, 0]]), box, [(64, 64)])[0][0, 0] for s in model.roi_heads.stages]
    assert [shift.item() for shift in shifts] == pytest.approx([16, 13, 12])  # 3 / 10, 3 / 20, 3 / 30 of 20 pixels


def test_moved_boxes_are_cut_to_their_image():
    stage = everything().roi_heads.stages[0]
    boxes = [torch.tensor([[10.0, 10.0, 30.0, 30.0]]), torch.tensor([[10.0, 10.0, 30.0, 30.0]])]
    found = moved(stage, torch.tensor([[10.0, 0, 0, 0]] * 2), boxes, [(64, 64), (64, 40)])
    assert [part[0].tolist() for part in found] == [[30, 10, 50, 30], [30, 10, 40, 30]]


def test_a_stage_learns_from_what_the_one_before_moved_without_the_objects_own_boxes():
    model = everything().train()
    met = []
    for stage in model.roi_heads.stages:
        sample, predict = stage.sample, stage.predict

        def note_sample(proposals, truth, sample=sample):
            met.append({"before": proposals, "sampled": sample(proposals, truth)})
            return met[-1]["sampled"]

        def note_predict(features, boxes, sizes, predict=predict):
            met[-1]["answers"] = predict(features, boxes, sizes)
            return met[-1]["answers"]

        stage.sample, stage.predict = note_sample, note_predict
    model.losses(noise(2, 3, 64, 96), targets(size=(64, 80)))
    assert len(met) == 3
    for stage, one, two in zip(model.roi_heads.stages, met, met[1:], strict=False):
        expected = moved(stage, one["answers"][1].detach(), one["sampled"].boxes, [(64, 80)] * 2)
        for before, after, image in zip(two["before"], expected, (0, 1), strict=True):
            given = one["sampled"].given[image]
            assert given.sum() == 2  # both objects
            assert torch.equal(before, after[~given])
            assert not before.requires_grad


def test_losses_of_later_stages_count_half_of_the_one_before():
    model = everything()
    losses = model.losses(noise(1, 3, 64, 96), targets(1, size=(64, 80)))
    names = ["loss_classifier", "loss_box_reg", "loss_mask"]
    proposal_losses = {"loss_objectness", "loss_rpn_box_reg"}
    assert set(losses) == proposal_losses | {f"{name}_{stage}" for name in names for stage in (1, 2, 3)}
    for stage in model.roi_heads.stages:  # heads that answer with equal probabilities
        stage.box_predictor.cls_score.weight.data.zero_()
        stage.box_predictor.cls_score.bias.data.zero_()
    losses = model.losses(noise(1, 3, 64, 96), targets(1, size=(64, 80)))
    found = [losses[f"loss_classifier_{stage}"].item() for stage in (1, 2, 3)]
    assert found == pytest.approx([torch.log(torch.tensor(4.0)).item() * factor for factor in (1, 0.5, 0.25)], rel=1e-5)


def test_scores_and_masks_are_means_over_the_stages():
    model = everything(detections_per_image=5)
    answers, masks = [], []
    for stage in model.roi_heads.stages:
        predict, mask = stage.predict, stage.mask_logits
        stage.predict = lambda *given, predict=predict: answers.append(predict(*given)) or answers[-1]
        stage.mask_logits = lambda *given, mask=mask: masks.append(mask(*given)) or masks[-1]
    with torch.inference_mode():
        found = model([noise(3, 64, 80)])[0]
        raw = model.raw(noise(1, 3, 64, 96))
    answers, masks = answers[:3], masks[3:]
    mean = torch.stack([logits.softmax(1) for logits, _ in answers]).mean(0)
    for label, score in zip(found["labels"], found["scores"], strict=True):
        assert (mean[:, label] - score).abs().min() < 1e-6
    labels = raw["labels"][0].long() + 1
    expected = torch.stack([logits.sigmoid()[range(5), labels] for logits in masks]).mean(0)
    torch.testing.assert_close(raw["masks"][0], expected)


def test_with_one_stage_it_is_mask_r_cnn():
    one = everything(stage_ious=(0.5,), detections_per_image=30)
    plain = tiny("mask_rcnn_van_b0", rpn_samples=60000, box_samples=60000, detections_per_image=30)
    state = {key.replace("roi_heads.stages.0.", "roi_heads."): value for key, value in one.state_dict().items()}
    for leaf, copies in (("weight", (4, 1)), ("bias", (4,))):  # the same deltas for the background and three classes
        key = f"roi_heads.box_predictor.bbox_pred.{leaf}"
        state[key] = state[key].repeat(*copies)
    plain.load_state_dict(state)
    with torch.inference_mode():
        ours, theirs = one([noise(3, 64, 80)])[0], plain([noise(3, 64, 80)])[0]
        losses = [model.losses(noise(2, 3, 64, 96), targets(size=(64, 80))) for model in (one, plain)]
    assert len(ours["boxes"]) == 30
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-5)
    renamed = {key.removesuffix("_1"): value for key, value in losses[0].items()}
    assert renamed.keys() == losses[1].keys()
    for key, value in losses[1].items():
        torch.testing.assert_close(renamed[key], value)


def test_overlaps_may_be_a_list():
    assert MASK_RCNNS[NAME].with_options(stage_ious=[0.5, 0.6]).stage_ious == (0.5, 0.6)


def test_a_training_call_is_torchvisions():
    losses = tiny(NAME).train()([noise(3, 50, 60)], objects(1, (50, 60)))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(("ious", "message"), [((), "1 to 8 overlaps"), ((0.5, 1.5), "between 0 and 1"), (("a",), "")])
def test_impossible_stages_are_refused(ious, message):
    with pytest.raises(ConfigError, match=f"stage_ious is .*{message}"):
        MASK_RCNNS[NAME].with_options(stage_ious=ious)
