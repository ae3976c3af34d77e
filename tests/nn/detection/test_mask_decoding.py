"""From mask and class logits to objects and panoptic segments, on cases small enough to see."""

import pytest
import torch

from van.configs.mask2former import INSTANCE_MASK2FORMERS, PANOPTIC_MASK2FORMERS
from van.errors import ConfigError
from van.nn.detection import mask_decoding as mask_decoding
from van.nn.object_model import detections, panoptic

SURE = 20.0
SIDE = 8  # of the mask logits; images have four times as many pixels
WHOLE = (4 * SIDE, 4 * SIDE)
THREE = {"num_classes": 3}


def instance(**options):
    return INSTANCE_MASK2FORMERS["mask2former_instance_van_b0"].with_options(**THREE, **options)


def panoptic_config(**options):
    """Classes 0 and 1 are things, 2 is stuff."""
    return PANOPTIC_MASK2FORMERS["mask2former_van_b0"].with_options(num_things=2, **THREE, **options)


def raw(*queries, size=SURE):
    """Raw outputs of one image; a query is (probabilities of the classes and of none, rows, columns)."""
    classes = torch.tensor([query[0] for query in queries]).log()[None]
    masks = torch.full((1, len(queries), SIDE, SIDE), -size)
    for i, (_, rows, columns) in enumerate(queries):
        masks[0, i, rows, columns] = size
    return {"class_logits": classes, "mask_logits": masks}


ALL, FIRST, SECOND = slice(None), slice(0, 4), slice(4, 8)


class TestDetections:
    def test_pairs_of_query_and_class_are_objects_with_boxes_around_their_masks(self):
        outputs = raw(([0.6, 0.3, 0.05, 0.05], FIRST, ALL), ([0.01, 0.01, 0.9, 0.08], slice(2, 4), slice(5, 8)))
        (found,) = detections(instance(score_threshold=0.1), outputs, [WHOLE])
        assert found.labels.tolist() == [2, 0, 1]
        torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.3]), atol=0.01, rtol=0)
        assert found.boxes.tolist() == [[20, 8, 32, 16], [0, 0, 32, 16], [0, 0, 32, 16]]
        assert found.masks.shape == (3, *WHOLE)
        assert (found.masks[0] > found.mask_threshold).sum() == pytest.approx(8 * 12, abs=2)  # corners are rounded
        assert found.boxes.dtype == found.scores.dtype == torch.float32

    def test_a_score_is_the_class_times_how_sure_the_mask_is_inside(self):
        (found,) = detections(instance(), raw(([0.8, 0.1, 0.05, 0.05], ALL, ALL), size=1.0), [WHOLE])
        assert found.scores[0].item() == pytest.approx(0.8 * torch.tensor(1.0).sigmoid().item(), rel=1e-5)

    def test_a_surer_mask_overtakes_a_surer_class(self):
        outputs = raw(([0.8, 0.05, 0.05, 0.1], ALL, ALL), ([0.05, 0.7, 0.05, 0.2], ALL, ALL))
        outputs["mask_logits"][0, 0] = 0.5
        (found,) = detections(instance(detections_per_image=2), outputs, [WHOLE])
        assert found.labels.tolist() == [1, 0]

    def test_padding_is_left_out(self):
        outputs = raw(([0.8, 0.1, 0.05, 0.05], ALL, ALL), ([0.1, 0.8, 0.05, 0.05], SECOND, ALL))
        (found,) = detections(instance(), outputs, [(13, 30)])
        assert found.masks.shape[1:] == (13, 30)
        assert set(map(tuple, found.boxes.tolist())) == {(0, 0, 30, 13)}
        assert found.labels[0] == 0

    def test_at_most_so_many_and_no_empty_masks(self):
        outputs = raw(([0.9, 0.05, 0.03, 0.02], ALL, ALL), ([0.9, 0.05, 0.03, 0.02], slice(0, 0), ALL))
        (found,) = detections(instance(), outputs, [WHOLE])
        assert found.labels.tolist() == [0, 1, 2]
        (found,) = detections(instance(detections_per_image=1), outputs, [WHOLE])
        assert len(found.boxes) <= 1
        (found,) = detections(instance(score_threshold=0.95), outputs, [WHOLE])
        assert (found.boxes.shape, found.masks.shape) == ((0, 4), (0, *WHOLE))

    def test_a_panoptic_model_has_none(self):
        with pytest.raises(ConfigError, match="gives no detections"):
            detections(panoptic_config(), raw(([0.8, 0.1, 0.05, 0.05], ALL, ALL)), [WHOLE])


class TestPanoptic:
    def segments(self, config, outputs, size=WHOLE, output=None):
        (found,) = panoptic(config, outputs, [size], [output or size])
        return found

    def test_pixels_go_to_the_query_of_the_highest_score_times_mask(self):
        outputs = raw(([0.9, 0.05, 0.03, 0.02], ALL, slice(0, 5)), ([0.01, 0.95, 0.02, 0.02], ALL, slice(4, 8)))
        found = self.segments(panoptic_config(overlap_threshold=0.5), outputs)
        assert found.labels == (0, 1)
        assert found.scores == pytest.approx((0.9, 0.95))
        assert found.segment_ids.dtype == torch.int32
        assert found.segment_ids[:, :16].unique().tolist() == [1]
        assert found.segment_ids[:, 16:].unique().tolist() == [2]

    def test_a_segment_that_lost_too_much_of_its_mask_is_left_out_and_its_pixels_stay_void(self):
        outputs = raw(([0.9, 0.05, 0.03, 0.02], ALL, slice(0, 5)), ([0.01, 0.95, 0.02, 0.02], ALL, slice(3, 8)))
        found = self.segments(panoptic_config(), outputs)
        assert found.labels == (1,)
        assert found.segment_ids[:, :12].unique().tolist() == [0]
        assert found.segment_ids[:, 12:].unique().tolist() == [1]

    @pytest.mark.parametrize("sure", [(0.95, 0.9), (0.9, 0.95)])
    def test_stuff_of_one_class_is_one_segment_as_sure_as_its_surest_part_and_things_are_many(self, sure):
        one, two = ([0.01, 0.01, score, 0.98 - score] for score in sure)
        thing = [0.03, 0.9, 0.02, 0.05]
        outputs = raw((one, FIRST, FIRST), (thing, FIRST, SECOND), (two, SECOND, FIRST), (thing, SECOND, SECOND))
        found = self.segments(panoptic_config(), outputs)
        assert found.labels == (2, 1, 1)
        assert found.scores == pytest.approx((0.95, 0.9, 0.9))
        assert found.segment_ids[8::16, 8::16].tolist() == [[1, 2], [1, 3]]

    def test_unsure_queries_and_those_of_no_object_take_no_pixels(self):
        outputs = raw(([0.7, 0.1, 0.1, 0.1], ALL, ALL), ([0.01, 0.01, 0.01, 0.97], ALL, ALL))
        found = self.segments(panoptic_config(), outputs)
        assert (found.labels, found.scores) == ((), ())
        assert not found.segment_ids.any()
        assert self.segments(panoptic_config(score_threshold=0.6), outputs).labels == (0,)

    def test_half_sure_pixels_are_void(self):
        outputs = raw(([0.9, 0.05, 0.03, 0.02], FIRST, ALL))
        found = self.segments(panoptic_config(), outputs)
        assert found.segment_ids[:16].unique().tolist() == [1]
        assert found.segment_ids[16:].unique().tolist() == [0]

    def test_padding_is_left_out_before_resizing(self):
        outputs = raw(([0.9, 0.05, 0.03, 0.02], FIRST, ALL), ([0.02, 0.9, 0.03, 0.05], SECOND, ALL))
        found = self.segments(panoptic_config(), outputs, size=(24, 32), output=(48, 128))
        assert found.segment_ids.shape == (48, 128)
        assert (found.segment_ids == 1).float().mean().item() == pytest.approx(2 / 3)
