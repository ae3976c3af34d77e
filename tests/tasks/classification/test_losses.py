"""Losses, mixing, several versions of an image, and teachers, each against its formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from metadata import set_metadata
from PIL import Image
from tiny_training import SLIM, make_stripes, slim_recipe

import van
from van.data.augment import SeededExample, TrainingTransform
from van.data.dataset import EpochSampler, TrainingSet
from van.data.seeding import seeded
from van.errors import ConfigError
from van.images.preprocess import Preprocess
from van.recipes import AugmentSpec, CriterionSpec, Recipe
from van.tasks.classification.losses import Criterion, Teacher, build_mixup, join_splits
from van.train import run
from van.train.module import TrainingModule

CUSTOM = {name.removeprefix("model."): value for name, value in SLIM.items()}
POLICY = {"augment.splits": 3, "augment.auto_augment": "augmix-m5-w4-d2"}


def criterion(**options):
    return Criterion(Recipe().with_options(**options))


@pytest.fixture(scope="module")
def logits():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_cross_entropy_of_hard_and_soft_labels(logits):
    plain = criterion()
    assert plain(logits, LABELS) == pytest.approx(F.cross_entropy(logits, LABELS).item())
    assert plain(logits, F.one_hot(LABELS, 4).float()) == pytest.approx(F.cross_entropy(logits, LABELS).item())
    smooth = criterion(**{"augment.label_smoothing": 0.2})
    assert smooth(logits, LABELS) == pytest.approx(F.cross_entropy(logits, LABELS, label_smoothing=0.2).item())


def test_binary_cross_entropy(logits):
    one_hot = F.one_hot(LABELS, 4).float()
    options = {"loss.name": "bce"}
    assert criterion(**options)(logits, LABELS) == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, one_hot).item()
    )
    summed = criterion(**options, **{"loss.bce_sum": True})(logits, LABELS)
    assert summed == pytest.approx(4 * F.binary_cross_entropy_with_logits(logits, one_hot).item())
    soft = torch.tensor([[0.7, 0.3, 0.0, 0.0]]).repeat(6, 1)
    sharp = (soft > 0.2).float()
    cut = criterion(**options, **{"loss.bce_threshold": 0.2})
    assert cut(logits, soft) == pytest.approx(F.binary_cross_entropy_with_logits(logits, sharp).item())
    smooth = criterion(**options, **{"augment.label_smoothing": 0.1})
    target = one_hot * 0.9 + 0.1 / 4
    assert smooth(logits, LABELS) == pytest.approx(F.binary_cross_entropy_with_logits(logits, target).item())


def test_divergence_between_versions(logits):
    labels = LABELS[:2].repeat(3)
    loss = criterion(**POLICY, **{"loss.name": "jsd", "loss.jsd_alpha": 2.0})
    p = logits.softmax(1).view(3, 2, 4)
    mean = p.mean(0)
    divergence = sum((q * (q / mean).log()).sum(1).mean() for q in p) / 3
    assert loss(logits, labels) == pytest.approx((F.cross_entropy(logits[:2], LABELS[:2]) + 2 * divergence).item())
    same = criterion(**POLICY, **{"loss.name": "jsd"})(logits[:2].repeat(3, 1), labels)
    assert same == pytest.approx(F.cross_entropy(logits[:2], LABELS[:2]).item(), abs=1e-6)


def test_versions_are_joined_first_versions_first():
    images = torch.arange(6.0).view(2, 3, 1, 1, 1)
    joined, labels = join_splits(images, torch.tensor([7, 8]))
    assert joined.flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert labels.tolist() == [7, 8, 7, 8, 7, 8]
    assert join_splits(images[:, 0], LABELS[:2])[0].shape == (2, 1, 1, 1)


def picture():
    return Image.effect_noise((40, 40), 90).convert("RGB")


@pytest.mark.parametrize("spares", [False, True])
def test_first_version_is_clean(spares):
    image, preprocess = picture(), Preprocess(size=(32, 32))
    options = {"crop_scale": None, "hflip": 0.0, "splits": 3, "auto_augment": "augmix-m5-w4-d2"}
    transform = TrainingTransform(AugmentSpec(**options, erasing=1.0, erasing_spares_clean=spares), preprocess)
    with seeded(3):
        versions = transform(image)
    clean = torch.from_numpy(preprocess(image))
    assert versions.shape == (3, 3, 32, 32)
    assert torch.equal(versions[0], clean) is spares
    if not spares:  # erased, and nothing else
        assert (versions[0] == clean).float().mean() > 0.5
    assert not torch.equal(versions[1], versions[2])
    with seeded(3):
        assert torch.equal(transform(image), versions)


def test_repeats_come_in_a_row_and_differ(tmp_path):
    plain, sampler = EpochSampler(10, seed=1), EpochSampler(10, seed=1, repeats=3)
    assert len(sampler) == len(list(sampler)) == 10
    keys = list(sampler)
    assert [key[1] for key in keys] == [index for _, index in list(plain)[:4] for _ in range(3)][:10]
    assert [key[2:] for key in keys[:3]] == [(), (1,), (2,)]
    assert list(sampler) == keys
    sampler.set_epoch(1)
    assert list(sampler) != keys
    data = van.data.open_classification(make_stripes(tmp_path / "data"), "train")
    images = TrainingSet(data, SeededExample(TrainingTransform(AugmentSpec(), Preprocess(size=(32, 32))), seed=0))
    versions = [images[key][0] for key in ((0, 3), (0, 3, 1), (0, 3, 2), (0, 3, 1))]
    assert not torch.equal(versions[0], versions[1])
    assert not torch.equal(versions[1], versions[2])
    assert torch.equal(versions[1], versions[3])


def test_mixing_options_reach_timm():
    options = {"augment.cutmix_minmax": (0.2, 0.8), "augment.mix_mode": "pair", "augment.mix_prob": 0.5}
    mixup = build_mixup(Recipe().with_options(**options, **{"augment.mixup": 0.3, "augment.switch_prob": 0.7}), 5)
    assert (mixup.cutmix_minmax, mixup.mode, mixup.mix_prob) == ((0.2, 0.8), "pair", 0.5)
    assert (mixup.mixup_alpha, mixup.switch_prob, mixup.num_classes) == (0.3, 0.7, 5)


def test_mixing_ends_at_its_epoch(tmp_path, monkeypatch):
    seen = []
    step = TrainingModule.training_step

    def spying(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        seen.append((self.current_epoch, self.objective.mixup.mixup_enabled))
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", spying)
    run(slim_recipe(make_stripes(tmp_path / "data"), tmp_path / "run",
                    **{"augment.mixup": 0.8, "augment.mix_off_epoch": 2}))  # fmt: skip
    assert set(seen) == {(0, True), (1, True), (2, False)}


def test_training_with_versions_and_divergence(tmp_path):
    data = make_stripes(tmp_path / "data")
    options = {**POLICY, "loss.name": "jsd", "augment.repeats": 2, "trainer.epochs": 1}
    folder = run(slim_recipe(data, tmp_path / "run", **options))
    assert (folder / "model.safetensors").exists()


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    model = van.create_model("van_b0", seed=3, num_classes=2, **CUSTOM).eval()
    set_metadata(model, classes=("across", "along"), preprocess=Preprocess(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    van.save(model, path)
    return path, model


@pytest.mark.parametrize(("distill", "temperature"), [("hard", None), ("soft", None), ("soft", 3.0)])
def test_teacher_sees_its_own_colours(teacher_file, distill, temperature):
    path, model = teacher_file
    spec = CriterionSpec(teacher=str(path), distill=distill, temperature=temperature)
    teacher = Teacher(spec, classes=("across", "along"), student=Preprocess())
    raw = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    answer = model((raw - mean) / std).detach()
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    found = teacher.loss((raw - 0.5) / 0.5, logits)
    if distill == "hard":
        expected = F.cross_entropy(logits, answer.argmax(1))
    else:
        t = temperature or 1.0
        p = (answer / t).softmax(1)
        expected = (p * (p.log() - (logits / t).log_softmax(1))).sum(1).mean() * t**2
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_teacher_of_other_classes_is_refused(teacher_file):
    spec = CriterionSpec(teacher=str(teacher_file[0]))
    with pytest.raises(ConfigError, match="knows 2 classes, the data have 3"):
        Teacher(spec, classes=("a", "b", "c"), student=Preprocess())
    with pytest.raises(ConfigError, match="calls class 1 'along'"):
        Teacher(spec, classes=("across", "slanted"), student=Preprocess())
    with pytest.raises(ConfigError, match=r"sees 3 channel\(s\), not 1"):
        Teacher(spec, classes=("across", "along"), student=Preprocess(mean=(0.5,), std=(0.5,)))


def test_distillation_is_part_of_the_loss_and_not_of_the_checkpoint(teacher_file, tmp_path):
    data = make_stripes(tmp_path / "data")
    losses = []
    for name, options in (
        ("plain", {}),
        ("taught", {"loss.teacher": str(teacher_file[0]), "loss.distill_weight": 1.0}),
    ):
        folder = run(slim_recipe(data, tmp_path / name, **options, **{"trainer.epochs": 1}))
        losses.append((folder / "metrics.csv").read_text().splitlines()[1].split(",")[3])
        state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        assert not [key for key in state if "teacher" in key]
    assert losses[0] != losses[1]
    assert all(math.isfinite(float(loss)) for loss in losses)
