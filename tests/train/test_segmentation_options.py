"""What training has for every task, at work in segmentation: averages, histories, tolerance, schedules, streams."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from chaos import assert_same, numbers
from interrupted_runs import cut_off
from PIL import Image
from safetensors.torch import load_file
from tiny_segmentation import make_pictures, slim_segmentation
from tiny_training import training_of

import van
from van.data.checking import check_images
from van.data.mask_readers import open_mask_reader
from van.data.segmentation import open_segmentation
from van.data.streams import StreamSet
from van.errors import ConfigError, DataError, VanNotice
from van.nn.segmenter import Segmenter
from van.recipes import get_recipe
from van.tasks.parameter_groups import stage_and_block
from van.train import run
from van.train.optimizer import base_lr, build_optimizer
from van.train.prepare import prepare
from van.train.schedule import build_schedule

FOLDER = {"data.scene_size": None, "data.resize": None, "data.val_images": None}


@pytest.fixture
def data(tmp_path):
    return make_pictures(tmp_path / "data", train=6, val=2, size=(40, 40))


def on_folder(data, out, **options):
    return slim_segmentation(out, **FOLDER, **{"data.path": str(data), **options})


def test_an_average_is_validated_and_exported(tmp_path):
    folder = run(slim_segmentation(tmp_path / "run", **{"trainer.ema_decay": 0.5}))
    averaged, plain = (load_file(folder / f"{name}.safetensors") for name in ("model", "model-without-ema"))
    name = next(key for key in plain if "classify" in key)
    assert not torch.equal(averaged[name], plain[name])
    state = torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state[f"ema.module.{name}"], torch.from_numpy(averaged[name].numpy()))
    assert van.load(folder / "model.safetensors").provenance["averaged"] is True
    scores = van.evaluate(folder / "model.safetensors", "scenes")
    assert scores["mIoU"] >= 0


def test_averaged_run_with_history_resumes(tmp_path, monkeypatch):
    options = {
        "trainer.ema_decay": 0.5, "trainer.history": 2, "trainer.early_stopping": 9, "optim.layer_decay": 0.8,
        "optim.clip_agc": 0.05, "schedule.name": "cosine", "trainer.checkpoint_every_steps": 1,
    }  # fmt: skip
    whole = run(slim_segmentation(tmp_path / "whole", **options))
    cut_off(monkeypatch, slim_segmentation(tmp_path / "cut", **options), at_step=3)
    resumed = run(slim_segmentation(tmp_path / "cut", **options, **{"trainer.resume": str(tmp_path / "cut")}))
    assert_same(whole, resumed)
    assert {path.name for path in (resumed / "history").iterdir()} == {"epoch-0001.ckpt", "epoch-0002.ckpt"}


def test_early_stopping(tmp_path):
    options = {"trainer.early_stopping": 1, "optim.lr": 0.0, "optim.weight_decay": 0.0, "model.norm_eval": True}
    folder = run(slim_segmentation(tmp_path / "run", **options, **{"trainer.steps": 12, "trainer.monitor": "val/aAcc"}))
    assert len(numbers(folder)) < 6


def test_unreadable_images_are_named_and_replaced(data, tmp_path):
    (data / "images" / "train" / "1.png").write_bytes(b"nonsense")
    (data / "masks" / "train" / "3.png").write_bytes(b"nonsense")
    with pytest.warns(VanNotice, match="stands in for it") as caught:
        folder = run(on_folder(data, tmp_path / "run"))
    assert len([each for each in caught if "stands in" in str(each.message)]) == 2
    lines = (folder / "unreadable.txt").read_text().splitlines()
    assert ["images/train/1.png" in lines[0], "images/train/3.png" in lines[1]] == [True, True]
    with pytest.raises(DataError, match=r"2 training images cannot be read, trainer\.max_unreadable is 1"):
        run(on_folder(data, tmp_path / "other", **{"trainer.max_unreadable": 1}))


def test_a_check_is_remembered_by_both_files(data, tmp_path, monkeypatch):
    monkeypatch.setenv("VAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("van.data.checking._FRESH_NS", 0)
    train = open_segmentation(data, "train")
    assert (check_images(train).decoded, check_images(train).decoded) == (6, 0)
    mask = data / "masks" / "train" / "2.png"
    mask.write_bytes((data / "masks" / "train" / "4.png").read_bytes())
    assert check_images(train).decoded == 1


def test_unreadable_validation_images_end_the_run(data, tmp_path):
    (data / "masks" / "val" / "0.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"masks.val.0\.png|1 validation image"):
        run(on_folder(data, tmp_path / "run"))


def test_layer_decay_reaches_the_poly_schedule():
    recipe = get_recipe("light_ham_digits").with_options(
        **{"optim.layer_decay": 0.5, "optim.lr": 1.0, "schedule.warmup_steps": 0, "optim.decayed": "matrices"}
    )
    model = training_of(recipe).network(prepare_data())
    optimizer = build_optimizer(model, training_of(recipe))
    schedule = build_schedule(optimizer, recipe, recipe.trainer.val_every)
    groups = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    places = sorted({stage_and_block(name) for name, _ in model.named_parameters()})
    for name, value in model.named_parameters():
        share = 0.5 ** (len(places) - 1 - places.index(stage_and_block(name)))
        assert groups[id(value)]["lr"] == pytest.approx(share), name
        assert groups[id(value)]["weight_decay"] == (recipe.optim.weight_decay if value.ndim > 1 else 0), name
    optimizer.step()
    schedule.after_step(1)
    expected = recipe.schedule.factor(1, recipe.trainer.steps)
    assert base_lr(optimizer) == pytest.approx(expected)
    assert (
        groups[id(model.backbone.stages[0].norm.weight)]["lr"] < groups[id(next(iter(model.head.parameters())))]["lr"]
    )


def prepare_data():
    return training_of(get_recipe("light_ham_digits")).open_data()[0]


def rates(**options):
    recipe = get_recipe("light_ham_digits").with_options(
        **{"optim.lr": 1.0, "schedule.warmup_steps": 10, "trainer.steps": 100, "trainer.val_every": 50, **options}
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, found = build_schedule(optimizer, recipe, 50), []
    for step in range(100):
        if step % 50 == 0:
            schedule.before_epoch(step // 50)
        found.append(base_lr(optimizer))
        schedule.after_step(step + 1)
    return found


def test_timms_schedules_count_iterations():
    cosine = rates(**{"schedule.name": "cosine", "schedule.min_lr": 0.25, "schedule.warmup_ratio": 0.5})
    assert (cosine[0], cosine[99]) == (pytest.approx(0.5), pytest.approx(0.25, abs=0.01))
    assert max(cosine) == pytest.approx(0.98, abs=0.02)
    multistep = rates(**{"schedule.name": "multistep", "schedule.milestones": (30, 60), "schedule.warmup_steps": 0})
    assert [multistep[10], multistep[45], multistep[99]] == pytest.approx([1, 0.1, 0.01])
    wsd = rates(**{"schedule.name": "wsd", "schedule.decay_steps": 0.2})
    assert wsd[12:80] == [1.0] * 68
    assert wsd[99] < 0.1
    noisy = rates(**{"schedule.name": "constant", "schedule.noise": (0.5,), "schedule.warmup_steps": 0})
    assert noisy[:50] == [1.0] * 50
    assert len({*noisy[51:]}) > 40


def test_balanced_weights_count_pixels(data, tmp_path):
    recipe = on_folder(data, tmp_path / "run", **{"loss.class_weights": "balanced"})
    weights = prepare(recipe).module.objective.loss.weights
    labels = np.concatenate([np.asarray(Image.open(p)).ravel() for p in sorted((data / "masks/train").glob("*.png"))])
    counts = np.bincount(labels, minlength=11)
    assert weights.tolist() == pytest.approx((counts.sum() / (11 * counts)).tolist(), rel=1e-6)
    named = on_folder(data, tmp_path / "run", **{"loss.class_weights": {"background": 0.5}})
    assert prepare(named).module.objective.loss.weights.tolist() == [0.5, *[1.0] * 10]
    with pytest.raises(ConfigError, match="did you mean 'background'"):
        prepare(on_folder(data, tmp_path / "run", **{"loss.class_weights": {"backgroud": 0.5}}))


# ---- streams


@pytest.fixture
def shards(tmp_path):
    """WebDataset shards of two scenes each, image and label map, without loss."""
    root = tmp_path / "shards"
    root.mkdir()
    for part, count in (("train", 8), ("val", 4)):
        images = open_segmentation("scenes", part, scene_size=32)
        for number in range(count // 2):
            with tarfile.open(root / f"{part}-{number:04d}.tar", "w") as shard:
                for index in (2 * number, 2 * number + 1):
                    image, labels = images.load(index)
                    add(shard, f"{index}.webp", image, lossless=True)
                    add(shard, f"{index}.mask.png", Image.fromarray(labels))
    (root / "names.txt").write_text("\n".join(["background", *map(str, range(10))]) + "\n")
    (root / "_info.json").write_text(json.dumps({"splits": {}}))
    return root


def add(shard, name, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, name.rpartition(".")[2], **options)
    info = tarfile.TarInfo(name)
    info.size = len(buffer.getvalue())
    buffer.seek(0)
    shard.addfile(info, buffer)


def streamed(shards, out, **options):
    return slim_segmentation(
        out,
        **{
            "data.path": str(shards), "data.scene_size": None, "data.reader": "wds",
            "data.train_split": "train-{0000..0003}.tar", "data.val_split": "val-{0000..0001}.tar",
            "data.train_images": 8, "data.val_images": 4, "data.classes": str(shards / "names.txt"),
            "trainer.workers": 0, **options,
        },
    )  # fmt: skip


def test_a_stream_gives_scenes_as_they_were(shards, tmp_path):
    pytest.importorskip("webdataset")
    recipe = streamed(shards, tmp_path / "run")
    images = open_segmentation("scenes", "val", scene_size=32)
    found = [*open_mask_reader(recipe.data, "val", seed=0, batch_size=2).images()]
    assert len(found) == 4
    for index, (_, image, labels) in enumerate(found):
        expected, mask = images.load(index)
        assert np.array_equal(np.asarray(image), np.asarray(expected))
        assert np.array_equal(labels, mask)


def test_training_on_a_stream_resumes(shards, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    # a validation every three iterations of two images: shorter than the stream, which has eight
    options = {"trainer.steps": 6, "trainer.val_every": 3, "trainer.checkpoint_every_steps": 1}
    whole = run(streamed(shards, tmp_path / "whole", **options))
    assert [row["step"] for row in numbers(whole)] == ["3", "6"]
    assert isinstance(van.load(whole / "model.safetensors"), Segmenter)
    cut_off(monkeypatch, streamed(shards, tmp_path / "cut", **options), at_step=4)
    resumed = run(streamed(shards, tmp_path / "cut", **options, **{"trainer.resume": str(tmp_path / "cut")}))
    assert_same(whole, resumed)


def test_an_epoch_longer_than_the_stream_runs_through_it_again(shards, tmp_path):
    pytest.importorskip("webdataset")
    recipe = streamed(shards, tmp_path / "run")
    train = open_mask_reader(recipe.data, "train", seed=0, batch_size=2)
    for workers in (1, 2):
        images = StreamSet(
            train, lambda image, labels, key: (image.tobytes(), key), seed=0, training=True, batch_size=2,
            workers=workers, epoch_batches=9,
        )  # fmt: skip
        assert len(images) == 18
        found = [[*each_worker(images, worker, workers)] for worker in range(workers)]
        assert [len(each) // 2 for each in found] == ([9] if workers == 1 else [5, 4])
        keys = [key for each in found for _, key in each]
        assert len({*keys}) == 18
        assert len({image for each in found for image, _ in each}) == 8


def each_worker(images, worker, workers):
    for place, (image, target) in enumerate(images.stored(0, worker, workers)):
        yield images.example(*images.data.decoded(image, target), (0, 0, worker, place))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((32, 32), 11, np.uint8), "holds 11; expected classes 0 to 10, or 255"),
        (np.zeros((32, 30), np.uint8), "32 x 32 has a label map of 30 x 32"),
        (np.zeros((32, 32, 3), np.uint8), "one value per pixel"),
    ],
)
def test_label_maps_that_do_not_fit(mask, message, shards, tmp_path):
    pytest.importorskip("webdataset")
    data = open_mask_reader(streamed(shards, tmp_path / "run").data, "val", seed=0, batch_size=2)
    with pytest.raises(DataError, match=message):
        data.decoded(Image.new("RGB", (32, 32)), Image.fromarray(mask))


def test_balanced_weights_cannot_be_counted_in_a_stream(shards, tmp_path):
    pytest.importorskip("webdataset")
    with pytest.raises(ConfigError, match="has them in a stream; give the numbers"):
        prepare(streamed(shards, tmp_path / "run", **{"loss.class_weights": "balanced"}))


def test_a_hugging_face_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    root = tmp_path / "hub"
    for part, split, count in (("train", "train", 6), ("val", "validation", 2)):
        images = [open_segmentation("scenes", part, scene_size=32).load(index) for index in range(count)]
        rows = {"image": [image for image, _ in images], "annotation": [Image.fromarray(mask) for _, mask in images]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(root / f"{split}-0.parquet")
    (tmp_path / "names.txt").write_text("\n".join(["background", *map(str, range(10))]))
    options = {"data.scene_size": None, "data.reader": "hfds", "data.classes": str(tmp_path / "names.txt")}
    recipe = slim_segmentation(tmp_path / "run", **options, **{"data.path": str(root), "trainer.workers": 0})
    folder = run(recipe)
    assert json.loads((folder / "summary.json").read_text())["val_images"] == 2
