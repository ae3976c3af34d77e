"""Whatever type a file stores its weights in, networks and engines compute in float32 unless they are asked not to."""

import shutil

import numpy as np
import pytest
import torch
from metadata import set_metadata
from networks import tiny
from PIL import Image
from safetensors.torch import save_file

import van
from van import checkpoints, cli
from van.errors import ConfigError, UnknownNameError, VanNotice
from van.images.preprocess import Preprocess
from van.inference.evaluate import evaluate
from van.nn.dtypes import dtype_of
from van.nn.segmenter import Segmenter
from van.tools.bench import bench

NAMES = ("ant", "bee", "cat", "dog", "elk")
PREPARED = Preprocess(size=(32, 32))
NOTICE = r"stored as .*, computed in float32; dtype='auto' keeps"
HALVES = ("float16", "bfloat16", "mixed", "float64")
SEGMENTER = {
    **{"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)},
    **{"channels": 32, "ham_channels": 32, "ham_rank": 4, "num_classes": 5},
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:Keras keeps no:van.errors.VanNotice")


def named(model):
    set_metadata(model, classes=NAMES, preprocess=PREPARED, provenance={})
    return model.eval()


def cast(state, kind):
    """The state in a type; "mixed": matrices in float16, vectors in float32."""

    def one(tensor):
        if not tensor.is_floating_point() or (kind == "mixed" and tensor.ndim < 2):
            return tensor
        return tensor.to(getattr(torch, "float16" if kind == "mixed" else kind))

    return {key: one(tensor) for key, tensor in state.items()}


def written(folder, kind, container="safetensors"):
    """A checkpoint of ours, its record kept, its tensors in another type."""
    return rewritten(named(tiny()), folder, kind, container)


def rewritten(model, folder, kind, container="safetensors"):
    path = folder / f"{kind}.{container}"
    van.save(model, path)
    with __import__("safetensors").safe_open(path, "pt") as file:
        state = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    if container == "pth":
        torch.save(cast(state, kind), path)
    else:
        save_file(cast(state, kind), path, metadata)
    return path


def rounded(kind):
    """The float32 network that a file of this type holds."""
    model = named(tiny())
    model.load_state_dict(cast(model.state_dict(), kind))
    return model


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 36, 3), np.uint8))


@pytest.fixture
def data(tmp_path, picture):
    for name in NAMES:
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        picture.save(tmp_path / "data" / "val" / name / "0.png")
    return tmp_path / "data"


@pytest.mark.promise("14")
@pytest.mark.parametrize("container", ["safetensors", "pth"])
@pytest.mark.parametrize("kind", HALVES)
def test_loading_gives_float32(tmp_path, kind, container):
    path = written(tmp_path, kind, container)
    with pytest.warns(VanNotice, match="widened to float32|computed in float32"):
        model = van.load(path)
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    images = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(images), rounded(kind)(images))


@pytest.mark.promise("14")
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@pytest.mark.parametrize("kind", HALVES)
def test_everything_runs_a_file_of_any_type(tmp_path, kind, picture, data):
    path = written(tmp_path, kind)
    want = van.Predictor(rounded(kind))(picture).top
    assert van.Predictor(path)(picture).top == want
    fast = van.Predictor(path, optimize=True)(picture).top
    assert [index for _, index, _ in fast] == [index for _, index, _ in want]
    assert dict(evaluate(path, data))["loss"] == dict(evaluate(rounded(kind), data))["loss"]
    assert van.optimize(van.load(path))(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
    if kind == "float16":
        van.export(path, tmp_path / "x.onnx", images=[picture])
        exported = van.Predictor(tmp_path / "x.onnx")(picture).top
        assert [index for _, index, _ in exported] == [index for _, index, _ in want]
    assert bench(path, forms=["eager"], size=32, rounds=1).rows


@pytest.mark.promise("14")
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@pytest.mark.parametrize("to", [*checkpoints.FORMATS])
def test_every_format_keeps_the_type_and_loads_as_float32(tmp_path, to):
    half = written(tmp_path, "float16")
    target = tmp_path / ("folder" if to == "transformers" else "x.weights.h5")
    assert van.convert(half, target, to=to).tensors
    found = van.info(target)
    assert (found.dtype, found.computed) == ("float16", "float32")
    model = van.load(target)
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    if model.num_classes:
        assert torch.equal(model.head.weight, rounded("float16").head.weight)


@pytest.mark.promise("14")
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
@pytest.mark.parametrize("kind", HALVES)
def test_segmenters(tmp_path, kind, picture):
    model = van.create_model("light_ham_van_b0", seed=0, **SEGMENTER).eval()
    path = rewritten(model, tmp_path, kind)
    assert isinstance(van.load(path), Segmenter)
    model.load_state_dict(cast(model.state_dict(), kind))
    assert np.array_equal(van.Predictor(path)(picture).mask, van.Predictor(model)(picture).mask)
    assert van.Predictor(path, optimize=True)(picture).mask.shape == (40, 36)


@pytest.mark.promise("14")
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_a_model_in_memory_is_computed_in_float32_and_that_is_said(kind, picture, data):
    model = rounded(kind).to(getattr(torch, kind))
    want = van.Predictor(rounded(kind))(picture).top
    with pytest.warns(VanNotice, match=f"the {kind} weights of Classifier are brought to float32"):
        assert van.Predictor(model)(picture).top == want
    with pytest.warns(VanNotice, match="brought to float32"):
        evaluate(rounded(kind).to(getattr(torch, kind)), data)
    with pytest.warns(VanNotice, match="brought to float32"):
        bench(rounded(kind).to(getattr(torch, kind)), forms=["eager"], size=32, rounds=1)
    with pytest.warns(VanNotice, match="brought to float32"):
        van.Predictor(rounded(kind).to(getattr(torch, kind)), optimize=True)
    segmenter = van.create_model("light_ham_van_b0", seed=0, **SEGMENTER).to(getattr(torch, kind))
    with pytest.warns(VanNotice, match="weights of Segmenter are brought to float32"):
        van.Predictor(segmenter)(picture)


@pytest.mark.promise("14")
@pytest.mark.parametrize(
    ("kind", "dtype", "want"),
    [
        ("float16", "auto", torch.float16),
        ("float16", torch.float16, torch.float16),
        ("float16", "bfloat16", torch.bfloat16),
        ("float64", "auto", torch.float64),
        ("mixed", "auto", torch.float32),
        ("float32", "auto", torch.float32),
        ("float32", "float64", torch.float64),
    ],
)
def test_another_type_on_request(tmp_path, kind, dtype, want):
    model = van.load(written(tmp_path, kind), dtype=dtype)  # a notice would be an error
    assert {each.dtype for each in model.parameters()} == {want}
    assert model(torch.zeros(1, 3, 32, 32, dtype=want)).dtype == want
    assert {buffer.dtype for name, buffer in model.named_buffers() if name.endswith("tracked")} == {torch.int64}


@pytest.mark.promise("14")
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
def test_bfloat16_files_can_stay_what_they_are(tmp_path, recwarn):
    path = written(tmp_path, "bfloat16")
    model = van.load(path, dtype="auto")
    assert not [each for each in recwarn if "widened" in str(each.message)]
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    assert van.info(path).dtype == "bfloat16"
    assert van.load(path, dtype="auto", num_classes=3).head.weight.dtype == torch.bfloat16


@pytest.mark.promise("14")
def test_a_type_that_is_none(tmp_path):
    path = written(tmp_path, "float32")
    for wrong in ("int8", torch.int8, "half"):
        with pytest.raises(UnknownNameError, match=r"unknown dtype .*auto, float32"):
            van.load(path, dtype=wrong)
    assert dtype_of("auto") == torch.float32


@pytest.mark.promise("14")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("float16", "(stored as float16, computed in float32)"),
        ("bfloat16", "(stored as bfloat16, computed in float32)"),
        ("mixed", "(stored as float16, float32, computed in float32)"),
        ("float64", "(stored as float64, computed in float32)"),
        ("float32", " (float32)"),
    ],
)
def test_info_says_both_types(tmp_path, kind, told, capsys):
    assert cli.main(["info", str(written(tmp_path, kind))]) == 0
    assert told in capsys.readouterr().out


@pytest.mark.promise("14")
@pytest.mark.filterwarnings("ignore::van.errors.VanNotice")
def test_a_saved_model_has_the_type_it_was_given(tmp_path):
    path = written(tmp_path, "float16")
    for dtype, want in (("auto", "float16"), ("float32", "float32")):
        van.save(van.load(path, dtype=dtype), tmp_path / "again.safetensors")
        assert van.info(tmp_path / "again.safetensors").dtype == want


@pytest.mark.promise("14")
def test_the_command_line_predicts_with_half_a_file(tmp_path, picture, capsys):
    picture.save(tmp_path / "x.png")
    path = shutil.copy(written(tmp_path, "float16"), tmp_path / "y.safetensors")
    assert cli.main(["predict", str(path), str(tmp_path / "x.png")]) == 0
    told = capsys.readouterr()
    assert any(name in told.out for name in NAMES)
    assert "stored as float16, computed in float32" in told.err


def test_precision_stays_autocast(picture):
    model = rounded("float32")
    assert van.Predictor(model, precision="bf16")(picture).label in NAMES
    with pytest.raises(ConfigError, match="unknown precision"):
        van.Predictor(model, precision="half")
