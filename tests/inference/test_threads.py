"""One Predictor in many threads: what comes out is what one thread gets, bit for bit, with every engine."""

import functools
import multiprocessing
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from exported import PICTURES, SUFFIX, classifier, picture, segmenter

import van
from van.inference.batch_backoff import BatchBackoff
from van.inference.engines.exported import open_exported
from van.inference.engines.torch_engine import TorchEngine
from van.inference.predictor import Predictor
from van.inference.session import open_classifier

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

THREADS = 8
IMAGES = [picture(height=40 + 20 * (i % 3), width=50 + 15 * (i % 4), seed=i) for i in range(50)]
ENGINES = ["torch", "optimised", "bf16", *SUFFIX.values()]
pytestmark = pytest.mark.promise("6")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """classifier and segmenter as checkpoints and in every exported format."""
    folder = tmp_path_factory.mktemp("threads")
    for name, model in {"classifier": classifier(), "segmenter": segmenter()}.items():
        van.save(model, folder / f"{name}.safetensors")
        for suffix in SUFFIX.values():
            van.export(model, folder / f"{name}{suffix}", images=PICTURES[:1])
    return folder


def opened(path, engine="torch"):
    if engine in SUFFIX.values():
        return Predictor(path.with_suffix(engine))
    options = {"optimised": {"optimize": True}, "bf16": {"precision": "bf16"}}.get(engine, {})
    return Predictor(path.with_suffix(".safetensors"), **options)


def bits(result):
    return result.mask.tobytes() if hasattr(result, "mask") else result.top


def check(predict, images=IMAGES):
    """Every thread runs all images, each from another one on."""
    want = [bits(predict(image)) for image in images]

    def turned(first):
        return [bits(predict(image)) for image in images[first:] + images[:first]]

    with ThreadPoolExecutor(THREADS) as pool:
        for first, got in enumerate(pool.map(turned, range(THREADS))):
            assert got == want[first:] + want[:first]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.long
def test_classifiers(desk, engine):
    check(opened(desk / "classifier", engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.long
def test_segmenters(desk, engine):
    check(opened(desk / "segmenter", engine), IMAGES[:4])


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.long
def test_int8(desk, tmp_path, suffix):
    pytest.importorskip("nncf") if suffix == ".xml" else None
    for number, image in enumerate(PICTURES):
        image.save(tmp_path / f"{number}.png")
    van.quantize(desk / "classifier.safetensors", tmp_path / f"int8{suffix}", calibration=tmp_path, max_drop=1.0)
    check(Predictor(tmp_path / f"int8{suffix}"))


@pytest.mark.long
def test_keras(desk):
    pytest.importorskip("keras")
    try:
        engine = open_classifier(desk / "classifier.safetensors", engine="keras")
    except van.VanError as error:
        pytest.skip(str(error))
    check(Predictor(engine), IMAGES[:10])


def test_an_optimised_network_by_itself():
    """Wide enough for every path of the C kernel, in several sizes and batches at once."""
    network = van.optimize(van.create_model("van_b0", seed=0, num_classes=5))
    draw = torch.Generator().manual_seed(0)
    images = [torch.randn(1 + i % 2, 3, 32 + 32 * (i % 3), 64, generator=draw) for i in range(6)]
    with torch.inference_mode():
        want = [network(image) for image in images]

    def turned(first):
        with torch.inference_mode():
            return [network(image) for image in images[first:] + images[:first]]

    with ThreadPoolExecutor(THREADS) as pool:
        for first, got in enumerate(pool.map(turned, range(6))):
            assert all(map(torch.equal, got, want[first:] + want[:first]))


def test_a_compiled_model_compiles_a_new_size_once(monkeypatch):
    calls, lock = [], threading.Lock()
    model = classifier()
    together = threading.Barrier(2)

    def compiled(images):
        with lock:
            calls.append(tuple(images.shape))
        if len(calls) <= 2:  # two threads inside at the first size would meet here
            with pytest.raises(threading.BrokenBarrierError):
                together.wait(0.2)
        return model.forward(images)

    monkeypatch.setattr(model, "_compiled_call_impl", compiled)
    engine = TorchEngine(model)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: engine.run(np.zeros((1, 3, 32, 32), np.float32)), range(2)))
    assert len(calls) == 2
    again = pickle.loads(pickle.dumps(TorchEngine(classifier())))
    assert again.run(np.zeros((1, 3, 32, 32), np.float32))["logits"].shape == (1, 5)


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
@pytest.mark.long
def test_openvino_keeps_no_more_requests_than_callers_at_once(desk, name):
    engine = open_exported(desk / f"{name}.xml", threads=1)
    images = np.ones((1, 3, 32, 32), np.float32)
    for _ in range(20):
        threads = [threading.Thread(target=engine.run, args=(images,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 <= len(engine._requests(images.shape).idle) <= 3


@pytest.mark.long
def test_openvino_int8_computes_the_first_image_like_the_second(desk):
    """A graph with free sizes and one for a fixed size round int8 differently, so a shape has one graph."""
    engine = open_exported(desk / "classifier.xml", threads=1)
    shape = (1, 3, 32, 32)
    assert engine._requests(shape) is engine._requests(shape) is not engine.free


@pytest.mark.long
def test_lists_in_turn(desk):
    """Two generators of one Predictor, a result of each at a time."""
    predict = Predictor(desk / "classifier.safetensors", batch_size=4)
    forward, backward = predict.predict_many(IMAGES[:10]), predict.predict_many(IMAGES[9::-1])
    pairs = list(zip(forward, backward, strict=True))
    assert [one.top for one, _ in pairs] == [each.top for each in predict.predict_many(IMAGES[:10])]
    assert [two.top for _, two in pairs] == [each.top for each in predict.predict_many(IMAGES[9::-1])]


class Cramped:
    """Memory for `limit` images at a time, over all callers."""

    def __init__(self, limit):
        self.limit, self.used, self.lock = limit, 0, threading.Lock()

    def run(self, images):
        with self.lock:
            if self.used + len(images) > self.limit:
                raise MemoryError
            self.used += len(images)
        threading.Event().wait(0.002)
        with self.lock:
            self.used -= len(images)
        return {"logits": images[:, :, 0, 0]}


@pytest.mark.parametrize("limit", [1, 5])
def test_batches_shrink_under_threads(limit):
    engine = Cramped(limit)
    run = BatchBackoff(lambda images: list(engine.run(np.stack(images))["logits"]), 16)
    images = [np.full((3, 2, 2), i, np.float32) for i in range(16)]
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        warnings.simplefilter("ignore")
        results = list(pool.map(lambda _: [int(row[0]) for row in run(images)], range(THREADS)))
    assert results == [list(range(16))] * THREADS
    assert 1 <= run.batch_size <= limit


@pytest.mark.parametrize("name", ["classifier", "segmenter"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.long
def test_a_predictor_can_be_pickled(desk, name, engine):
    predict = opened(desk / name, engine)
    again = pickle.loads(pickle.dumps(predict))
    assert bits(again(IMAGES[0])) == bits(predict(IMAGES[0]))


@pytest.mark.long
def test_a_predictor_goes_to_a_spawned_process(desk):
    predict = opened(desk / "classifier", ".xml")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(predict, (IMAGES[0],)).top == predict(IMAGES[0]).top


@pytest.mark.long
def test_opening_in_many_threads_starts_openvino_once(desk, monkeypatch):
    """Two of its cores alive, and the next signal may end the process."""
    from van.inference.engines import openvino_engine

    made, whole = [], openvino_engine.the_core

    def slowly():
        made.append(1)
        threading.Event().wait(0.05)
        return whole()

    monkeypatch.setattr(openvino_engine, "the_core", functools.cache(slowly))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_exported(desk / "classifier.xml", threads=1), range(4)))
    assert len(made) == 1


def test_optimising_in_many_threads_leaves_torchs_settings(desk):
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings], torch.get_float32_matmul_precision()
    model = classifier()
    want = van.optimize(model)(torch.ones(1, 3, 32, 32))
    with ThreadPoolExecutor(4) as pool:
        for fast in pool.map(lambda _: van.optimize(model), range(12)):
            assert torch.equal(fast(torch.ones(1, 3, 32, 32)), want)
    assert ([setting.fp32_precision for setting in settings], torch.get_float32_matmul_precision()) == before
