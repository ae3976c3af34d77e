"""Engines, look-ahead decoding and the Predictor."""

import threading
import time

import numpy as np
import pytest
import torch
from coded import CodedEngine, coded, coded_image
from PIL import Image

import van
from van.errors import ConfigError, DataError, UnknownNameError, VanNotice
from van.images.preprocess import Preprocess
from van.inference.batch_backoff import BatchBackoff, is_out_of_memory
from van.inference.engines.torch_engine import TorchEngine
from van.inference.predictor import Failure, Prediction, Predictor, find_images
from van.inference.prefetch import in_order
from van.inference.session import open_classifier
from van.tasks.classification.processor import ClassificationProcessor

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    model = van.create_model("van_b0", seed=0, num_classes=7, **TINY)
    model.preprocess = model.preprocess.with_overrides(size=32)
    return model


def noise(seed=0, shape=(40, 50, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class TestTorchEngine:
    def test_runs_the_model_in_eval_mode(self, model):
        images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
        model.train()
        logits = TorchEngine(model).run(images)["logits"]
        assert not model.training
        with torch.no_grad():
            expected = model(torch.from_numpy(images))
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_low_precision_is_close_and_returned_as_float32(self, model, precision):
        images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
        exact, rough = (TorchEngine(model, precision=p).run(images)["logits"] for p in ("fp32", precision))
        assert rough.dtype == np.float32
        assert 0 < np.abs(rough - exact).max() < 0.05

    def test_says_what_it_cannot_do(self, model):
        with pytest.raises(ConfigError, match=r"shape \(1, 4, 32, 32\); this model expects \(N, 3, H, W\)"):
            TorchEngine(model).run(np.zeros((1, 4, 32, 32), np.float32))
        with pytest.raises(UnknownNameError, match="did you mean 'bf16'"):
            TorchEngine(model, precision="bf15")
        for device in ("cud", "meta", "cuda:99"):
            with pytest.raises(ConfigError, match=f"device '{device}' cannot be used"):
                TorchEngine(model, device)

    def test_a_model_that_is_no_classifier_is_named(self):
        with pytest.raises(ConfigError, match=r"returned \(1, 3, 4, 4\); expected \(N, K\) logits"):
            ClassificationProcessor(Preprocess(size=4), "abc").run(
                TorchEngine(torch.nn.Identity()), [np.zeros((3, 4, 4), np.float32)]
            )


def backoff(engine, batch_size):
    return BatchBackoff(lambda images: list(engine.run(np.stack(images))["logits"]), batch_size)


class TestBatchBackoff:
    def test_every_image_once_and_in_order(self):
        engine = CodedEngine(10, limit=3)
        images = [np.full((3, 2, 2), k * 20 / 255, np.float32) for k in [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]]
        run = backoff(engine, 8)
        with pytest.warns(VanNotice, match="memory ran out with a batch of") as told:
            logits = np.stack(run(images))
        assert "batch of 4; continuing with 2" in str(told[1].message)
        assert logits.argmax(1).tolist() == [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
        assert engine.batches == [8, 4, 2, 2, 2, 2, 2, 1]
        assert run.batch_size == 2
        assert np.stack(run(images[:2])).shape == (2, 10)  # and stays small

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("x"),
            MemoryError(),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried …"),
        ],
    )
    def test_recognises_what_allocators_say(self, error):
        assert is_out_of_memory(error)
        with pytest.warns(VanNotice, match="memory ran out"):
            assert len(backoff(CodedEngine(3, limit=1, error=error), 2)([np.zeros((3, 2, 2))] * 2)) == 2

    def test_other_errors_pass(self):
        error = RuntimeError("shapes do not match")
        with pytest.raises(RuntimeError, match="shapes do not match"):
            backoff(CodedEngine(3, limit=1, error=error), 2)([np.zeros((3, 2, 2))] * 2)

    def test_one_image_too_many(self):
        with pytest.raises(ConfigError, match="memory runs out with a single image of 2 x 4"):
            backoff(CodedEngine(3, limit=-1), 1)([np.zeros((3, 2, 4))])
        with pytest.raises(ConfigError, match="batch_size is 0"):
            backoff(CodedEngine(3), 0)


class TestInOrder:
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_keeps_the_order_and_hands_over_exceptions(self, workers):
        def invert(x):
            time.sleep(0.002 * (x % 3))
            return 1 / x

        results = list(in_order(invert, [4, 0, 2, 5], workers=workers, ahead=2))
        assert [item for item, _ in results] == [4, 0, 2, 5]
        assert [value for _, value in results if not isinstance(value, Exception)] == [0.25, 0.5, 0.2]
        assert isinstance(results[1][1], ZeroDivisionError)

    def test_never_runs_further_ahead_than_told(self):
        started, lock = [], threading.Lock()

        def note(x):
            with lock:
                started.append(x)
            return x

        stream = in_order(note, range(100), workers=2, ahead=5)
        for _ in range(10):
            next(stream)
        time.sleep(0.05)
        assert 10 <= len(started) <= 15
        stream.close()

    def test_negative_workers(self):
        with pytest.raises(ConfigError, match="workers is -1"):
            next(in_order(str, [1], workers=-1, ahead=1))


class TestOpening:
    def test_channels_must_fit(self):
        gray = van.create_model("van_b0", num_classes=3, in_chans=1, **TINY)
        gray.preprocess = van.create_model("van_b0", num_classes=3, **TINY).preprocess
        with pytest.raises(ConfigError, match=r"takes images of 1 channel\(s\), its preprocessing makes 3 \(RGB\)"):
            open_classifier(gray)
        opened = open_classifier(gray, overrides={"mean": (0.5,), "std": (0.5,), "size": 32})
        assert Predictor(opened)(noise()).probability > 0

    def test_a_backbone_classifies_nothing(self):
        with pytest.raises(ConfigError, match="no classification head"):
            open_classifier(van.create_model("van_b0", num_classes=0, **TINY))

    def test_ema_is_a_matter_of_files(self, model):
        with pytest.raises(ConfigError, match="ema"):
            open_classifier(model, ema=True)

    def test_test_time_pooling_uses_windows_of_the_training_size(self, model):
        pooled = open_classifier(model, test_time_pool=True, overrides={"size": 96})
        assert pooled.engine.model.pool_size == 1  # made for 32 pixels, whose last map is 1 x 1
        image = pooled.preprocess(Image.fromarray(noise()))[None]
        features = model.forward_features(torch.from_numpy(image))  # (1, C, 3, 3)
        logits = model.head(features.flatten(2).mT)
        expected = (logits.mean(1) + logits.amax(1)) / 2
        np.testing.assert_allclose(pooled.engine.run(image)["logits"], expected.detach().numpy(), rtol=1e-4, atol=1e-5)

    def test_optimised_answers_the_same(self, model):
        plain, fast = (open_classifier(model.eval(), optimize=flag) for flag in (False, True))
        images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
        np.testing.assert_allclose(plain.engine.run(images)["logits"], fast.engine.run(images)["logits"], atol=1e-5)
        assert len(fast.engine.model.state_dict()) < len(model.state_dict())  # folded
        assert fast.preprocess == plain.preprocess

    def test_pooling_changes_nothing_at_the_training_size(self, model):
        plain, pooled = (Predictor(model, test_time_pool=pool)(noise()) for pool in (False, True))
        assert plain == pooled


class TestPredictor:
    def test_equals_the_model_on_the_preprocessed_pixels(self, model, tmp_path):
        Image.fromarray(noise()).save(tmp_path / "a.png")
        prediction = Predictor(model, top=3)(tmp_path / "a.png")
        with torch.no_grad():
            pixels = model.preprocess(Image.fromarray(noise()))
            expected = model(torch.from_numpy(pixels[None])).double().softmax(1)[0]
        assert [index for _, index, _ in prediction.top] == expected.argsort(descending=True)[:3].tolist()
        assert [p for _, _, p in prediction.top] == pytest.approx(
            expected.sort(descending=True)[0][:3].tolist(), rel=1e-5
        )
        assert (prediction.image, prediction.label) == (str(tmp_path / "a.png"), str(prediction.index))
        assert prediction.probability == prediction.top[0][2]

    def test_loads_a_checkpoint_with_its_labels(self, model, tmp_path):
        model.classes = tuple("abcdefg")
        van.save(model, tmp_path / "m.safetensors")
        predictor = van.Predictor(tmp_path / "m.safetensors", top=99)
        prediction = predictor(noise())
        assert predictor.classes == tuple("abcdefg")
        assert prediction.label == "abcdefg"[prediction.index]
        assert len(prediction.top) == 7
        assert sum(p for _, _, p in prediction.top) == pytest.approx(1)
        assert prediction == Predictor(model, top=7)(noise())

    def test_every_kind_of_image(self, tmp_path):
        predictor = Predictor(coded())
        coded_image(6).save(tmp_path / "six.png")
        level = np.full((5, 6), 120, np.uint8)
        rgba = np.dstack([level] * 3 + [level * 0])
        images = [tmp_path / "six.png", str(tmp_path / "six.png"), coded_image(6), level, level[..., None], rgba]
        assert [predictor(image).index for image in images] == [6] * 6
        for wrong in (level.astype(np.float32), level[None, None], rgba[..., :2]):
            with pytest.raises(DataError, match="expected uint8 pixels"):
                predictor(wrong)
        with pytest.raises(DataError, match="of type int"):
            predictor(3)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("batch_size", [1, 3, 50])
    def test_many_in_order_with_failures_in_their_place(self, tmp_path, batch_size, workers):
        answers = [3, 1, 4, None, 1, 5, None, None, 9, 2]
        for i, answer in enumerate(answers):
            path = tmp_path / f"{i}.png"
            path.write_text("broken") if answer is None else coded_image(answer).save(path)
        predictor = Predictor(coded(classes=tuple("abcdefghij")), batch_size=batch_size, workers=workers)
        results = list(predictor.predict_many(tmp_path / f"{i}.png" for i in range(10)))
        seen = [None if isinstance(result, Failure) else result.index for result in results]
        assert seen == answers
        assert results[0].label == "d"
        assert [result.image for result in results] == [str(tmp_path / f"{i}.png") for i in range(10)]
        assert "3.png cannot be read" in results[3].reason

    def test_many_survive_too_little_memory(self):
        opened = coded(limit=2)
        answers = [3, 1, 4, 1, 5, 9, 2]
        with pytest.warns(VanNotice, match="memory ran out"):
            results = list(Predictor(opened, batch_size=8).predict_many(map(coded_image, answers)))
        assert [result.index for result in results] == answers
        assert results[1].image == "image 1"

    def test_nothing_in_nothing_out(self):
        assert list(Predictor(coded()).predict_many([])) == []

    def test_probabilities_survive_huge_logits(self):
        opened = coded(3)
        opened.engine.run = lambda images: {"logits": np.array([[1e5, 1e5, -1e5]], np.float32)}
        prediction = Predictor(opened)(coded_image(0))
        assert prediction.top == (("0", 0, 0.5), ("1", 1, 0.5), ("2", 2, 0.0))

    def test_an_output_that_is_no_number_is_a_failure(self):
        opened = coded(2)
        opened.engine.run = lambda images: {"logits": np.array([[np.nan, 0]], np.float32)}
        assert isinstance(next(Predictor(opened).predict_many([coded_image(0)])), Failure)
        with pytest.raises(DataError, match="image 0: the network's output is not finite"):
            Predictor(opened)(coded_image(0))

    def test_overrides_reach_the_pixels(self, model):
        small, large = (Predictor(model, size=size) for size in (None, 64))
        assert (small.opened.preprocess.size, large.opened.preprocess.size) == ((32, 32), (64, 64))
        assert small(noise()) != large(noise())
        with pytest.raises(ConfigError, match="top is 0"):
            Predictor(model, top=0)


class TestFindImages:
    @pytest.fixture
    def tree(self, tmp_path):
        for name in ("b.png", "a.JPG", "deep/er/c.webp", "notes.txt", ".hidden.png", ".cache/x.png", "[1].png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "empty").mkdir()
        return tmp_path

    def names(self, tree, *patterns):
        found, failures = find_images(str(tree / pattern) for pattern in patterns)
        return [str(path.relative_to(tree)) for path in found], [failure.reason for failure in failures]

    def test_folders_are_searched_for_visible_images(self, tree):
        assert self.names(tree, ".") == (["[1].png", "a.JPG", "b.png", "deep/er/c.webp"], [])

    def test_files_and_matches_count_whatever_their_name_each_once(self, tree):
        assert self.names(tree, "notes.txt", "b.png", "*.png", "b.png")[0] == ["notes.txt", "b.png", "[1].png"]
        assert self.names(tree, "**/*.webp", "deep")[0] == ["deep/er/c.webp"]

    def test_a_name_with_brackets_is_found(self, tree):
        assert self.names(tree, "[1].png") == (["[1].png"], [])

    def test_what_stands_for_nothing_is_told(self, tree):
        found, reasons = self.names(tree, "nope.png", "*.gif", "empty")
        assert found == []
        assert reasons == ["no such file or folder, and nothing matches it as a pattern"] * 2 + [
            "no images in this folder"
        ]


def test_a_prediction_is_a_value():
    one = Prediction(image="a", top=(("cat", 1, 0.75), ("dog", 0, 0.25)))
    assert (one.label, one.index, one.probability) == ("cat", 1, 0.75)


IMAGES = tuple(np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), np.uint8))


class TestPrepared:
    """What services use: images prepared in threads of their own, run together."""

    def test_prepared_images_give_what_a_call_gives(self, model):
        predictor = van.Predictor(model)
        prepared = [predictor.prepare(image) for image in IMAGES]
        assert [each.top for each in predictor.run(prepared)] == [each.top for each in predictor(list(IMAGES))]

    def test_a_bad_image_is_a_failure_in_its_place(self, model):
        predictor = van.Predictor(model)
        good, bad = predictor.prepare(IMAGES[0]), predictor.prepare(b"nothing", 7)
        first, failed, last = predictor.run([good, bad, good])
        assert first.label == last.label == predictor(IMAGES[0]).label
        assert isinstance(failed, Failure)
        assert failed == bad.failure
        assert failed.image == "image 7"
        assert good.failure is None

    def test_nothing_prepared_gives_nothing(self, model):
        assert van.Predictor(model).run([]) == []

    def test_images_that_list_other_numbers_of_classes_run_together(self, model):
        predictor = van.Predictor(model, batch_size=2)
        runs = []
        model.register_forward_hook(lambda module, inputs, output: runs.append(len(inputs[0])))
        prepared = [each.prepare(IMAGES[0]) for each in (predictor, predictor.listing(1))]
        assert [len(each.top) for each in predictor.run(prepared)] == [5, 1]
        assert runs == [2]

    def test_listing_of_the_default_lists_so_many_whatever_the_predictor_does(self, model):
        assert len(van.Predictor(model, top=2).listing(5)(IMAGES[0]).top) == 5

    def test_listing_nothing_is_refused(self, model):
        with pytest.raises(ConfigError, match="top is 0"):
            van.Predictor(model).listing(0)
