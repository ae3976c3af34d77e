"""int8: what is quantised, what it costs, when it is refused, and that what is written runs everywhere."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exported import PICTURES, segmenter
from metadata import set_metadata
from tiny_segmentation import make_pictures

import van
from van.cli import main
from van.errors import ConfigError, DataError, UnknownNameError, VanError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from onnx.numpy_helper import to_array

from van.exporting import int8
from van.exporting.graph import prepared, trace
from van.exporting.int8_onnx import OnnxInt8
from van.exporting.int8_openvino import OpenVinoInt8
from van.exporting.int8_report import layer_errors, sqnr_db
from van.exporting.quantizable_layers import weights_of
from van.inference.engines.openvino_engine import the_core
from van.tasks.comparison import Comparison
from van.tasks.segmentation.comparison import miou_agreement

pytestmark = pytest.mark.long

FILES = ("net.onnx", "net.xml")
QUANTIZERS = (OnnxInt8, OpenVinoInt8)
_DEQUANTIZE = "DequantizeLinear"


def slim(seed: int = 0, **options) -> torch.nn.Module:
    """A small classifier of the ten digits whose biases and norms do something."""
    sizes = {"embed_dims": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "mlp_ratios": (4, 4, 2, 2)}
    model = van.create_model("van_b0", num_classes=10, seed=seed, **(sizes | options)).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(0, 0.2, generator=draw)
            if name.endswith(("scale1", "scale2")):
                value.fill_(0.3)
        model.head.weight.mul_(20)
    model.preprocess = model.preprocess.with_overrides(size=32)
    model.classes = tuple("0123456789")
    return model


@pytest.fixture(scope="module")
def program():
    return trace(prepared(slim()), 3)


@pytest.fixture(scope="module")
def images():
    return [np.random.default_rng(i).standard_normal((1, 3, 32, 32), np.float32) for i in range(4)]


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_products_are_found_by_their_weights(program, kind):
    layers = list(kind(program).layers)
    blocks = ("proj_in", "spatial.mix", "proj_out", "expand", "project")
    for stage in range(4):
        assert [f"backbone.stages.{stage}.blocks.0.{name}" in layers for name in blocks] == [True] * 5
    assert "head" in layers
    assert "backbone.stages.1.patch_embed.conv" in layers
    assert "backbone.stages.0.patch_embed.conv" not in layers  # the stem
    depthwise = [name for name in layers if name.endswith(("near", "far", "depthwise"))]
    assert len(depthwise) == 12
    assert layers == list(weights_of(program))  # and none else


def test_onnx_rounds_what_products_read_and_nothing_else(program, images):
    quantizer = OnnxInt8(program)
    graph = quantizer.quantized(images, list(quantizer.layers)).graph
    made = {output: node for node in graph.node for output in node.output}
    products = {node.name: node for node in graph.node if node.op_type in ("Conv", "Gemm")}
    rounded = {
        name for name, node in products.items() if getattr(made.get(node.input[0]), "op_type", "") == _DEQUANTIZE
    }
    assert rounded == set(quantizer.layers.values())
    assert len(products) - len(rounded) == 1  # the stem
    sizes = {each.name: each.dims for each in graph.initializer}
    for name in rounded:
        weight = made[products[name].input[1]]
        assert weight.op_type == _DEQUANTIZE
        assert list(sizes[weight.input[1]]) == [sizes[weight.input[0]][0]]  # a scale per output channel


def test_openvino_rounds_what_products_read_and_nothing_else(program, images):
    quantizer = OpenVinoInt8(program)
    graph = quantizer.quantized(images, list(quantizer.layers))
    products = set(quantizer.layers.values())
    for op in graph.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            rounded = op.input_value(0).get_node().get_type_name() == "FakeQuantize"
            assert rounded == (op.get_friendly_name() in products), op.get_friendly_name()


@pytest.fixture(scope="module")
def openvino_int8(program, images):
    quantizer = OpenVinoInt8(program)
    return quantizer, quantizer.quantized(images, list(quantizer.layers))


def test_openvino_rounds_depthwise_inputs_with_one_symmetric_scale(openvino_int8):
    """Or it would compute them in floating point (a scale per channel) or slower and worse (a zero point)."""
    _, graph = openvino_int8
    depthwise = [op for op in graph.get_ordered_ops() if op.get_type_name() == "GroupConvolution"]
    assert len(depthwise) == 12
    for op in depthwise:
        limits = [value.get_node().data for value in op.input_value(0).get_node().input_values()[1:]]
        assert [limit.size for limit in limits] == [1] * 4, op.get_friendly_name()
        low, high, out_low, out_high = (limit.item() for limit in limits)
        assert (out_low, out_high) == (low, high)
        assert low / high == pytest.approx(-128 / 127), op.get_friendly_name()  # zero is kept, and is zero


def test_openvino_reads_all_layers_at_once_as_one_by_one(openvino_int8, images, monkeypatch):
    quantizer, graph = openvino_int8
    together = next(quantizer.outputs(graph, images[:1]))
    nodes = quantizer.layers
    for layer in ("backbone.stages.0.blocks.0.spatial.far", "backbone.stages.2.blocks.0.spatial.mix", "head"):
        monkeypatch.setattr(quantizer, "layers", {layer: nodes[layer]})
        np.testing.assert_allclose(together[layer], next(quantizer.outputs(graph, images[:1]))[layer], atol=1e-5)
    logits = the_core().compile_model(graph, "CPU")([images[0]])[0]  # in int8, not simulated
    assert sqnr_db([together["head"]], [logits]) > 25


def test_layers_are_read_with_their_bias(program, images):
    """In both runtimes, so that reports agree on what a layer's result is."""
    onnx, openvino = (next((each := kind(program)).outputs(each.graph, images[:1])) for kind in QUANTIZERS)
    for layer, want in onnx.items():
        np.testing.assert_allclose(openvino[layer], want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_layer_norm_stays_where_the_channels_are(program):
    """Means over axis 1 and no transposition: OpenVINO would copy the whole map for each."""
    onnx, openvino = (kind(program).graph for kind in QUANTIZERS)
    values = {each.name: each for each in onnx.graph.initializer}
    axes = [to_array(values[node.input[1]]).tolist() for node in onnx.graph.node if node.op_type == "ReduceMean"]
    assert axes == [[1]] * 8 + [[2, 3]]  # mean and variance of four stages, and the pool
    operators = openvino.get_ordered_ops()
    means = [op.input_value(1).get_node() for op in operators if op.get_type_name() == "ReduceMean"]
    assert [mean.data.tolist() for mean in means] == axes
    assert "Transpose" not in {node.op_type for node in onnx.graph.node} | {op.get_type_name() for op in operators}


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_layer_left_out_stays_in_float32(program, images, kind):
    quantizer = kind(program)
    first, *rest = quantizer.layers
    some, none = quantizer.quantized(images, rest), quantizer.quantized(images, [])
    exact = next(quantizer.outputs(quantizer.graph, images[:1]))
    np.testing.assert_allclose(next(quantizer.outputs(some, images[:1]))[first], exact[first], atol=1e-5)
    np.testing.assert_allclose(next(quantizer.outputs(none, images[:1]))["head"], exact["head"], atol=1e-4)
    all_of_them = next(quantizer.outputs(quantizer.quantized(images, [first]), images[:1]))
    assert np.abs(all_of_them[first] - exact[first]).max() > 1e-4


@pytest.mark.parametrize("file", FILES)
def test_the_file_runs_in_predictor_and_eval_and_tells_its_report(tmp_path, file):
    done = van.quantize(slim(), tmp_path / file, calibration="digits", samples=24, max_drop=0.2)
    report = done.report
    assert report.images == report.compared == 24
    assert 10 < report.sqnr_db < 60
    assert report.drop == pytest.approx(1 - report.agreement)
    assert report.drop <= 0.2
    assert not report.float_layers or report.drop > 0
    weights = done.path.with_suffix(".bin") if file == "net.xml" else done.path  # a slim network is mostly graph
    assert weights.stat().st_size < done.fp32_bytes
    assert done.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())  # and nothing else is left there
    predictor = van.Predictor(tmp_path / file)
    assert predictor.opened.engine.description.options["precision"] == "int8"
    assert predictor.opened.engine.description.options["report"] == json.loads(json.dumps(report.to_dict()))
    got = predictor.opened.engine.run(np.zeros((3, 3, 32, 32), np.float32))["logits"]
    with torch.inference_mode():
        want = slim()(torch.zeros(3, 3, 32, 32)).numpy()
    assert sqnr_db([got], [want]) > 8
    assert van.evaluate(tmp_path / file, "digits").count == 359


@pytest.mark.parametrize("file", FILES)
def test_segmenters_are_compared_by_their_pixels(tmp_path, file):
    done = van.quantize(segmenter(), tmp_path / file, calibration=PICTURES, max_drop=0.4)
    names = [each.layer for each in done.report.layers]
    assert "segmenter.backbone.stages.0.patch_embed.conv" not in names  # the stem
    assert any("head" in name for name in names)
    assert done.report.calibration == "images in memory"
    assert done.report.images == len(PICTURES)
    assert done.report.sqnr_db > 10
    assert (done.report.top1, done.report.miou) == (None, None)
    assert 0 < done.report.miou_agreement <= 1
    mask = van.Predictor(tmp_path / file)(PICTURES[0]).mask
    assert mask.shape == (50, 70)


def test_validation_decides_by_top1(tmp_path, monkeypatch):
    top1 = iter([90.0, 80.0, 89.9])  # float32, int8, int8 with the worst layer in float32
    monkeypatch.setattr(int8, "evaluate", lambda *_: SimpleNamespace(score=next(top1), perfect=100.0))
    done = van.quantize(slim(), tmp_path / "a.onnx", calibration="digits", validation="digits", samples=8)
    assert (done.report.fp32_top1, done.report.top1) == (90.0, 89.9)
    assert done.report.drop == pytest.approx(0.001)
    assert len(done.report.float_layers) == 1


@pytest.mark.promise("22")
def test_a_segmenter_reports_miou(tmp_path, capsys):
    model = segmenter(num_classes=11)
    set_metadata(model, classes=None, palette=None, provenance={"inference": {"resize": None, "window": None}})
    van.save(model, tmp_path / "s.safetensors")
    data, told = make_pictures(tmp_path / "data", val=2), tmp_path / "r.json"
    options = ["--calibration", str(data / "images"), "--validation", str(data), "--max-drop", "1", "--json", str(told)]
    assert main(["export", str(tmp_path / "s.safetensors"), str(tmp_path / "s.onnx"), "--int8", *options]) == 0
    printed = capsys.readouterr().out
    assert "mIoU %" in printed
    assert "top-1" not in printed
    assert "mIoU against float32's" in printed
    report = json.loads(told.read_text())["report"]
    assert (report["top1"], report["fp32_top1"]) == (None, None)
    assert report["drop"] == pytest.approx(report["fp32_miou"] - report["miou"])
    assert f"{100 * report['miou']:.2f}" in printed
    assert report["miou"] == pytest.approx(van.evaluate(tmp_path / "s.onnx", data)["mIoU"])


@pytest.mark.promise("22")
def test_agreement_as_miou_by_hand():
    def logits(classes):
        return {"logits": np.eye(3)[np.array(classes)].transpose(2, 0, 1)[None]}

    want, got = logits([[0, 0], [1, 1]]), logits([[0, 1], [1, 1]])
    assert miou_agreement([got], [want]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert miou_agreement([want, want], [want, want]) == 1


def test_too_large_a_drop_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Comparison, "agreement", lambda *_: 0.9)
    with pytest.raises(VanError, match=r"int8 loses 10.00% with 15 of 36 products in float32; allowed are 5.00%"):
        van.quantize(slim(), tmp_path / "a.onnx", calibration="digits", samples=4, max_drop=0.05)
    assert list(tmp_path.iterdir()) == []


def test_figures():
    want = [np.array([[3.0, 4.0]])]
    assert sqnr_db([np.array([[3.0, 4.5]])], want) == pytest.approx(20.0)
    assert sqnr_db(want, want) == pytest.approx(200.0)
    got, other = ({"logits": np.array(rows)} for rows in ([[1, 2], [2, 1]], [[0, 9], [0, 9]]))
    assert Comparison().agreement([got], [other]) == 0.5
    pairs = [({"a": want[0] * 1.1}, {"a": want[0]}), ({"a": want[0] * 0.9}, {"a": want[0]})]
    (only,) = layer_errors(pairs, ["b"])
    assert (only.layer, only.int8) == ("a", False)
    assert only.sqnr_db == pytest.approx(20.0)


def test_wrong_inputs(tmp_path):
    model = slim()
    with pytest.raises(UnknownNameError, match="int8 format 'torch'"):
        van.quantize(model, tmp_path / "a.pt2", calibration="digits")
    with pytest.raises(ConfigError, match="max_drop is 2"):
        van.quantize(model, tmp_path / "a.onnx", calibration="digits", max_drop=2)
    with pytest.raises(ConfigError, match="samples is 0"):
        van.quantize(model, tmp_path / "a.onnx", calibration="digits", samples=0)
    with pytest.raises(DataError, match="holds no images"):
        van.quantize(model, tmp_path / "a.onnx", calibration=tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        van.quantize(model, tmp_path / "a.onnx", calibration=tmp_path / "missing")
    with pytest.raises(DataError, match="digits"):  # no data of a segmenter
        van.quantize(segmenter(), tmp_path / "a.onnx", calibration="digits", validation="digits", samples=2)
    assert list(tmp_path.iterdir()) == []


def test_calibration_spreads_over_the_folder(tmp_path):
    from PIL import Image

    from van.exporting import describe
    from van.exporting.sample_images import calibration_images

    for i in range(10):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (25 * i,) * 3).save(tmp_path / f"{i % 2}" / f"{i}.png")
    description = describe(slim(), options={})
    found = calibration_images(tmp_path, description, 5)
    shades = [round(float(image.mean() * 0.5 + 0.5) * 255) for image in found]
    assert shades == [0, 100, 200, 75, 175]  # every other file of 0/0.png … 0/8.png, 1/1.png … 1/9.png
    assert found[0].shape == (1, 3, 32, 32)


def test_the_command(tmp_path, capsys):
    van.save(slim(), tmp_path / "m.safetensors")
    out, told = tmp_path / "m.onnx", tmp_path / "r.json"
    options = ["--calibration", "digits", "--samples", "8", "--max-drop", "0.5", "--json", str(told)]
    assert main(["export", str(tmp_path / "m.safetensors"), str(out), "--int8", *options]) == 0
    printed = capsys.readouterr().out
    assert "calibrated on 8 images (digits)" in printed
    assert "largest errors" in printed
    assert json.loads(told.read_text())["report"]["images"] == 8
    assert main(["export", str(tmp_path / "m.safetensors"), str(out), "--calibration", "digits"]) == 2
    assert "--calibration has no effect here; give --int8 too" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.safetensors"), str(out), "--int8"]) == 2
    assert "--int8 needs images to calibrate on" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.safetensors"), str(out), "--int8", "--no-fold", *options]) == 2
    assert "--no-fold has no effect here" in capsys.readouterr().err


def test_openvino_compiles_the_first_two_shapes(tmp_path):
    from van.inference.engines.exported import open_exported

    van.export(slim(), tmp_path / "a.xml", images=PICTURES)
    engine = open_exported(tmp_path / "a.xml", threads=1)
    draw = np.random.default_rng(0)
    shapes = [(1, 3, 32, 32), (2, 3, 32, 48), (1, 3, 64, 32)]
    images = [draw.standard_normal(shape, np.float32) for shape in shapes]
    assert engine.fixed == {}
    for each in images * 2:
        np.testing.assert_allclose(engine.run(each)["logits"], engine.free.infer(each)["logits"], atol=1e-4)
    assert list(engine.fixed) == shapes[:2]  # no more than two copies of the weights
