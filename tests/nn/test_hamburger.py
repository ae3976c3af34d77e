"""The matrix factorisation: step by step against the original, and its contract."""

import numpy as np
import pytest
import torch
from reference_data import fill, golden, image
from segmentation_reference import reference_bases, small
from torch import nn
from torch.nn import functional as F

from van.errors import ConfigError
from van.nn import hamburger
from van.nn.hamburger import (
    NMF,
    Hamburger,
    draw_bases,
    factorisations,
    reseed_bases,
    update_bases,
    update_coefficients,
)

CASES = {"small": (2, 32, 5, 7), "d256": (1, 256, 16, 20), "d512": (1, 512, 16, 20)}
DTYPES = ((torch.float32, "", 2e-5), (torch.float64, "64", 1e-12))


@pytest.fixture(scope="module")
def arrays():
    return golden("hamburger_nmf")


def nmf(arrays, case, dtype=torch.float32):
    """The module with the bases that the original was given, broadcasting over the batch."""
    n, channels, *_ = CASES[case]
    module = NMF(channels, int(arrays[f"{case}/R"])).to(dtype).eval()
    module.bases = reference_bases(n, channels, module.rank, dtype=dtype)
    return module


def relu_image(case, dtype=torch.float32):
    return torch.from_numpy(image("ham_x", CASES[case])).relu().to(dtype)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), DTYPES, ids=["float32", "float64"])
def test_reconstruction_equals_the_original(arrays, case, dtype, suffix, tolerance):
    out = nmf(arrays, case, dtype)(relu_image(case, dtype))
    if case == "small":
        expected, got = arrays[f"small/out{suffix}"], out.numpy()
    else:
        expected, got = (
            arrays[f"{case}/out_sample{suffix}"],
            out.reshape(-1)[:: int(arrays[f"{case}/out_step"])].numpy(),
        )
    np.testing.assert_allclose(got, expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(out.mean((0, 2, 3)), arrays[f"{case}/out_mean{suffix}"], atol=tolerance, rtol=0)


def test_every_step_equals_the_original(arrays):
    matrix = relu_image("small", torch.float64).flatten(2)
    bases = reference_bases(2, 32, 8, dtype=torch.float64)
    coefficients = F.softmax(matrix.mT @ bases, dim=-1)
    expected_bases, expected_coefficients = arrays["small/bases_steps64"], arrays["small/coef_steps64"]
    assert len(expected_bases) == len(expected_coefficients) == 8
    for step in range(8):
        np.testing.assert_allclose(bases, expected_bases[step], atol=1e-12, rtol=0)
        np.testing.assert_allclose(coefficients, expected_coefficients[step], atol=1e-12, rtol=0)
        residual = torch.linalg.vector_norm(matrix - bases @ coefficients.mT).item()
        assert residual == pytest.approx(arrays["small/residual_norm_steps64"][step], abs=1e-10)
        if step < 7:
            coefficients = update_coefficients(matrix, bases, coefficients)
            bases = update_bases(matrix, bases, coefficients)
    coefficients = update_coefficients(matrix, bases, coefficients)
    np.testing.assert_allclose(coefficients, arrays["small/coef_final64"], atol=1e-12, rtol=0)


def training_run(arrays, case, dtype, monkeypatch):
    """Training output and input gradient of the probe, with the original's draw in the place of torch.rand."""
    module, x = nmf(arrays, case, dtype).train(), relu_image(case, dtype).requires_grad_()
    raw = torch.from_numpy(fill("ham_bases", module.bases.shape, "bases")).to(dtype)

    def rand(*shape, **_):
        assert shape == raw.shape
        return raw

    with monkeypatch.context() as patch:
        patch.setattr(hamburger.torch, "rand", rand)
        out = module(x)
    (out * torch.from_numpy(image("ham_probe", CASES[case])).to(dtype)).sum().backward()
    return out.detach(), x.grad


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), DTYPES, ids=["float32", "float64"])
def test_training_output_and_gradient_equal_the_original(arrays, case, dtype, suffix, tolerance, monkeypatch):
    out, gradient = training_run(arrays, case, dtype, monkeypatch)
    relative = 1e-4 if dtype == torch.float32 else 1e-10
    assert out.norm().item() == pytest.approx(arrays[f"{case}/train_out_norm{suffix}"].item(), rel=relative)
    assert gradient.norm().item() == pytest.approx(arrays[f"{case}/train_grad_x_norm{suffix}"].item(), rel=relative)
    if case == "small":
        np.testing.assert_allclose(out, arrays[f"small/train_out{suffix}"], atol=tolerance, rtol=0)
        np.testing.assert_allclose(gradient, arrays[f"small/train_grad_x{suffix}"], atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), DTYPES, ids=["float32", "float64"])
def test_block_equals_the_original(arrays, dtype, suffix, tolerance):
    block = Hamburger(64, 16).eval()
    keys = {
        "lower.weight": ("ham_in.conv.weight", "weight"),
        "lower.bias": ("ham_in.conv.bias", "bias"),
        "upper.weight": ("ham_out.conv.weight", "weight"),
        "norm.weight": ("ham_out.gn.weight", "gain"),
        "norm.bias": ("ham_out.gn.bias", "bias"),
    }
    for ours, (theirs, role) in keys.items():
        value = block.get_parameter(ours)
        value.data = torch.from_numpy(fill(f"hamburger.{theirs}", tuple(value.shape), role))
    block.to(dtype)
    block.ham.bases = reference_bases(2, 64, 16, dtype=dtype)
    with torch.inference_mode():
        out = block(torch.from_numpy(image("ham_x", (2, 64, 6, 9))).relu().to(dtype))
    np.testing.assert_allclose(out, arrays[f"block/out{suffix}"], atol=tolerance, rtol=0)


def test_zero_input_gives_exactly_zero(arrays):
    assert arrays["zero_input/out_absmax64"] == 0
    for dtype in (torch.float32, torch.float64):
        module = NMF(32, 4).to(dtype)
        for x in (torch.zeros(1, 32, 3, 3, dtype=dtype), torch.zeros(2, 32, 1, 1, dtype=dtype)):
            assert not module.eval()(x).any()
            assert not module.train()(x).any()


def test_one_buffer_of_normalised_bases():
    model = small("light_ham")
    buffers = {name: value for name, value in model.named_buffers() if name.endswith("bases")}
    assert [value.shape for value in buffers.values()] == [(32, 4)]
    norms = next(iter(buffers.values())).norm(dim=0)
    torch.testing.assert_close(norms, torch.ones(4))
    assert set(buffers) <= set(model.state_dict())


def test_bases_may_broadcast_over_the_batch():
    module, x = NMF(16, 3).eval(), torch.rand(2, 16, 4, 5)
    expected = module(x)
    flat = module.bases
    for bases in (flat[None], flat[None].repeat(2, 1, 1)):
        module.bases = bases
        assert torch.equal(module(x), expected)


def test_evaluation_repeats_and_training_draws():
    module, x = NMF(16, 3), torch.rand(1, 16, 4, 5)
    kept = module.bases.clone()
    assert not torch.equal(module(x), module(x))
    assert torch.equal(module.bases, kept)
    state = torch.random.get_rng_state()
    module.eval()
    assert torch.equal(module(x), module(x))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_steps_differ_between_training_and_evaluation(arrays, monkeypatch):
    trained, _ = training_run(arrays, "small", torch.float64, monkeypatch)
    evaluated = nmf(arrays, "small", torch.float64)(relu_image("small", torch.float64))
    assert (trained - evaluated).abs().max() > 1e-4  # 6 steps against 7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_compute_in_float32(dtype):
    module, x = NMF(64, 8).eval(), torch.rand(1, 64, 6, 6)
    rounded = x.to(dtype)
    expected = module(rounded.float())
    with torch.autocast("cpu", dtype):
        got = module(rounded)
        assert module(x).dtype == torch.float32
        assert torch.equal(module(x), module(x.double().float()))
    assert got.dtype == dtype
    assert torch.equal(got, expected.to(dtype))
    assert torch.equal(module(rounded), got)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_segmenter_under_autocast_stays_near_float32(dtype):
    model, images = small("light_ham"), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        with torch.autocast("cpu", dtype):
            got = model(images)
    assert got.dtype == dtype
    assert (got.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_gradients_are_those_of_the_steps():
    module, x = NMF(6, 2).double().eval(), torch.rand(1, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))


def test_exported_factorisation_takes_any_map():
    module = NMF(16, 3).eval()
    sides = [torch.export.Dim(name, min=2, max=512) for name in ("h", "w")]
    example = (torch.rand(2, 16, 5, 7),)
    program = torch.export.export(module, example, dynamic_shapes=({2: sides[0], 3: sides[1]},))
    x = torch.rand(2, 16, 9, 4)
    torch.testing.assert_close(program.module()(x), module(x))


def test_reseeding_draws_other_bases_and_comes_back():
    model, images = small("hamnet"), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        first = model(images)
        reseed_bases(model, 5)
        second = model(images)
        reseed_bases(model, 0)
        third = model(images)
    assert not torch.equal(first, second)
    assert torch.equal(first, third)
    assert len(factorisations(model)) == 1


def test_reseeding_keeps_precision_and_undoes_injection():
    module = nn.Sequential(NMF(16, 3)).double()
    module[0].bases = torch.rand(2, 16, 3, dtype=torch.float64)
    reseed_bases(module, 4)
    assert torch.equal(module[0].bases, draw_bases(16, 3, 4).double())


def test_models_without_bases_are_refused():
    with pytest.raises(ConfigError, match="Segmenter has no NMF"):
        reseed_bases(small("upernet"), 1)


def test_impossible_rank_is_refused():
    with pytest.raises(ConfigError, match="rank of the factorisation is 0"):
        NMF(16, 0)
