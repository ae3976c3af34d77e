"""van.export: what is written computes what the network does, and nothing else is ever written."""

import json
import re

import numpy as np
import pytest
import torch
from exported import CLASSES, PICTURES, SUFFIX, classifier, segmenter
from networks import gap, images

import van
from van.cli import main
from van.configs.segmenter import METHODS
from van.errors import CheckpointError, ConfigError, DataError, UnknownNameError, VanError
from van.exporting import compare, dilation, exporter, prepared, trace
from van.files import atomic_outputs
from van.images.preprocess import Preprocess
from van.inference.engines.exported import open_exported
from van.nn.layers import depthwise_conv

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


SLOW_SEGMENTERS = [(kind, method) for method in METHODS for kind in SUFFIX]


def logits(path, x):
    return torch.from_numpy(open_exported(path, threads=1).run(x.numpy())["logits"])


@pytest.mark.parametrize("kind", SUFFIX)
@pytest.mark.long
def test_a_classifier_computes_the_same_at_any_batch_and_size(kind, tmp_path):
    model = classifier()
    done = van.export(model, tmp_path / f"m{SUFFIX[kind]}", images=PICTURES)
    assert (done.format, done.agreement, done.path) == (kind, 1.0, tmp_path / f"m{SUFFIX[kind]}")
    assert 0 < done.mean_error < done.max_error < 1e-5
    assert done.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    with torch.no_grad():
        for shape in ((1, 3, 1, 1), (4, 3, 20, 33), (1, 3, 97, 64)):
            assert gap(logits(done.path, images(*shape)), model(images(*shape))) < 1e-5


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("onnx", "light_ham"),
        ("torch", "hamnet"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_SEGMENTERS),
    ],
)
@pytest.mark.long
def test_a_segmenter_computes_the_same_at_any_size(kind, method, tmp_path):
    model = segmenter(method)
    done = van.export(model, tmp_path / f"m{SUFFIX[kind]}", images=PICTURES[:1])
    assert done.max_error < 5e-5
    x = images(2, 3, 53, 77)
    with torch.no_grad():
        assert gap(logits(done.path, x), model.decode(x)) < 5e-5
    assert torch.equal(logits(done.path, x), logits(done.path, x))  # a Hamburger starts from the file's bases


def test_the_gate_sees_odd_sizes_batches_and_real_images(tmp_path):
    done = van.export(classifier(), tmp_path / "m.pt2", images=PICTURES)
    shapes = [case.shape for case in done.parity.cases]
    assert shapes == [(1, 3, 48, 40), (3, 3, 25, 31), (2, 3, 29, 45), (3, 3, 48, 40)]
    assert [case.name for case in done.parity.cases][-1] == "image 0 … image 2"


def test_without_images_it_is_scikit_learns_photographs_and_digits(tmp_path):
    pytest.importorskip("sklearn")
    done = van.export(classifier(), tmp_path / "m.pt2")
    assert done.parity.cases[-1].name == "china.jpg … digit 5"
    assert done.parity.cases[-1].shape == (8, 3, 48, 40)


def test_real_images_go_through_the_preprocessing(tmp_path):
    model = classifier()
    description = exporter.describe(model, options={})
    _, batch = list(exporter.batches(description, PICTURES))[-1]
    assert np.array_equal(batch[1], model.preprocess(PICTURES[1]))


def test_the_file_is_folded_and_pads_inside_its_convolutions(tmp_path):
    onnx = pytest.importorskip("onnx")
    done = van.export(classifier(), tmp_path / "m.onnx", images=PICTURES)
    nodes = onnx.load(done.path).graph.node
    assert {"BatchNormalization", "Pad"}.isdisjoint(node.op_type for node in nodes)
    pads = [list(a.ints) for node in nodes if node.op_type == "Conv" for a in node.attribute if a.name == "pads"]
    assert [9, 9, 9, 9] in pads


def test_an_unfolded_file_keeps_its_norms(tmp_path):
    done = van.export(classifier(), tmp_path / "m.pt2", images=PICTURES, fold=False)
    assert not done.description.options["fold"]
    targets = {str(node.target) for node in torch.export.load(str(done.path)).graph.nodes}
    assert any("batch_norm" in target for target in targets)


# --- what is not the same is not written


def spoilt(writer, change):
    def write(program, description, path):
        with torch.no_grad():
            change(next(tensor for name, tensor in program.state_dict.items() if name.endswith("head.bias")))
        writer(program, description, path)

    return write


@pytest.mark.parametrize(
    ("change", "reason"), [(lambda bias: bias.add_(1), "differs"), (lambda b: b.mul_(np.nan), "inf")]
)
def test_a_file_that_computes_something_else_is_refused(change, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(exporter.WRITERS, "torch", spoilt(exporter.WRITERS["torch"], change))
    van.save(classifier(), tmp_path / "m.safetensors")
    (tmp_path / "m.pt2").write_text("what was there")
    capsys.readouterr()
    assert main(["export", str(tmp_path / "m.safetensors"), str(tmp_path / "m.pt2")]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "expected at most 0.0001" in error
    assert error.count("\n") == 1
    assert (tmp_path / "m.pt2").read_text() == "what was there"
    assert {file.name for file in tmp_path.iterdir()} == {"m.safetensors", "m.pt2"}


def test_agreement_is_a_limit_of_its_own(tmp_path):
    want = {"logits": np.eye(4, dtype=np.float32)}
    got = {"logits": want["logits"][[0, 1, 3, 2]]}
    parity = compare(lambda x: got, lambda x: want, [("four", np.zeros((4, 3, 1, 1)))], tolerance=2.0)
    assert (parity.agreement, parity.max_error) == (0.5, 1.0)
    assert not parity.passed
    with pytest.raises(VanError, match=r"for 50\.00% of the images or pixels; expected 99\.00% or more"):
        parity.check("the file")
    compare(
        lambda x: got, lambda x: want, [("four", np.zeros((4, 3, 1, 1)))], tolerance=2.0, minimal_agreement=0.5
    ).check("")


def test_a_network_that_is_not_finite_cannot_be_compared(tmp_path):
    model = classifier()
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    with pytest.raises(VanError, match="own logits are not finite on random 1 x 48 x 40"):
        van.export(model, tmp_path / "m.pt2", images=PICTURES)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_nothing(tmp_path):
    def write(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_outputs(*exporter.files_of(tmp_path / "m.xml")) as (*_, file):
        write(file)
    assert not list(tmp_path.iterdir())


def test_a_model_in_memory_is_left_alone(tmp_path):
    model = classifier().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    van.export(model, tmp_path / "m.pt2", images=PICTURES)
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


# --- without dilation


@pytest.mark.parametrize(("kernel", "dilation_"), [(7, 3), (5, 2), (4, 3), (8, 3), (3, 4), (1, 2)])
def test_phases_compute_the_dilated_convolution(kernel, dilation_):
    torch.manual_seed(0)
    conv = depthwise_conv(5, kernel, dilation_).double()
    dense = dilation.PhasedConv2d(conv).double()
    assert dense.dense.dilation == (1, 1)
    with torch.no_grad():
        for height, width in ((1, 1), (2, 7), (9, 9), (13, 20)):
            x = images(2, 5, height, width, dtype=torch.float64)
            assert torch.allclose(dense(x), conv(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["onnx", "torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_dilation_free_files_have_no_dilation(kind, tmp_path):
    model = classifier()
    network = prepared(model, dilation_free=True)
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.dilation for m in convs} == {(1, 1)}
    done = van.export(model, tmp_path / f"m{SUFFIX[kind]}", dilation_free=True, images=PICTURES)
    assert done.max_error < 1e-5
    assert done.description.options == {"fold": True, "dilation_free": True, "precision": "fp32"}


# --- the program


def test_sizes_are_free_from_one_on():
    program = trace(prepared(classifier()), 3)
    assert [int(each.lower) for each in program.range_constraints.values()] == [1, 1, 1]


def test_other_precisions_are_exported_in_float32(tmp_path):
    model = classifier().bfloat16()
    done = van.export(model, tmp_path / "m.pt2", images=PICTURES)
    assert done.max_error < 1e-5


# --- the command


def test_the_command_prints_and_writes_the_report(tmp_path, capsys):
    van.save(classifier(), tmp_path / "m.safetensors")
    for number, image in enumerate(PICTURES):
        (tmp_path / "photos").mkdir(exist_ok=True)
        image.save(tmp_path / "photos" / f"{number}.png")
    arguments = ["export", tmp_path / "m.safetensors", tmp_path / "m.pt2", "--size", "32x40", "--dilation-free"]
    arguments += ["--images", tmp_path / "photos", "--json", tmp_path / "report.json"]
    assert main([str(each) for each in arguments]) == 0
    out = capsys.readouterr().out
    assert "van_custom, classification, torch" in out
    assert "100.00% of the classes agree" in out
    assert "0.png … 2.png" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["parity"]["agreement"] == 1.0
    assert report["description"]["preprocess"]["size"] == [32, 40]
    assert report["description"]["options"]["dilation_free"]
    assert open_exported(tmp_path / "m.pt2").description.preprocess.size == (32, 40)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"path": "m.tflite"}, r"its name ends in '\.tflite'; expected \.onnx, \.xml, \.pt2"),
        ({"path": "m"}, "ends in 'nothing'"),
        ({"path": "m.onnx", "format": "openvino"}, r"ends in '\.onnx'; expected \.xml"),
        ({"path": "nowhere/m.onnx"}, "there is no folder nowhere; create it first"),
        ({"path": "m.pt2", "tolerance": 0}, "tolerance is 0; expected"),
        ({"path": "m.pt2", "agreement": 1.5}, "agreement is 1.5; expected"),
        ({"path": "m.pt2", "ema": True}, "a model in memory has one set only"),
        ({"path": "m.pt2", "size": 0}, "size is 0; expected pixels"),
    ],
)
def test_wrong_options_are_told(arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=reason):
        van.export(classifier(), **{"images": PICTURES, **arguments})
    assert not list(tmp_path.iterdir())


def test_wrong_sources_and_images_are_told(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown export format 'onx'; did you mean 'onnx'"):
        van.export(classifier(), tmp_path / "m.onnx", format="onx")
    done = van.export(classifier(), tmp_path / "van_b0.1", format="torch", images=PICTURES)
    assert done.path == tmp_path / "van_b0.1.pt2"
    done.path.unlink()
    with pytest.raises(ConfigError, match=r"Classifier has no head \(num_classes is 0\)"):
        van.export(classifier(num_classes=0), tmp_path / "m.pt2")
    with pytest.raises(ConfigError, match="Linear is no model of this package; expected a classifier or segmenter"):
        van.export(torch.nn.Linear(2, 2), tmp_path / "m.pt2")
    with pytest.raises(CheckpointError, match="missing"):
        van.export(tmp_path / "missing.safetensors", tmp_path / "m.pt2")
    with pytest.raises(ConfigError, match=r"size belongs to classifiers, detectors, .*, which Segmenter is not"):
        van.export(segmenter(), tmp_path / "m.pt2", size=64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        van.export(classifier(), tmp_path / "m.pt2", images=tmp_path / "empty")
    with pytest.raises(DataError, match="is no folder"):
        van.export(classifier(), tmp_path / "m.pt2", images=tmp_path / "m.png")
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]


def test_other_channels_than_an_images_are_compared_on_random_arrays(tmp_path):
    done = van.export(classifier(in_chans=4), tmp_path / "m.pt2")
    assert [case.name.split()[0] for case in done.parity.cases] == ["random"] * 3
    with pytest.raises(ConfigError, match="no network of 4 channels takes images"):
        van.export(classifier(in_chans=4), tmp_path / "m.pt2", images=PICTURES)
    with pytest.raises(ConfigError, match="4 channels, which no image has"):
        van.Predictor(tmp_path / "m.pt2")


def test_more_than_one_onnx_file_holds_is_refused(tmp_path, monkeypatch):
    from van.exporting import formats

    monkeypatch.setattr(formats, "ONNX_LIMIT_BYTES", 1000)
    with pytest.raises(ConfigError, match="one ONNX file holds 2 GiB: export to openvino or torch"):
        van.export(classifier(), tmp_path / "m.onnx", images=PICTURES)


def test_gray_networks(tmp_path):
    done = van.export(classifier(in_chans=1), tmp_path / "m.pt2", images=PICTURES)
    assert done.description.preprocess == Preprocess(size=(48, 40), crop_pct=1.0, mean=(0.4,), std=(0.2,))
    assert van.Predictor(done.path)(PICTURES[0]).label in CLASSES


@pytest.mark.promise("22")
@pytest.mark.parametrize("make", [classifier, segmenter])
@pytest.mark.long
def test_axes_have_names(make):
    import openvino

    from van.exporting import onnx_model, openvino_model

    program = trace(prepared(make()), 3)
    graph = onnx_model(program).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    names = {dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    assert {"batch", "height", "width"} <= names
    assert not [name for name in names if re.search(r"s\d", name)]
    first, last = ([dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
                   for value in (graph.input[0], graph.output[0]))  # fmt: skip
    assert first == ["batch", 3, "height", "width"]
    assert last[:2] == ["batch", 5]
    assert all("height" in each or "width" in each for each in last[2:])
    model = openvino_model(program)
    assert openvino.layout_helpers.batch_idx(model.get_parameters()[0].layout) == 0
    assert openvino.layout_helpers.width_idx(model.get_parameters()[0].layout) == 3
    assert openvino.layout_helpers.batch_idx(model.get_results()[0].layout) == 0
