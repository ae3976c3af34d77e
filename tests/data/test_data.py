"""Folders, splits, digits, and what training does to images."""

import collections
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import training_of

from van.data import open_classification, read_folder, stratified_split
from van.data.augment import SeededExample, TrainingTransform
from van.data.dataset import EpochSampler, EvaluationSet, TrainingSet
from van.data.seeding import rng_state, seeded, set_rng_state
from van.errors import ConfigError, DataError, VanNotice
from van.images.preprocess import Preprocess
from van.recipes import AugmentSpec, get_recipe


def make_folder(root, classes, count=3, size=8):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_numeric_class_folders_are_in_numeric_order(tmp_path):
    images = read_folder(make_folder(tmp_path, ["10", "2", "0"], count=1))
    assert images.classes == ("0", "2", "10")
    assert [path.parent.name for path in images.paths] == ["0", "2", "10"]
    assert images.labels == (0, 1, 2)


def test_other_class_folders_are_sorted_and_hidden_files_ignored(tmp_path):
    make_folder(tmp_path, ["b", "10", "a"], count=1)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "._0.png").write_bytes(b"x")
    images = read_folder(tmp_path)
    assert images.classes == ("10", "a", "b")
    assert len(images) == 3


def test_images_in_deeper_folders_belong_to_their_class(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=1)
    make_folder(tmp_path / "a", ["more"], count=2)
    assert collections.Counter(read_folder(tmp_path).labels) == {0: 3, 1: 1}


def test_other_files_are_left_out_aloud(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=1)
    (tmp_path / "a" / "notes.txt").write_text("x")
    with pytest.warns(VanNotice, match=r"left out 1 file.*notes\.txt"):
        assert len(read_folder(tmp_path)) == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: None, "is empty"),
        (lambda root: Image.new("RGB", (4, 4)).save(root / "a.png"), r"1 image\(s\) but no class folders"),
        (lambda root: make_folder(root, ["a", "empty"], 1) and (root / "empty" / "0.png").unlink(), "empty is empty"),
        (
            lambda root: (
                make_folder(root, ["a", "texts"], 1) and (root / "texts" / "0.png").rename(root / "texts" / "0.txt")
            ),
            "texts holds no images",
        ),
    ],
)
def test_folders_without_images_are_named(tmp_path, build, message):
    build(tmp_path)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_classification(tmp_path / "nothing", "val")


@pytest.mark.parametrize("val", ["val", "validation", "test"])
def test_imagenet_layout(tmp_path, val):
    make_folder(tmp_path / "train", ["a", "b"], count=3)
    make_folder(tmp_path / val, ["a", "b"], count=1)
    assert len(open_classification(tmp_path, "train")) == 6
    data = open_classification(tmp_path, "val")
    assert len(data) == 2
    assert data.name(1) == str(tmp_path / val / "b" / "0.png")
    assert data.load(1)[1] == 1
    assert data.load(1)[0].size == (8, 8)


def test_class_mismatch_lists_the_differences(tmp_path):
    make_folder(tmp_path / "train", ["a", "b", "only_train"], count=1)
    make_folder(tmp_path / "val", ["a", "b", "only_val"], count=1)
    with pytest.raises(DataError, match=r"val lacks only_train; .*train lacks only_val"):
        open_classification(tmp_path, "val")


def test_single_folder_is_split_without_overlap(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=10)
    train, val = (open_classification(tmp_path, split) for split in ("train", "val"))
    names = [{data.name(i) for i in range(len(data))} for data in (train, val)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 20
    assert collections.Counter(val.labels) == {0: 2, 1: 2}
    again = open_classification(tmp_path, "val")
    other = open_classification(tmp_path, "val", seed=1)
    assert {again.name(i) for i in range(4)} == names[1]
    assert {other.name(i) for i in range(4)} != names[1]
    assert len(open_classification(tmp_path, "all")) == 20


def test_train_alone_is_split(tmp_path):
    make_folder(tmp_path / "train", ["a", "b"], count=5)
    assert open_classification(tmp_path, "val").classes == ("a", "b")
    assert len(open_classification(tmp_path, "val")) == 2


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_small_classes_keep_one_on_each_side(fraction):
    labels = [0] * 2 + [1] * 3 + [2] * 50
    train, val = stratified_split(labels, val_fraction=fraction)
    for part in (train, val):
        assert {labels[i] for i in part} == {0, 1, 2}
    assert sorted(train + val) == list(range(55))


def test_a_class_of_one_stays_in_training(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=4)
    make_folder(tmp_path, ["single"], count=1)
    assert 2 in open_classification(tmp_path, "train").labels
    with pytest.warns(VanNotice, match="single"):
        assert 2 not in open_classification(tmp_path, "val").labels


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_impossible_fraction(fraction):
    with pytest.raises(ConfigError, match="val_fraction"):
        stratified_split([0, 0], val_fraction=fraction)


def test_corrupt_and_truncated_images_are_named(tmp_path):
    make_folder(tmp_path, ["a", "b"], count=2, size=64)
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    data = open_classification(tmp_path, "all")
    for index in (0, 1):
        with pytest.raises(DataError, match=f"{index}.png"):
            data.load(index)


def test_digits_are_fixed_and_stratified():
    train, val = open_classification("digits", "train"), open_classification("digits", "val")
    assert (len(train), len(val)) == (1438, 359)
    assert val.classes == tuple("0123456789")
    assert set(collections.Counter(val.labels).values()) <= {35, 36, 37}
    image, label = val.load(0)
    assert (image.mode, image.size, val.name(0)) == ("L", (8, 8), "digits/val/0")
    assert image.getextrema() == (0, 255)
    assert label == 4  # of the published figures' split
    whole = {train.load(i)[0].tobytes() for i in range(len(train))}
    assert sum(val.load(i)[0].tobytes() in whole for i in range(len(val))) == 0


def test_unknown_split():
    with pytest.raises(ConfigError, match="split"):
        open_classification("digits", "trian")


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8))
SMALL = Preprocess(size=(32, 24))


def augmented(spec, seed=0, preprocess=SMALL, image=PHOTO):
    with seeded(seed):
        return TrainingTransform(spec, preprocess)(image)


def test_no_augmentation_is_the_evaluation_transform():
    plain = AugmentSpec(crop_scale=None, hflip=0)
    torch.testing.assert_close(augmented(plain), torch.from_numpy(SMALL(PHOTO)), rtol=0, atol=1e-6)


PLAIN = {"crop_scale": None, "hflip": 0.0}


@pytest.mark.parametrize(
    "options",
    [
        {"crop_scale": (0.2, 0.5)},
        {"hflip": 1.0},
        {"vflip": 1.0},
        {"rotate_degrees": 30.0},
        {"shift": 0.3},
        {"zoom": (0.5, 0.6)},
        {"auto_augment": "rand-m9-mstd0.5-inc1"},
        {"color_jitter": 0.9},
        {"erasing": 1.0},
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_step_changes_the_image(options, channels):
    preprocess = Preprocess(size=(32, 24), mean=(0.5,) * channels, std=(0.5,) * channels)
    spec = AugmentSpec(**{**PLAIN, **options})
    images = [augmented(spec, seed, preprocess) for seed in range(3)]
    assert all(image.shape == (channels, 32, 24) and image.dtype == torch.float32 for image in images)
    plain = augmented(AugmentSpec(**PLAIN), preprocess=preprocess)
    assert any(not torch.equal(image, plain) for image in images)


def test_color_jitter_acts_beside_a_policy():
    policy = {**PLAIN, "auto_augment": "rand-m9-mstd0.5-inc1"}
    assert not torch.equal(augmented(AugmentSpec(**policy)), augmented(AugmentSpec(**policy, color_jitter=0.9)))


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "originalr", "augmix-m9-w2"])
def test_policies_may_posterize_to_no_bits(policy):
    """The published policy does so at full magnitude, for an image in some hundreds, which Pillow 13 refuses."""
    from timm.data.auto_augment import posterize

    (step,) = TrainingTransform(AugmentSpec(auto_augment=policy), SMALL).appearance
    operations = getattr(step, "ops", None) or [op for part in step.policy for op in part]
    assert all(operation.aug_fn is not posterize for operation in operations)
    (found, *_) = [operation for operation in operations if "posterize" in operation.aug_fn.__name__]
    assert np.asarray(found.aug_fn(PHOTO, 0)).max() == 0
    assert np.array_equal(found.aug_fn(PHOTO, 4), posterize(PHOTO, 4))


def test_details_of_crop_and_erasing_are_used():
    crop = {"crop_scale": (0.2, 0.5), "hflip": 0.0, "crop_interpolation": "bicubic"}
    first = augmented(AugmentSpec(**crop))
    assert not torch.equal(first, augmented(AugmentSpec(**{**crop, "crop_interpolation": "bilinear"})))
    assert not torch.equal(first, augmented(AugmentSpec(**crop, crop_ratio=(0.4, 0.5))))
    erased = [augmented(AugmentSpec(**PLAIN, erasing=1.0, erasing_mode=mode)) for mode in ("const", "rand", "pixel")]
    assert not torch.equal(erased[0], erased[1])
    assert not torch.equal(erased[1], erased[2])
    several = augmented(AugmentSpec(**PLAIN, erasing=1.0, erasing_mode="const", erasing_count=8), seed=3)
    assert (several == 0).sum() > (
        augmented(AugmentSpec(**PLAIN, erasing=1.0, erasing_mode="const"), seed=3) == 0
    ).sum()


def test_unknown_policy():
    with pytest.raises(ConfigError, match="auto_augment"):
        TrainingTransform(AugmentSpec(auto_augment="nonsense"), SMALL)


def test_augmentation_belongs_to_epoch_and_index():
    data = open_classification("digits", "train")
    transform = TrainingTransform(get_recipe("digits_van_b0").augment, Preprocess(size=(16, 16), crop_pct=1.0))
    images = TrainingSet(data, SeededExample(transform, seed=0))
    first = images[0, 5][0]
    images[3, 1], random.random(), torch.rand(1)
    assert torch.equal(images[0, 5][0], first)
    assert not torch.equal(images[1, 5][0], first)
    assert not torch.equal(TrainingSet(data, SeededExample(transform, seed=1))[0, 5][0], first)


def test_data_sets_travel_to_worker_processes():
    spec = AugmentSpec(auto_augment="rand-m9-mstd0.5-inc1", rotate_degrees=5.0, erasing=0.5, color_jitter=0.1)
    images = TrainingSet(open_classification("digits", "train"), SeededExample(TrainingTransform(spec, SMALL), seed=0))
    assert torch.equal(pickle.loads(pickle.dumps(images))[0, 3][0], images[0, 3][0])


def test_augmentation_leaves_global_randomness_alone():
    images = TrainingSet(
        open_classification("digits", "train"),
        SeededExample(
            TrainingTransform(AugmentSpec(erasing=1.0, auto_augment="rand-m9-mstd0.5-inc1"), Preprocess(size=(16, 16))),
            seed=0,
        ),
    )
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    images[0, 0]
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_random_state_round_trips():
    random.gauss(0, 1), np.random.randn()  # leaves half of a pair behind in both
    state = rng_state()
    drawn = [torch.rand(2).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1)]
    set_rng_state(state)
    assert [torch.rand(2).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1)] == drawn


def test_sampler_orders_every_image_once_by_seed_and_epoch():
    sampler = EpochSampler(20, seed=0)
    first = list(sampler)
    assert sorted(index for _, index in first) == list(range(20))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert [epoch for epoch, _ in sampler] == [1] * 20
    assert [index for _, index in sampler] != [index for _, index in first]
    assert list(EpochSampler(20, seed=1)) != first


def test_evaluation_set_uses_the_record():
    data = open_classification("digits", "val")
    record = Preprocess(size=(32, 32), crop_pct=1.0)
    validator = training_of(get_recipe("digits_van_b0")).validator(data, SimpleNamespace(preprocess=record))
    image, label = EvaluationSet(data, validator.example)[7]
    assert torch.equal(image, torch.from_numpy(record(data.load(7)[0])))
    assert label == data.labels[7]
