"""How fast a network is on this machine: torch, ONNX Runtime, OpenVINO, int8, and what arithmetic alone takes.

The floor of a form is what all multiply-adds of the network take, those of convolutions of every kind, linear layers
and other products, at the rate of a large matrix product of the same precision, measured in the same rounds. They are
counted as in the tables of complexity, so a kernel's taps outside the map count too.

Shapes: N batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import models, ops
from ..errors import ConfigError, UnknownNameError, VanError, VanNotice
from ..exporting import export, network, reference
from ..exporting.exporter import by_name
from ..exporting.graph import OUTPUT
from ..exporting.int8 import quantize
from ..exporting.int8_report import sqnr_db
from ..exporting.parity import Run
from ..exporting.sample_images import Images, named_images
from ..inference.engines.exported import open_exported
from ..nn.dtypes import in_float32
from ..nn.model import Model
from ..ops.timing import burst_ms, in_turn, summary
from ..tasks.comparison import RawOutputs, values
from .complexity_counter import count_operations

BF16 = "bf16"  # the optimised network in bfloat16
TORCH_FORMS = ("eager", "optimised", "compiled", BF16)
# form -> suffix of its file
EXPORTED_FORMS = {"onnx": ".onnx", "openvino": ".xml"}
INT8_FORMS = {"onnx-int8": ".onnx", "openvino-int8": ".xml"}
FORMS = (*TORCH_FORMS, *EXPORTED_FORMS, *INT8_FORMS)
LOSSY_FORMS = (BF16, *INT8_FORMS)  # whose distance from float32 is stated instead of bounded
TOLERANCE = 1e-4  # of the largest logit: float32 rounding through up to 38 blocks
ROUNDS = 7
GEMM_SIDE = 2048
FP32 = "fp32"
PRECISIONS = {FP32: torch.float32, BF16: torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One form of the network.

    ms: of a batch, median over the rounds; low, high: quartiles. speedup: over the first form, median over the rounds.
    of_floor: ms as a multiple of the floor, bf16's of its own, int8's of float32's.
    sqnr_db: of the logits of random images against float32; None for float32 forms.
    """

    form: str
    ms: float
    low: float
    high: float
    speedup: float
    of_floor: float
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured, on images of `size` (H, W), `batch` at a time.

    macs: multiply-adds of the batch. gemm_gflops: rate of a large float32 matrix product in the same run, two
    operations per multiply-add. floor_ms: all multiply-adds at that rate.
    bf16_gemm_gflops, bf16_floor_ms: the same in bfloat16; None where the form bf16 was not measured.
    """

    name: str
    batch: int
    size: tuple[int, int]
    threads: int
    rounds: int
    macs: int
    gemm_gflops: float
    floor_ms: float
    bf16_gemm_gflops: float | None
    bf16_floor_ms: float | None
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def bench(
    source: str | Path | nn.Module,
    *,
    forms: Sequence[str] | None = None,
    batch: int = 1,
    size: int | None = None,
    threads: int | None = None,
    rounds: int = ROUNDS,
    calibration: Images | None = None,
) -> Bench:
    """Measure a network on this CPU, every form in turn, after a check that all compute the same.

    source: a model name (random weights), what `van.load` takes, or a model.
    forms: of FORMS; None: eager, optimised and the runtimes that are installed. size: pixels of the random images'
    side, None: the checkpoint's own. threads: None for as many as torch uses. rounds: at least 7 for a result.
    calibration: for int8 forms, see `van.quantize`; None: photographs and digits that come with scikit-learn.
    Raises ConfigError for numbers that cannot work, VanError when a float32 form gives other logits than eager.
    """
    chosen = tuple(forms) if forms is not None else installed()
    _check(chosen, batch=batch, size=size, threads=threads, rounds=rounds)
    model = _model(source)
    name = str(source) if isinstance(source, str | Path) else type(source).__name__
    images = _images(model, batch, size)
    with _threads(threads) as count, tempfile.TemporaryDirectory() as folder:
        runs = networks(model, chosen, Path(folder), images, calibration=calibration)
        noise = check(runs, reference(model), images)
        rates, times = measure({form: _call(run, images) for form, run in runs.items()}, rounds)
    macs = multiply_adds(model, images.shape)
    floors = {precision: floor_ms(macs, rate) for precision, rate in rates.items()}
    return Bench(
        name=name,
        batch=batch,
        size=images.shape[2:],
        threads=count,
        rounds=rounds,
        macs=macs,
        gemm_gflops=rates[FP32],
        floor_ms=floors[FP32],
        bf16_gemm_gflops=rates.get(BF16),
        bf16_floor_ms=floors.get(BF16),
        rows=tuple(
            _row(form, summary(times[chosen[0]], times[form]), floors.get(form, floors[FP32]), noise.get(form))
            for form in chosen
        ),
    )


def _check(forms: Sequence[str], **numbers: int | None) -> None:
    """Raises UnknownNameError for a form, ConfigError for a number below 1 and for no form at all."""
    for form in forms:
        if form not in FORMS:
            raise UnknownNameError.of("form", form, FORMS)
    for name, value in (*numbers.items(), ("forms", len(forms))):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1")


def networks(
    model: Model, forms: Sequence[str], folder: Path, images: np.ndarray, *, calibration: Images | None = None
) -> dict[str, Run]:
    """The forms of a network, ready to run in torch's number of threads; exported ones are written into `folder`.

    images: (N, C, H, W), that a compiled form is compiled for.
    """
    made: dict[str, Run] = {}
    for form in forms:
        if form in TORCH_FORMS:
            made[form] = _torch_form(model, form, images)
            continue
        file = folder / f"{form}{(EXPORTED_FORMS | INT8_FORMS)[form]}"
        if form in EXPORTED_FORMS:
            export(model, file)
        else:
            data = calibration if calibration is not None else [image for _, image in named_images(None)]
            quantize(model, file, calibration=data, max_drop=1.0)  # its speed is measured; its scores need a data set
        engine = open_exported(file, trust=True)  # written a moment ago
        made[form] = engine.run
    return made


def check(runs: Mapping[str, Run], original: Run, images: np.ndarray) -> dict[str, float]:
    """Signal to noise of the logits of LOSSY_FORMS, in decibels; raises VanError when a float32 form's differ."""
    want, noise = values(original(images)), {}
    for form, run in runs.items():
        got = values(run(images))
        if form in LOSSY_FORMS:
            noise[form] = sqnr_db([got], [want])
            continue
        gap = float(np.abs(got - want).max() / np.abs(want).max())
        if not gap < TOLERANCE:
            raise VanError(
                f"{form}: logits differ from the network's by {gap:.2g} of the largest; nothing was measured"
            )
    return noise


def measure(calls: Mapping[str, Callable[[], object]], rounds: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """GFLOP/s of a large matrix product per precision, and milliseconds of every form's call per round, all in turn."""
    products = {name: matrix_product(name) for name in PRECISIONS if name == FP32 or name in calls}
    everything = {**{f"product in {name}": product for name, product in products.items()}, **calls}
    times = in_turn({key: partial(burst_ms, call) for key, call in everything.items()}, rounds)
    return {name: gemm_gflops(min(times.pop(f"product in {name}"))) for name in products}, times


def matrix_product(precision: str = FP32) -> Callable[[], object]:
    """A product that is large enough to show what the machine can do; precision: a key of PRECISIONS."""
    a, b = torch.randn(2, GEMM_SIDE, GEMM_SIDE).to(PRECISIONS[precision])
    return lambda: torch.mm(a, b)


def gemm_gflops(ms: float) -> float:
    """The rate of that product, two operations per multiply-add."""
    return 2 * GEMM_SIDE**3 / ms / 1e6


def floor_ms(macs: int, gflops: float) -> float:
    """Milliseconds that so many multiply-adds take at a rate."""
    return 2 * macs / gflops / 1e6


class _Raw(nn.Module):
    """A network whose `forward` is what is run, exported and measured of it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> object:
        return self.model.raw(images)


def multiply_adds(model: Model, shape: Sequence[int]) -> int:
    """Of the network on images (N, C, H, W): convolutions of every kind, linear layers and all other products."""
    raw = _Raw(copy.deepcopy(model).eval())
    # nothing is computed; attention counts as its two products, since what a fused one does is not counted everywhere
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH), ops.without_kernels():
        counted = count_operations(raw, torch.empty(tuple(shape))).total
    return counted["macs"] + counted["matmul"]


def _torch_form(model: Model, form: str, images: np.ndarray) -> Run:
    ready: Any = model.eval()
    dtype = PRECISIONS.get(form, torch.float32)
    if form != "eager":
        typed = copy.deepcopy(model).to(dtype) if form == BF16 else model
        ready = models.optimize(typed, example=torch.from_numpy(images).to(dtype), compile=form == "compiled")

    def run(images: np.ndarray) -> RawOutputs:
        with torch.inference_mode():
            raw = ready.raw(torch.from_numpy(images).to(dtype))
            named = raw if isinstance(raw, Mapping) else {OUTPUT: raw}
            return by_name({name: each.float() for name, each in named.items()})  # as in exported files

    return run


def _model(source: str | Path | nn.Module) -> Model:
    if isinstance(source, str) and source in models.list_models():
        warnings.warn(f"{source} is a model name: it is measured with random weights", VanNotice, stacklevel=3)
        return network(models.create_model(source, seed=0).eval())
    return cast(Model, in_float32(network(source), "the model"))


def _images(model: Model, batch: int, size: int | None) -> np.ndarray:
    """Random ones, from a fixed seed."""
    preprocess, only = model.metadata.preprocess, model.config.graph_size
    if only is not None and size not in (None, only[0]):
        raise ConfigError(
            f"size is {size}, but this {model.config.noun} takes images of {only[0]} pixels; leave it out"
        )
    sides = only or ((size, size) if size else preprocess.size if preprocess is not None else (224, 224))
    shape = (batch, model.config.backbone.in_chans, *sides)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def installed() -> tuple[str, ...]:
    """The forms that are measured by default: torch's own, and those whose runtimes are installed."""
    from importlib.util import find_spec

    wants = {"onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}
    return ("eager", "optimised", *(form for form, names in wants.items() if all(map(find_spec, names))))


def _call(run: Run, images: np.ndarray) -> Callable[[], object]:
    return lambda: run(images)


def _row(form: str, found: dict[str, float], floor: float, noise: float | None) -> Row:
    shown = {name: found[name] for name in ("ms", "low", "high")}
    return Row(form=form, **shown, speedup=found["ratio"], of_floor=found["ms"] / floor, sqnr_db=noise)


@contextmanager
def _threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)
