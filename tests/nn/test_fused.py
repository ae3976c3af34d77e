"""The table of fused forwards: the same values as the forwards that are written, and only where nobody would notice."""

import ast
import copy
import pickle
from pathlib import Path

import pytest
import torch
from networks import gap, images, tiny
from torch import nn

import van
from van import ops
from van.nn import backbone, fusable, fused, layers
from van.nn.backbone import Backbone, Block, FeedForward, LargeKernelAttention, Stage
from van.nn.fused import FUSED, written_forward
from van.nn.hamburger import NMF, Hamburger
from van.nn.heads.layers import ConvNormReLU, PixelClassifier
from van.nn.heads.upernet import CellMeans
from van.nn.layers import DepthwiseConv2d, LayerNorm2d, PointwiseConv2d, depthwise_conv, pointwise_conv

SAME = 5e-6  # of the largest output: sums in another order
NN = Path(fused.__file__).parent


def block_of(model):
    return model.backbone.stages[1].blocks[0]


def memory_efficient(module):
    module.memory_efficient = True
    return module.train()


def recomputing(stage):
    stage.grad_checkpointing = True
    for norm in (m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval()
    return stage


# Class -> a module of it, and its input; of a feed-forward one for each entry of the table.
CASES = {
    DepthwiseConv2d: [lambda: (depthwise_conv(16, 7, 3), images(2, 16, 9, 7))],
    PointwiseConv2d: [lambda: (pointwise_conv(16, 24), images(2, 16, 9, 7))],
    LayerNorm2d: [lambda: (LayerNorm2d(16), images(2, 16, 9, 7))],
    LargeKernelAttention: [lambda: (block_of(tiny()).attention.spatial, images(2, 16, 9, 7))],
    FeedForward: [
        lambda: (block_of(tiny()).feed_forward, images(2, 16, 9, 7)),
        lambda: (hooked(memory_efficient(block_of(tiny()).feed_forward), "expand"), images(2, 16, 9, 7)),
        lambda: (hooked(block_of(tiny()).feed_forward, "project"), images(2, 16, 9, 7)),
    ],
    Block: [
        lambda: (block_of(tiny()), images(2, 16, 9, 7)),
        lambda: (hooked(memory_efficient(block_of(tiny())), "attention"), images(2, 16, 9, 7)),
    ],
    Stage: [lambda: (recomputing(tiny().backbone.stages[1]), images(2, 8, 18, 14).requires_grad_())],
    Backbone: [
        lambda: (_traced(tiny().backbone.eval()), images(2, 3, 32, 32)),
        lambda: (tiny().backbone.eval(), images(2, 3, 32, 32)),
    ],
    ConvNormReLU: [
        lambda: (inference(ConvNormReLU(12, 32, 3, norm="group")), images(2, 8, 9, 9), images(2, 4, 5, 5)),
        lambda: (ConvNormReLU(12, 32, 3, norm="group"), images(2, 8, 9, 9), images(2, 4, 5, 5)),
    ],
    NMF: [lambda: (NMF(16, 4).eval(), images(2, 16, 9, 7).abs())],
    Hamburger: [lambda: (inference(Hamburger(64, 4)), images(2, 64, 9, 7))],
    PixelClassifier: [lambda: (inference(PixelClassifier(16, 5, 0.1)), images(2, 16, 9, 7))],
    CellMeans: [lambda: (CellMeans(3), images(2, 4, 7, 8))],
}


def inference(module):
    return module.eval().requires_grad_(False)


def hooked(module, name):
    getattr(module, name).register_forward_hook(lambda *_: None)
    return module


def _traced(module):
    return torch.fx.symbolic_trace(module)


@pytest.fixture
def taken(monkeypatch):
    """The entries of the table that calls have taken, as (class, index)."""
    found = []
    for kind, ways in FUSED.items():
        spied = tuple(
            way._replace(forward=lambda *a, _way=way, _at=(kind, i), **k: found.append(_at) or _way.forward(*a, **k))
            for i, way in enumerate(ways)
        )
        monkeypatch.setattr(kind, "forward", fused._swapped(written_forward(kind), spied))
        if kind in fusable._WRITTEN:
            monkeypatch.setitem(fusable._WRITTEN, kind, fusable.methods(kind))
    return found


def test_every_entry_of_the_table_has_a_case():
    assert {kind: len(ways) for kind, ways in FUSED.items()} == {kind: len(made) for kind, made in CASES.items()}


def test_the_swapped_classes_are_those_of_the_table():
    kinds = {m for room in (backbone, layers) for m in vars(room).values() if isinstance(m, type)} | set(CASES)
    assert {kind for kind in kinds if hasattr(vars(kind).get("forward"), "__wrapped__")} == set(FUSED)


@pytest.mark.parametrize(("kind", "index"), [(kind, i) for kind, made in CASES.items() for i in range(len(made))])
def test_an_entry_gives_what_the_written_forward_gives(kind, index, taken, monkeypatch):
    if kind in (LayerNorm2d, CellMeans):
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.manual_seed(0)
    module, *inputs = CASES[kind][index]()
    got = module(*inputs)
    assert (kind, index) in taken
    for each in FUSED:
        monkeypatch.setattr(each, "forward", written_forward(each))
    taken.clear()
    want = module(*inputs)
    assert not taken
    for one, two in zip(*(y if isinstance(y, tuple) else (y,) for y in (got, want)), strict=True):
        assert gap(one, two) < SAME


class Doubled(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return 2 * self.base(x)


def _another_class(module):
    module.__class__ = type("Mine", (type(module),), {})


CHANGES = {
    "hook": lambda parent, name: hooked(parent, name),
    "replaced forward": lambda parent, name: setattr(parent.get_submodule(name), "forward", lambda x: 2 * x),
    "replaced module": lambda parent, name: setattr(parent, name, Doubled(parent.get_submodule(name))),
    "subclass": lambda parent, name: _another_class(parent.get_submodule(name)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "name"), [
    (LargeKernelAttention, "near"),
    (LargeKernelAttention, "far"),
    (FeedForward, "depthwise"),
])  # fmt: skip
def test_a_changed_part_takes_the_written_forward(kind, name, change, taken):
    module, x = CASES[kind][0]()
    CHANGES[change](module, name)
    module(x)
    assert kind not in {each for each, _ in taken}


HEAD_PARTS = {
    ConvNormReLU: ["conv", "norm"],
    Hamburger: ["lower", "ham", "upper", "norm"],
    PixelClassifier: ["conv", "dropout"],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in HEAD_PARTS.items() for name in names])
def test_a_changed_part_of_a_head_is_called(kind, name, change, taken):
    module, *inputs = CASES[kind][0]()
    if change == "replaced forward":
        part = module.get_submodule(name)
        part.forward = part.forward  # on the instance
    else:
        CHANGES[change](module, name)
    module(*inputs)
    assert (kind, 0) not in taken


@pytest.mark.parametrize(("kind", "name", "attribute", "value"), [
    (ConvNormReLU, "conv", "padding_mode", "circular"),
    (ConvNormReLU, "conv", "stride", (2, 2)),
    (ConvNormReLU, "conv", "padding", (0, 0)),
    (ConvNormReLU, "conv", "padding", "same"),
    (ConvNormReLU, "conv", "dilation", (2, 2)),
    (PixelClassifier, "dropout", "training", True),
    (Hamburger, "ham", "training", True),
])  # fmt: skip
def test_a_head_of_another_geometry_or_mode_is_called(kind, name, attribute, value, taken):
    module, x, *_ = CASES[kind][0]()
    if kind is ConvNormReLU:
        module.conv = nn.Conv2d(8, 32, 3, padding=1).requires_grad_(False)
    module(x)
    assert (kind, 0) in taken
    taken.clear()
    setattr(module.get_submodule(name), attribute, value)
    module(x)
    assert (kind, 0) not in taken


@pytest.mark.parametrize("kind", [ConvNormReLU, PixelClassifier, Hamburger, NMF])
def test_heads_in_training_and_with_gradients_are_called(kind, taken):
    module, *inputs = CASES[kind][0]()
    module(*(x.clone().requires_grad_() for x in inputs))
    assert (kind, 0) not in taken
    if kind is not NMF:
        module.requires_grad_()
        module(*inputs)
        assert (kind, 0) not in taken
        with torch.no_grad():
            module(*inputs)
        assert (kind, 0) in taken


@pytest.mark.parametrize("kind", HEAD_PARTS)
def test_heads_of_a_patched_class_are_called(kind, taken, monkeypatch):
    module, *inputs = CASES[kind][0]()
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda conv, x, weight, bias: 2 * CONVOLVE(conv, x, weight, bias))
    module(*inputs)
    assert (kind, 0) not in taken


CONVOLVE = nn.Conv2d._conv_forward


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["expand", "project", "dropout"])
def test_a_changed_end_of_the_feed_forward_leaves_convolution_and_gelu_together(name, change, taken):
    module, x = CASES[FeedForward][0]()
    if change == "replaced forward" and name != "dropout":
        part = getattr(module, name)
        part.forward = part.forward  # on the instance
    else:
        CHANGES[change](module, name)
    module(x)
    assert {each for each in taken if each[0] is FeedForward} == {(FeedForward, 2)}


def test_a_subclass_that_calls_its_parents_forward_is_swapped_too(taken):
    class Mine(LargeKernelAttention):
        def forward(self, x):
            return 2 * super().forward(x)

    module, x = CASES[LargeKernelAttention][0]()
    want = 2 * module(x)
    module.__class__ = Mine
    taken.clear()
    assert torch.equal(module(x), want)
    assert (LargeKernelAttention, 0) in taken


def test_hooks_of_the_process_take_every_written_forward_that_calls_others(taken):
    model = tiny().eval()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        model(images())
    finally:
        handle.remove()
    assert {kind for kind, _ in taken} == {Backbone, DepthwiseConv2d, PointwiseConv2d}


def test_exports_get_the_modules_one_by_one(taken):
    torch.export.export(tiny().eval(), (images(),))
    assert {kind for kind, _ in taken} == {Backbone, DepthwiseConv2d, PointwiseConv2d, LayerNorm2d}


def test_torch_fx_traces_what_is_written(taken):
    model, x = tiny().eval(), images()
    traced = torch.fx.symbolic_trace(model)
    assert set(taken) == {(Backbone, 0)}
    assert gap(traced(x), model(x)) < SAME
    pyramid = torch.fx.symbolic_trace(model.backbone)
    assert all(gap(a, b) < SAME for a, b in zip(pyramid(x), model.backbone(x), strict=True))


@pytest.mark.parametrize("kind", [Block, FeedForward])
def test_pickles_of_the_attributes_earlier_name(kind):
    for lean in (False, True):
        module = {Block: block_of(tiny()), FeedForward: block_of(tiny()).feed_forward}[kind]
        del module.memory_efficient
        module.lean = lean
        for read in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert read.memory_efficient is lean
            assert not hasattr(read, "lean")


def test_the_earlier_name_of_memory_efficient_training():
    model = tiny()
    modules = [m for m in model.modules() if isinstance(m, Block | FeedForward)]
    model.backbone.set_lean()
    assert all(module.memory_efficient for module in modules)
    model.backbone.set_lean(False)
    assert not any(module.memory_efficient for module in modules)


def test_images_by_keyword():
    model, x = tiny().backbone.eval(), images()
    assert all(torch.equal(a, b) for a, b in zip(model(images=x), model(x), strict=True))
    assert torch.equal(model(images=x, last=True), model.last(x))


# --- the wall


def imported(path):
    """Modules that a file imports anywhere, as paths below src/van."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parent
            for _ in range(node.level - 1):
                base = base.parent
            base = base.joinpath(*(node.module or "").split("."))
            found |= {base, *(base / alias.name for alias in node.names)}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("van"):
            base = NN.parent.joinpath(*node.module.split(".")[1:])
            found |= {base, *(base / alias.name for alias in node.names)}
    return found


def closure(path, found=()):
    """All files of the package that a file needs, but what `import van.nn` itself adds."""
    found = set(found) | {path}
    for module in imported(path):
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if file.is_file() and file not in found and file != NN / "__init__.py":
                found |= closure(file, found)
    return found


@pytest.mark.parametrize(
    "name", ["backbone.py", "layers.py", "checkpointing.py", "heads/layers.py", "heads/upernet.py"]
)
def test_the_network_imports_nothing_of_ops(name):
    assert NN / "layers.py" in closure(NN / "fused.py")
    assert NN.parent / "ops" / "depthwise.py" in closure(NN / "fused.py")
    assert not {file for file in closure(NN / name) if file.parent == NN.parent / "ops" or file == NN / "fused.py"}


def test_ops_know_no_modules():
    for path in Path(ops.__file__).parent.glob("*.py"):
        known = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert {name for name in known if name.startswith("nn.")} <= {"nn.Parameter"}, path.name


def test_folded_networks_of_a_patched_class_are_called(monkeypatch):
    heard, model = [], van.nn.fold(tiny())
    forward = PointwiseConv2d.forward
    monkeypatch.setattr(PointwiseConv2d, "forward", lambda self, x: heard.append(1) or forward(self, x))
    with torch.no_grad():
        model(images())
    assert len(heard) == 5 * 5
