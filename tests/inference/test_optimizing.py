"""Which network runs: the optimised one by itself, the network as it is where that is right or asked for."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import TINY, gap, images, lived_in, tiny

import van
from van import ops
from van.errors import ConfigError
from van.images.preprocess import Preprocess
from van.inference import optimizing
from van.inference.embed import Embedder
from van.inference.session import open_session
from van.models import create_model
from van.nn import is_folded
from van.nn.fold import FoldedStage


@pytest.fixture(autouse=True)
def _kernel_served(monkeypatch):
    """A processor whose kernel computes folded networks, whatever this one is."""
    monkeypatch.setattr(ops, "path_taken", lambda _: True)


def picture(seed=0, shape=(70, 80, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def network():
    model = tiny().eval()
    model.preprocess = Preprocess(size=(64, 64))
    return model


@pytest.fixture
def checkpoint(tmp_path):
    van.save(network(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def logits(session, x=None):
    return session.engine.run_tensors(images() if x is None else x)["logits"]


@pytest.mark.parametrize("opened", [van.Predictor, Embedder, open_session])
def test_a_checkpoint_is_optimised_by_itself(checkpoint, opened):
    def session(**options):
        return (found := opened(checkpoint, **options)) and getattr(found, "opened", found)

    assert session().optimized
    assert session(optimize="auto").optimized
    assert session(optimize=True).optimized
    assert not session(optimize=False).optimized


def test_of_a_file_nothing_but_the_folded_network_is_kept(checkpoint):
    engine = open_session(checkpoint).engine
    assert engine.network is engine.running
    assert is_folded(engine.network)


def test_results_differ_by_rounding_alone(checkpoint):
    plain, fast = (open_session(checkpoint, optimize=optimize) for optimize in (False, "auto"))
    assert not torch.equal(logits(fast), logits(plain))  # another network
    assert gap(logits(fast), logits(plain)) < 1e-5
    one, two = (Embedder(checkpoint, optimize=optimize)(picture()) for optimize in (False, "auto"))
    np.testing.assert_allclose(two, one, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("wrong", ["yes", None, 1, "Auto"])
def test_other_values_are_refused(checkpoint, wrong):
    with pytest.raises(ConfigError, match="expected True, False or 'auto'"):
        open_session(checkpoint, optimize=wrong)


@pytest.mark.parametrize(("number", "optimised"), [(1, False), (optimizing.FEW - 1, False), (optimizing.FEW, True)])
def test_a_few_images_are_not_worth_it(checkpoint, number, optimised):
    assert open_session(checkpoint, images=number).optimized is optimised
    assert open_session(checkpoint, images=number, optimize=True).optimized


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"precision": "fp16"}])
def test_halves_run_optimised_too(checkpoint, options):
    assert open_session(checkpoint, **options).optimized
    assert not open_session(checkpoint, optimize=False, **options).optimized


def test_a_processor_that_the_kernel_does_not_serve_runs_it_as_it_is(checkpoint, monkeypatch):
    monkeypatch.setattr(ops, "path_taken", lambda path: path != "folded_blocks")
    assert not open_session(checkpoint).optimized
    assert open_session(checkpoint, optimize=True).optimized


def hooked():
    model = network()
    model.backbone.stages[1].blocks[0].attention.register_forward_hook(lambda *_: None)
    return model


def offloaded():
    model = network()
    model.head.forward = model.head.forward
    return model


def compiled():
    model = network()
    model.compile(backend="eager")
    return model


def chaotic():
    model = network()
    model.backbone.stages[3].norm.weight.data.fill_(float("nan"))
    return model


@pytest.mark.parametrize("made", [hooked, offloaded, compiled, chaotic])
def test_what_cannot_be_optimised_runs_as_it_is_without_a_word(made):
    model = made()
    session = open_session(model)  # a notice would be an error
    assert not session.optimized
    assert session.engine.running is model


@pytest.mark.parametrize("made", [hooked, offloaded])
def test_who_insists_gets_the_error(made):
    with pytest.raises(ConfigError, match=r"hooks|replaced forward"):
        open_session(made(), optimize=True)


def test_a_copy_that_computes_something_else_is_not_used(checkpoint, monkeypatch):
    forward = FoldedStage.forward
    monkeypatch.setattr(FoldedStage, "forward", lambda self, x: 1.1 * forward(self, x) + 1)
    session = open_session(checkpoint)
    assert not session.optimized
    assert torch.equal(logits(session), logits(open_session(checkpoint, optimize=False)))


def test_a_network_that_is_folded_already_is_run_as_it_is():
    fast = van.optimize(network())
    session = open_session(fast)
    assert session.engine.running is fast
    assert session.optimized


class TestModelsOfTheCaller:
    def test_the_copy_runs_and_the_model_stays(self):
        model = network()
        session = open_session(model)
        assert session.optimized
        assert session.engine.network is model
        assert not is_folded(model)

    def test_what_is_trained_afterwards_shows(self):
        model = network()
        predict = van.Predictor(model)
        before = predict(picture())
        assert predict.opened.optimized
        with torch.no_grad():
            model.head.bias[2] += 100
        assert predict(picture()).index == 2 != before.index
        assert not predict.opened.optimized

    def test_hooks_of_afterwards_are_called(self):
        model, seen = network(), []
        predict = van.Predictor(model)
        handle = model.backbone.stages[0].blocks[0].feed_forward.register_forward_hook(lambda *_: seen.append(1))
        predict(picture())
        handle.remove()
        predict(picture())
        assert seen == [1]

    def test_an_embedder_follows_too(self):
        model = network()
        embedder = Embedder(model, stage=1)
        before = embedder(picture())
        assert embedder.engine.optimized
        with torch.no_grad():
            model.backbone.stages[0].norm.bias.add_(1)
        np.testing.assert_allclose(embedder(picture()), before + 1, atol=1e-5)

    def test_gradients_are_those_of_the_model(self):
        model = network()
        engine = open_session(model).engine
        engine.outputs(images())["logits"].sum().backward()
        assert model.backbone.stages[0].patch_embed.conv.weight.grad is not None

    def test_test_time_pooling_is_of_both(self):
        session = van.Predictor(network(), test_time_pool=True, size=96).opened
        x = images(1, 3, 96, 96)
        plain = van.Predictor(network(), test_time_pool=True, size=96, optimize=False).opened
        assert session.optimized
        assert gap(logits(session, x), logits(plain, x)) < 1e-5

    def test_another_device_gets_a_copy_of_what_runs(self):
        model = network()
        engine = open_session(model).engine
        other = engine.on("cpu")
        assert other.optimized
        assert other.network is not model

    def test_a_wrapped_model(self):
        model = network()
        wrapped = torch.nn.DataParallel(model)
        wrapped.num_classes, wrapped.config, wrapped.preprocess = 5, model.config, model.preprocess
        found = logits(open_session(wrapped))
        assert gap(found, logits(open_session(model, optimize=False))) < 1e-5


@pytest.mark.parametrize("of", [lambda path: path, lambda path: van.load(path)])
def test_a_pickled_predictor_gives_the_same_bits(checkpoint, of):
    predict = van.Predictor(of(checkpoint))
    again = pickle.loads(pickle.dumps(predict))
    assert again.opened.optimized
    assert again(picture()) == predict(picture())
    assert copy.deepcopy(predict)(picture()) == predict(picture())


def test_threads_get_the_same_bits_while_others_open_and_change_hooks(checkpoint):
    predict = van.Predictor(van.load(checkpoint))
    pictures = [picture(seed) for seed in range(4)]
    want = [predict(each) for each in pictures]
    stop, model = threading.Event(), predict.opened.engine.network

    def disturb():
        while not stop.is_set():
            model.head.register_forward_hook(lambda *_: None).remove()
            van.Predictor(checkpoint)

    other = threading.Thread(target=disturb)
    other.start()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: predict(pictures[i % 4]), range(24)))
    stop.set()
    other.join()
    for i, each in enumerate(found):
        assert each.index == want[i % 4].index
        assert each.probability == pytest.approx(want[i % 4].probability, rel=1e-4)


@pytest.mark.parametrize("name", ["upernet_van_b0", "retinanet_van_b0"])
def test_other_tasks_are_optimised_too(name):
    slim = {"embed_dims": TINY.embed_dims, "depths": TINY.depths, "mlp_ratios": TINY.mlp_ratios, "num_classes": 3}
    slim |= {"channels": 32} if "upernet" in name else {"channels": 16, "min_size": 64, "max_size": 64}
    model = lived_in(create_model(name, seed=0, **slim)).eval()
    x = images(1, 3, 64, 64)
    plain = open_session(copy.deepcopy(model), optimize=False).engine.run_tensors(x)
    fast = open_session(model)
    assert fast.optimized
    for key, found in fast.engine.run_tensors(x).items():
        assert torch.allclose(found, plain[key], rtol=1e-3, atol=1e-4)
