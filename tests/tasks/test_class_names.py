"""Heads survive spelling: names are compared without case, blanks and separators, rows follow their names."""

import pytest
import torch
from metadata import set_metadata
from tiny_segmentation import SLIM_NETWORK

import van
from van.data.segmentation import open_segmentation
from van.errors import ConfigError, VanNotice
from van.images.palettes import ADE20K_CLASSES
from van.recipes import CriterionSpec, ModelSpec, Recipe, get_recipe
from van.recipes.segmentation.spec import SegmentationModelSpec
from van.tasks.class_names import first_difference, places
from van.tasks.classification.class_plan import plan_classes
from van.tasks.classification.losses import Teacher
from van.tasks.classification.network import build_network
from van.tasks.segmentation.evaluation import check_classes
from van.tasks.segmentation.network import build_segmenter

SLIM = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}
ANIMALS = ("cat", "Traffic light", "straße")


@pytest.mark.promise("9")
@pytest.mark.parametrize(
    ("known", "wanted", "found"),
    [
        (("wall", "bed "), ("wall", "bed"), (0, 1)),
        (("Wall", "BED"), ("wall", "bed"), (0, 1)),
        (("traffic_light", "stop-sign"), ("Traffic Light", "stop  sign"), (0, 1)),
        (("cafe\u0301", "a"), ("café", "a"), (0, 1)),  # composed and not, as macOS names folders
        (("cat", "dog"), ("dog ", "Cat"), (1, 0)),
        (("a", "A"), ("a", "A"), (0, 1)),
        (("a", "A"), ("A", "a"), (1, 0)),
        (("a", "A"), ("a ", "A "), (0, 1)),
        (("a", "A"), ("a", "a"), None),  # which is which?
        (("a", "A"), ("b", "B"), None),
        (("a_b", "a-b"), ("a b", "a_b"), None),
        (("cat", "dog"), ("cat", "mouse"), None),
        (("cat",), ("cat", "dog"), None),
        (("x", "x"), ("x", "x"), (0, 1)),
    ],
)
def test_which_names_are_the_same(known, wanted, found):
    assert places(known, wanted) == found


@pytest.mark.promise("9")
def test_the_first_difference_is_a_real_one():
    assert first_difference(("bed ", "sky"), ("bed", "sea")) == 1
    assert first_difference(("a", "A"), ("a", "a")) == 1


def segmenter_file(path, classes, **attributes):
    model = van.create_model("light_ham_van_b0_d256", seed=3, num_classes=len(classes), auxiliary=True, **SLIM_NETWORK)
    set_metadata(model, classes=classes, **attributes)
    van.save(model, path)
    return model


def continued(path, classes, **options):
    spec = SegmentationModelSpec(checkpoint=str(path), **options)
    return build_segmenter(spec, classes, ((0, 0, 0),) * len(classes), seed=1)


@pytest.mark.promise("9")
def test_pixel_classifiers_stay_where_only_spelling_differs(tmp_path):
    classes = ("CAT ", "traffic_light", "STRASSE")
    model = segmenter_file(tmp_path / "s.safetensors", classes)
    kept = continued(tmp_path / "s.safetensors", ANIMALS)  # a notice would be an error
    for key, value in model.state_dict().items():
        assert torch.equal(kept.state_dict()[key], value), key
    assert kept.classes == ANIMALS  # the data's names go into the new file


@pytest.mark.promise("9")
def test_mmsegs_ade20k_names_keep_the_head(tmp_path):
    """mmseg writes 'bed ' for the eighth class."""
    theirs = tuple(f"{name} " if name == "bed" else name for name in ADE20K_CLASSES)
    model = segmenter_file(tmp_path / "s.safetensors", theirs)
    van.convert(tmp_path / "s.safetensors", tmp_path / "s.pth", to="mmseg")
    assert van.load(tmp_path / "s.pth").classes[7] == "bed "
    kept = continued(tmp_path / "s.pth", ADE20K_CLASSES)
    assert torch.equal(kept.head.classify.conv.weight, model.head.classify.conv.weight)


@pytest.mark.promise("9")
def test_rows_follow_their_classes_into_another_order(tmp_path):
    model = segmenter_file(tmp_path / "s.safetensors", ("Straße", "cat", "traffic light"))
    with pytest.warns(VanNotice, match="in another order"):
        moved = continued(tmp_path / "s.safetensors", ANIMALS)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before, after = model.eval().decode_with_auxiliary(images), moved.eval().decode_with_auxiliary(images)
    for old, new in zip(before, after, strict=True):  # the auxiliary head's too
        assert torch.equal(old[:, [1, 2, 0]], new)


@pytest.mark.promise("9")
def test_other_names_give_a_fresh_head_unless_it_is_to_be_kept(tmp_path):
    model = segmenter_file(tmp_path / "s.safetensors", ("cat", "dog", "mouse"))
    with pytest.warns(VanNotice, match=r"number 1 is 'dog', here 'Traffic light'.*model\.keep_head"):
        fresh = continued(tmp_path / "s.safetensors", ANIMALS)
    assert not torch.equal(fresh.head.classify.conv.weight, model.head.classify.conv.weight)
    kept = continued(tmp_path / "s.safetensors", ANIMALS, keep_head=True)
    assert torch.equal(kept.head.classify.conv.weight, model.head.classify.conv.weight)
    with pytest.raises(ConfigError, match="3 classes, the data 2"):
        continued(tmp_path / "s.safetensors", ("a", "b"), keep_head=True)


@pytest.mark.promise("9")
def test_nameless_pixel_classifiers_are_kept_with_a_note(tmp_path):
    model = segmenter_file(tmp_path / "s.safetensors", ANIMALS)
    model.classes = None
    van.save(model, tmp_path / "s.safetensors")
    with pytest.warns(VanNotice, match="does not name its classes"):
        kept = continued(tmp_path / "s.safetensors", ANIMALS)
    assert torch.equal(kept.head.classify.conv.weight, model.head.classify.conv.weight)
    continued(tmp_path / "s.safetensors", ANIMALS, keep_head=True)  # without one


@pytest.mark.promise("9")
def test_heads_of_classifiers_alike(tmp_path):
    model = van.create_model("van_b0", seed=1, num_classes=3, **SLIM)
    model.classes = ("Straße", "CAT", "traffic_light")
    van.save(model, tmp_path / "c.safetensors")
    spec = ModelSpec(checkpoint=str(tmp_path / "c.safetensors"))
    same = build_network(spec, ("strasse", "cat", "Traffic light"), seed=0)
    assert torch.equal(same.head.weight, model.head.weight)
    with pytest.warns(VanNotice, match="in another order"):
        moved = build_network(spec, ANIMALS, seed=0)
    assert torch.equal(moved.head.weight, model.head.weight[[1, 2, 0]])
    assert torch.equal(moved.head.bias, model.head.bias[[1, 2, 0]])
    with pytest.warns(VanNotice, match="fresh head"):
        build_network(spec, ("a", "b", "c"), seed=0)
    kept = build_network(ModelSpec(checkpoint=spec.checkpoint, keep_head=True), ("a", "b", "c"), seed=0)
    assert torch.equal(kept.head.weight, model.head.weight)


@pytest.mark.promise("9")
def test_evaluation_says_nothing_about_spelling(tmp_path):
    from van.inference.session import open_segmenter

    scenes = open_segmentation("scenes")
    names = ("Background ", *(f"{digit} " for digit in range(10)))
    segmenter_file(tmp_path / "s.safetensors", names)
    check_classes(open_segmenter(tmp_path / "s.safetensors").subject, scenes, "scenes")  # a notice would be an error
    segmenter_file(tmp_path / "s.safetensors", ("background", *"9876543210"))
    with pytest.warns(VanNotice, match="number 1 is '9'"):
        check_classes(open_segmenter(tmp_path / "s.safetensors").subject, scenes, "scenes")


@pytest.mark.promise("9")
def test_folders_meet_a_classifiers_classes_whatever_their_case():
    plan = plan_classes(("Cat", "fire_truck"), 2, ("cat", "Fire truck"))
    assert plan.targets == (0, 1)
    with pytest.warns(VanNotice, match="another order"):
        plan = plan_classes(("Dog", "cat"), 2, ("cat", "dog"))
    assert plan.targets == (1, 0)


@pytest.mark.promise("9")
@pytest.mark.parametrize("recipe", [Recipe(), get_recipe("light_ham_digits").with_options(**{
    "model.layer_scale_init": None})])  # fmt: skip
def test_options_that_contradict_each_other(recipe):
    with pytest.raises(ConfigError, match="no head to keep"):
        recipe.with_options(**{"model.keep_head": True})
    with pytest.raises(ConfigError, match="contradict"):
        recipe.with_options(**{"model.keep_head": True, "model.reset_head": True, "model.checkpoint": "x"})


@pytest.mark.promise("9")
def test_a_classifier_has_no_pixel_classifiers_to_keep(tmp_path):
    van.save(van.create_model("van_b0", seed=1, num_classes=3, **SLIM), tmp_path / "c.safetensors")
    with pytest.raises(ConfigError, match="no pixel classifiers to keep"):
        continued(tmp_path / "c.safetensors", ANIMALS, name="light_ham_van_b0", keep_head=True)


@pytest.mark.promise("9")
def test_a_teacher_is_taken_by_its_classes_names(tmp_path):
    model = van.create_model("van_b0", seed=1, num_classes=3, **SLIM).eval()
    model.classes = ("TRAFFIC_LIGHT", "cat", "strasse")
    van.save(model, tmp_path / "t.safetensors")
    teacher = Teacher(CriterionSpec(teacher=str(tmp_path / "t.safetensors")), classes=ANIMALS, student=model.preprocess)
    assert torch.equal(teacher.model.head.weight, model.head.weight[[1, 0, 2]])
    with pytest.raises(ConfigError, match="calls class 1 'cat', the data 'dog'"):
        Teacher(
            CriterionSpec(teacher=str(tmp_path / "t.safetensors")),
            classes=("traffic light", "dog", "straße"),
            student=model.preprocess,
        )
