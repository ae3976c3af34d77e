"""Figures against hand-computed ones and torchmetrics; class matching; exact counts whatever memory allows."""

import io
import json

import numpy as np
import pytest
import torch
from coded import CodedEngine, coded, coded_image, write_folder
from PIL import Image

import van
from van.checkpoints.find import find_checkpoints
from van.data import open_classification
from van.errors import CheckpointError, ConfigError, DataError, UnknownNameError, VanNotice
from van.images.confusion_picture import confusion_picture
from van.inference.evaluate import Evaluation, Failure, evaluate, evaluate_many
from van.tasks.classification.class_plan import plan_classes
from van.tasks.classification.meter import ClassificationMeter, RealMeter, confusion_matrix, softmax
from van.tasks.classification.real_labels import RealLabels

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def meter_of(logits, labels, classes="abc"):
    meter = ClassificationMeter(classes)
    meter.update(np.asarray(logits, np.float32), labels)
    return meter


class TestMeter:
    def test_by_hand(self):
        meter = ClassificationMeter("abcdefg")
        # ranks of the label: 0, 1, 4, 5
        meter.update(np.array([[9, 1, 2, 3, 4, 5, 6], [9, 8, 0, 0, 0, 0, 0]], np.float32), [0, 1])
        meter.update(np.array([[6, 5, 4, 3, 2, 1, 0], [6, 5, 4, 3, 2, 1, 0]], np.float32), [4, 5])
        assert (meter.count, meter.top1, meter.top5) == (4, 25.0, 75.0)
        expected = np.zeros((7, 7), int)
        expected[0, 0] = expected[1, 0] = expected[4, 0] = expected[5, 0] = 1
        np.testing.assert_array_equal(meter.confusion(), expected)
        scores = {score.name: score for score in meter.per_class()}
        assert set(scores) == {"a", "b", "e", "f"}
        assert (scores["a"].count, scores["a"].top1, scores["a"].confused_with) == (1, 100.0, None)
        assert (scores["b"].top1, scores["b"].top5, scores["b"].confused_with, scores["b"].confused_count) == (
            0,
            100,
            "a",
            1,
        )
        assert scores["f"].top5 == 0

    def test_most_confused_is_the_most_frequent_wrong_class(self):
        eye = np.eye(3, dtype=np.float32)
        for answers, expected in (([0, 0, 0, 1, 2, 2], "c"), ([0, 0, 0, 1, 1, 2], "b")):
            (score,) = meter_of(eye[answers], [0] * 6).per_class()
            assert (score.confused_with, score.confused_count, score.top1) == (expected, 2, 50.0)

    def test_equals_torch_and_torchmetrics(self):
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(500, 12, generator=generator)
        labels = torch.randint(0, 12, (500,), generator=generator)
        meter = ClassificationMeter("abcdefghijkl")
        for part in np.split(np.arange(500), [7, 100, 101]):
            meter.update(logits[part].numpy(), labels[part].numpy())
        for k, ours in ((1, meter.top1), (5, meter.top5)):
            theirs = multiclass_accuracy(logits, labels, 12, top_k=k, average="micro")
            assert ours == pytest.approx(100 * theirs.item(), rel=1e-6)
        assert meter.loss == pytest.approx(torch.nn.functional.cross_entropy(logits.double(), labels).item(), rel=1e-9)
        theirs = multiclass_confusion_matrix(logits, labels, 12).numpy()
        np.testing.assert_array_equal(meter.confusion(), theirs)
        by_class = multiclass_accuracy(logits, labels, 12, top_k=5, average="none").numpy()
        np.testing.assert_allclose([score.top5 for score in meter.per_class()], 100 * by_class, rtol=1e-6)

    def test_ties_go_to_the_first_class(self):
        assert meter_of([[1, 1, 0]], [0]).top1 == 100
        assert meter_of([[1, 1, 0]], [1]).top1 == 0

    @pytest.mark.parametrize("row", [[np.nan] * 3, [np.nan, 1, 0], [0, np.nan, 0]])
    def test_a_nan_never_scores(self, row):
        meter = meter_of([row], [1])
        assert (meter.top1, meter.non_finite) == (0, 1)

    def test_shapes_must_fit(self):
        with pytest.raises(DataError, match=r"logits have shape \(1, 3\); expected \(2, 3\)"):
            meter_of([[1, 2, 3]], [0, 1])

    def test_a_constant_answer_at_chance_loses_log_k(self):
        assert meter_of([[5, 5, 5]] * 2, [0, 2]).loss == pytest.approx(np.log(3))
        assert meter_of([[1e4, -1e4, 0]], [1]).loss == 2e4

    def test_empty(self):
        meter = ClassificationMeter("ab")
        assert np.isnan(meter.top1)
        assert meter.per_class() == ()

    def test_softmax_sums_to_one(self):
        np.testing.assert_allclose(softmax(np.array([[1e4, 1e4], [-1e4, 0]], np.float32)), [[0.5, 0.5], [0, 1]])


class TestRealLabels:
    def test_any_of_the_labels_counts_and_images_without_do_not(self):
        meter = RealMeter()
        logits = np.array([[5, 4, 3, 2, 1, 0, -1]] * 4, np.float32)
        meter.update(logits, [{6, 0}, {1}, set(), {5, 6}])
        assert (meter.count, meter.top1, meter.top5) == (3, pytest.approx(100 / 3), pytest.approx(200 / 3))

    def write(self, tmp_path, value):
        path = tmp_path / "real.json"
        path.write_text(json.dumps(value))
        return path

    def test_images_are_found_by_their_number(self, tmp_path):
        real = RealLabels(self.write(tmp_path, [[0], [2, 1], []]), targets=(0, 1, 2), columns=(0, 1, 2))
        assert real.of("val/n01/ILSVRC2012_val_00000002.JPEG") == {1, 2}
        assert real.of("ILSVRC2012_val_00000003.JPEG") == set()
        for name in ("ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000000.JPEG", "cat.jpg"):
            with pytest.raises(DataError, match=f"no labels for {name}"):
                real.of(name)

    def test_labels_follow_reordered_classes_and_subsets(self, tmp_path):
        path = self.write(tmp_path, [[0, 1, 2]])
        assert RealLabels(path, targets=(2, None, 0), columns=(0, 1, 2)).of("ILSVRC2012_val_00000001") == {2, 0}
        # a data set of one folder: labels are the model's own indices
        path = self.write(tmp_path, [[7, 9, 3]])
        assert RealLabels(path, targets=(1,), columns=(3, 7)).of("ILSVRC2012_val_00000001") == {0, 1}

    @pytest.mark.parametrize("value", [{"a": [1]}, [1, 2], [["cat"]], [[-1]]])
    def test_other_files_are_refused(self, tmp_path, value):
        with pytest.raises(DataError, match="holds no real labels"):
            RealLabels(self.write(tmp_path, value), (0,), (0,))


class TestPlan:
    def test_the_same_classes(self):
        plan = plan_classes("abc", 3, "abc")
        assert (plan.classes, plan.columns, plan.targets) == (("a", "b", "c"), (0, 1, 2), (0, 1, 2))
        logits = np.ones((2, 3))
        assert plan.select(logits) is logits

    def test_another_order_is_matched_by_name_and_said(self):
        with pytest.warns(VanNotice, match="in another order; matched by name"):
            plan = plan_classes("abc", 3, "cab")
        assert plan.targets == (1, 2, 0)
        assert plan.classes == ("c", "a", "b")

    def test_a_model_without_names_goes_by_position(self):
        assert plan_classes("xyz", 3).classes == ("x", "y", "z")
        with pytest.raises(DataError, match=r"data set has 2 classes \(x, y\), the model has 3; give a class map"):
            plan_classes("xy", 3)

    def test_wholly_different_names_go_by_position_and_it_is_said(self):
        with pytest.warns(VanNotice, match="differ; matched by position"):
            assert plan_classes(("n01", "n02"), 2, ("tench", "goldfish")).targets == (0, 1)

    def test_partly_different_names_are_an_error_that_lists_them(self):
        with pytest.raises(DataError, match="not in the model: dog; not in the data: bird"):
            plan_classes(("cat", "dog"), 2, ("cat", "bird"))
        with pytest.raises(DataError, match="data set has 1 classes, the model has 2; not in the data: bird"):
            plan_classes(("cat",), 2, ("cat", "bird"))

    def test_names_that_occur_twice_go_by_position(self):
        with pytest.warns(VanNotice, match="by position"):
            assert plan_classes(("a", "b", "c"), 3, ("crane", "a", "crane")).targets == (0, 1, 2)

    def test_a_subset_restricts_logits_and_images(self, tmp_path):
        plan = plan_classes("abcd", 4, "abcd", subset=["d", 1])
        assert (plan.classes, plan.columns, plan.targets) == (("b", "d"), (1, 3), (None, 0, None, 1))
        np.testing.assert_array_equal(plan.select(np.array([[0, 10, 20, 30]])), [[10, 30]])
        (tmp_path / "s.txt").write_text("# two of four\nb\n\nd\n")
        (tmp_path / "s.json").write_text('[3, "b"]')
        for name in ("s.txt", "s.json"):
            assert plan_classes("abcd", 4, "abcd", subset=tmp_path / name) == plan

    def test_folders_of_a_subset_only(self):
        assert plan_classes("bd", 4, "abcd", subset=["b", "d"]).targets == (0, 1)  # as ImageNet-A and -R
        with pytest.warns(VanNotice, match="2 class folders taken for the 2 labels of the subset, in order"):
            plan = plan_classes(("n02", "n07"), 9, subset=[7, 2])
        assert (plan.columns, plan.targets, plan.classes) == ((2, 7), (0, 1), ("n02", "n07"))

    def test_wrong_subsets(self, tmp_path):
        with pytest.raises(UnknownNameError, match="unknown class 'e'"):
            plan_classes("abcd", 4, "abcd", subset=["e"])
        with pytest.raises(UnknownNameError, match="unknown class '4'"):
            plan_classes("abcd", 4, "abcd", subset=[4])
        with pytest.raises(DataError, match=r"none of the 2 class folders \(a, b\) is in the subset"):
            plan_classes("ab", 4, "abcd", subset=["d"])
        with pytest.raises(DataError, match="is empty"):
            plan_classes("abcd", 4, subset=[])
        with pytest.raises(DataError, match=r"cannot read .*absent.txt"):
            plan_classes("abcd", 4, subset=tmp_path / "absent.txt")

    def test_digits_are_names_before_they_are_indices(self):
        assert plan_classes("10", 2, "10", subset=["1"]).columns == (0,)

    def test_class_maps(self, tmp_path):
        expected = plan_classes(
            ("cats", "kittens", "dogs"), 3, "xyz", class_map={"cats": 2, "kittens": "z", "dogs": "x"}
        )
        assert (expected.targets, expected.classes) == ((2, 2, 0), ("x", "y", "z"))
        (tmp_path / "m.txt").write_text("cats 2\nkittens z\ndogs x\n")
        (tmp_path / "m.json").write_text('{"cats": 2, "kittens": 2, "dogs": "x", "unused": 1}')
        for name in ("m.txt", "m.json"):
            assert plan_classes(("cats", "kittens", "dogs"), 3, "xyz", class_map=tmp_path / name) == expected
        (tmp_path / "order.txt").write_text("dogs\nbirds\ncats\n")
        assert plan_classes(("cats", "dogs"), 3, class_map=tmp_path / "order.txt").targets == (2, 0)
        (tmp_path / "tabs.txt").write_text("my cats\tz\ndogs\tx\n")
        assert plan_classes(("dogs", "my cats"), 3, "xyz", class_map=tmp_path / "tabs.txt").targets == (0, 2)
        with pytest.raises(DataError, match="lacks 1 of 2 class folders: birds"):
            plan_classes(("birds", "cats"), 3, class_map=tmp_path / "m.txt")
        with pytest.raises(UnknownNameError, match="unknown class '3'"):
            plan_classes(("a",), 3, class_map={"a": 3})


class TestEvaluate:
    # folder -> answers; right answers: 2 of 3, 1 of 2, 1 of 1
    ANSWERS = {"0": [0, 0, 2], "1": [1, 9], "2": [2]}  # noqa: RUF012

    @pytest.fixture
    def folder(self, tmp_path):
        return write_folder(tmp_path / "val", self.ANSWERS)

    def test_the_figures(self, folder):
        result = evaluate(coded(3), folder)
        assert result.top1 == pytest.approx(100 * 4 / 6)
        assert (result.count, result.top5, result.split, result.checkpoint) == (6, 100.0, "all", "coded")
        np.testing.assert_array_equal(result.confusion, [[2, 0, 1], [0, 1, 1], [0, 0, 1]])
        assert [(s.name, s.count, s.confused_with) for s in result.per_class] == [
            ("0", 3, "2"),
            ("1", 2, "2"),
            ("2", 1, None),
        ]
        assert dict(result)["top1"] == result.top1
        assert dict(result)["images_per_second"] > 0
        assert "original_top1" not in dict(result)
        assert json.loads(json.dumps(result.to_dict()))["confusion"] == result.confusion.tolist()

    @pytest.mark.parametrize("workers", [0, 3])
    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_batches_and_threads_change_nothing(self, folder, batch_size, workers):
        reference, result = (
            evaluate(coded(3), folder),
            evaluate(coded(3), folder, batch_size=batch_size, workers=workers),
        )
        assert result.per_class == reference.per_class
        assert result.loss == reference.loss

    def test_too_little_memory_halves_the_batch_and_counts_every_image_once(self, tmp_path):
        folder = write_folder(tmp_path / "val", {"0": [0] * 11, "1": [1] * 7 + [0] * 2})
        with pytest.warns(VanNotice, match="memory ran out"):
            result = evaluate(coded(2, limit=3), folder, batch_size=16)
        assert (result.count, result.batch_size) == (20, 2)
        np.testing.assert_array_equal(result.confusion, [[11, 0], [2, 7]])

    def test_equals_a_plain_loop(self):
        model = van.create_model("van_b0", seed=0, num_classes=10, **TINY)
        model.preprocess = model.preprocess.with_overrides(size=32)
        data = open_classification("digits", "val")
        pixels = torch.from_numpy(np.stack([model.preprocess(data.load(i)[0]) for i in range(len(data))]))
        labels = torch.tensor(data.labels)
        with torch.no_grad():
            logits = model.eval()(pixels)
        result = evaluate(model, "digits", batch_size=64)
        assert result.count == len(data) == 359
        assert result.top1 == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
        assert result.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
        assert result.data == "digits"
        everything = evaluate(model, "digits", split="all", size=16)
        assert (everything.count, everything.preprocess.size) == (1797, (16, 16))

    def test_a_subset_restricts_logits_and_images(self, folder):
        result = evaluate(coded(3), folder, classes_subset=["0", "1"])
        # the image of class 0 that looks like 2 now looks like 1, its nearest; the 9 too
        np.testing.assert_array_equal(result.confusion, [[2, 1], [0, 2]])
        assert (result.count, result.classes) == (5, ("0", "1"))

    def test_a_class_map_for_folders_of_other_names(self, tmp_path):
        folder = write_folder(tmp_path / "photos", {"cat": [2], "kitten": [2, 0], "dog": [0]})
        result = evaluate(
            coded(3, classes=("Dog", "Bird", "Cat")), folder, class_map={"cat": "Cat", "kitten": 2, "dog": 0}
        )
        assert (result.count, result.top1) == (4, 75.0)
        assert [score.name for score in result.per_class] == ["Dog", "Cat"]

    def test_reordered_folders_are_matched_by_name(self, folder):
        with pytest.warns(VanNotice, match="matched by name"):
            result = evaluate(coded(3, classes=("2", "1", "0")), folder)
        # answer k now means class 2 - k: right for one 2 of folder "0", one 1
        assert result.top1 == pytest.approx(100 * 2 / 6)

    def test_real_labels(self, tmp_path):
        for number, (name, answer) in enumerate([("0", 0), ("0", 1), ("1", 0), ("1", 1)], start=1):
            (tmp_path / "val" / name).mkdir(parents=True, exist_ok=True)
            coded_image(answer).save(tmp_path / "val" / name / f"ILSVRC2012_val_{number:08d}.png")
        (tmp_path / "real.json").write_text("[[0, 1], [0, 1], [], [0]]")
        result = evaluate(coded(2), tmp_path / "val", real_labels=tmp_path / "real.json")
        assert (result.count, result.top1) == (3, pytest.approx(200 / 3))
        assert (result.original_count, result.original_top1) == (4, 50.0)
        assert dict(result)["original_top1"] == 50.0

    def test_an_unreadable_image_is_never_left_out(self, folder):
        (folder / "1" / "broken.png").write_text("x")
        with pytest.raises(DataError, match=r"broken\.png"):
            evaluate(coded(3), folder)

    def test_an_output_that_is_no_number_counts_as_wrong(self, folder):
        opened = coded(3)
        opened.engine.run = lambda images: {"logits": np.full((len(images), 3), np.nan, np.float32)}
        with pytest.warns(VanNotice, match="6 of 6 images gave logits that are not finite"):
            result = evaluate(opened, folder)
        assert (result.top1, result.non_finite) == (0, 6)
        assert result.to_dict()["loss"] is None

    def test_which_images(self, tmp_path, folder):
        classes = {"0": [0] * 5, "1": [1] * 5}
        single = write_folder(tmp_path / "photos", classes)
        with pytest.warns(VanNotice, match=r"no val/ folder: evaluating the 2 image\(s\) that training holds out"):
            assert evaluate(coded(2), single).count == 2
        for options in ({"split": "all"}, {"class_map": {"0": 0, "1": 1}}, {"classes_subset": [0, 1]}):
            assert evaluate(coded(2), single, **options).count == 10
        assert evaluate(coded(2), single, split="train").count == 8
        write_folder(tmp_path / "layout" / "train", classes)
        write_folder(tmp_path / "layout" / "val", {"0": [0], "1": [1]})
        assert evaluate(coded(2), tmp_path / "layout").count == 2
        assert evaluate(coded(2), tmp_path / "layout", split="train").count == 10

    def test_what_training_held_out_is_evaluated(self, tmp_path):
        single = write_folder(tmp_path / "photos", {"0": [0] * 5, "1": [1] * 5})
        opened = coded(2, provenance={"split": {"seed": 7, "val_fraction": 0.4}})
        with pytest.warns(VanNotice, match=r"the 4 image\(s\) that training holds out of it \(seed 7\)"):
            assert evaluate(opened, single).count == 4
        with pytest.warns(VanNotice, match=r"the 2 image\(s\) that training holds out of it \(seed 3\)"):
            assert evaluate(opened, single, seed=3, val_fraction=0.2).count == 2

    def test_progress_ends_at_the_total(self, folder):
        calls = []
        evaluate(coded(3), folder, batch_size=4, progress=lambda *args: calls.append(args))
        assert calls == [(4, 6), (6, 6)]

    def test_unknown_options(self, folder):
        with pytest.raises(UnknownNameError, match="did you mean 'batch_size'"):
            evaluate(coded(3), folder, batchsize=4)
        with pytest.raises(ConfigError, match="split is 'vall'"):
            evaluate(coded(3), folder, split="vall")


class TestSeveral:
    @pytest.fixture
    def checkpoints(self, tmp_path):
        for seed, name in enumerate(("a.safetensors", "deep/b.safetensors", "c.pth.tar")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            model = van.create_model("van_b0", seed=seed, num_classes=10, **TINY)
            model.preprocess = model.preprocess.with_overrides(size=16)
            if name.endswith("tar"):
                van.save(model, tmp_path / name, format="official")
            else:
                van.save(model, tmp_path / name)
        (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04")
        (tmp_path / "notes.txt").touch()
        return tmp_path

    def test_one_sorted_table_in_which_a_failure_is_reported(self, checkpoints):
        results = evaluate_many(checkpoints, "digits", size=16)
        assert [type(result) for result in results] == [Evaluation] * 3 + [Failure]
        scores = [result.top1 for result in results[:3]]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) > 1
        assert results[3].checkpoint.endswith("broken.pth")
        assert "truncated or corrupt" in results[3].reason
        for result in results[:3]:
            assert evaluate(result.checkpoint, "digits", size=16).top1 == result.top1

    def test_what_is_wrong_with_the_data_is_said_once(self, checkpoints):
        with pytest.raises(DataError, match="does not exist"):
            evaluate_many([checkpoints], checkpoints / "absent")

    def test_sources(self, checkpoints, tmp_path):
        relative = lambda found: [name.removeprefix(f"{tmp_path}/") for name in found]  # noqa: E731
        everything = ["a.safetensors", "broken.pth", "c.pth.tar", "deep/b.safetensors"]
        assert relative(find_checkpoints([checkpoints])) == everything
        found = find_checkpoints([checkpoints / "c.pth.tar", checkpoints / "*.*t*r*"])
        assert relative(found) == ["c.pth.tar", "a.safetensors"]  # each once
        assert relative(find_checkpoints([checkpoints / "**" / "b.*"])) == ["deep/b.safetensors"]
        assert find_checkpoints(["org/name", "absent.pth"]) == ["org/name", "absent.pth"]
        (checkpoints / "hub").mkdir()
        (checkpoints / "hub" / "model.safetensors").touch()
        (checkpoints / "hub" / "extra.bin").touch()
        assert relative(find_checkpoints([checkpoints]))[-1] == "hub"
        (checkpoints / "empty").mkdir()
        for pattern in ("empty", "*.onnx"):
            with pytest.raises(CheckpointError, match=r"holds no checkpoint|nothing matches"):
                find_checkpoints([checkpoints / pattern])


class TestPicture:
    def picture(self, confusion, names):
        return Image.open(io.BytesIO(confusion_picture(np.asarray(confusion), names, "title"))).convert("L")

    def test_ten_classes_carry_names_and_counts(self):
        image = self.picture(np.eye(10, dtype=int) * 30, [f"class {i}" for i in range(10)])
        assert 600 < image.width < 1600
        assert 600 < image.height < 1600

    def test_a_thousand_classes_have_a_pixel_each(self):
        generator = np.random.default_rng(0)
        confusion = np.diag(generator.integers(1, 50, 1000))
        confusion[generator.integers(0, 1000, 500), generator.integers(0, 1000, 500)] += 1
        pixels = np.asarray(self.picture(confusion, ["x"] * 1000))
        square = pixels[pixels.shape[0] - 120 - 1000 : pixels.shape[0] - 120, 120 : 120 + 1000]
        # all but the frame, which lies on the outermost pixels
        np.testing.assert_array_equal((square < 245)[5:-5, 5:-5], (confusion > 0)[5:-5, 5:-5])

    def test_classes_that_do_not_occur_are_left_out(self):
        sparse = np.zeros((5000, 5000), int)
        sparse[7, 7] = sparse[7, 4000] = 1
        assert self.picture(sparse, ["x"] * 5000).width < 1000
        with pytest.raises(ConfigError, match="4001 classes are too many"):
            self.picture(np.eye(4001, dtype=np.int8), ["x"] * 4001)

    def test_confusion_matrix_rows_are_true_classes(self):
        np.testing.assert_array_equal(confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2), [[0, 2], [0, 1]])


def test_the_coded_engine_is_what_the_tests_take_it_for():
    images = np.full((1, 3, 4, 4), 3 * 20 / 255, np.float32)
    assert CodedEngine(10).run(images)["logits"].argmax() == 3
