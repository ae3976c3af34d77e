"""A traced program as a file: one function per format, each writing the description into it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, MissingExtraError
from ..inference.description import KEY, Description
from ..inference.engines.openvino_engine import checksum
from ..inference.engines.records import DESCRIPTION, EXTRA_FILE, WEIGHTS
from .graph import INPUT, output_names

Program = torch.export.ExportedProgram
AXES = {0: "batch", 2: "height", 3: "width"}  # free sizes of the images
LAYOUTS = {2: "NC", 4: "NCHW"}  # OpenVINO's names for the axes of outputs of so many dimensions
ONNX_LIMIT_BYTES = 2**31 - 2**20  # of one file, which is a protocol buffer; a little is the graph


def write_onnx(program: Program, description: Description, path: Path) -> None:
    """One .onnx file with everything inside.

    Raises ConfigError for more weights than the format holds in one file, MissingExtraError without onnx.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > ONNX_LIMIT_BYTES:
        raise ConfigError(f"{size:,} bytes of weights; one ONNX file holds 2 GiB: export to openvino or torch")
    proto = onnx_model(program)
    proto.metadata_props.add(key=KEY, value=description.to_json())
    path.write_bytes(proto.SerializeToString())


def onnx_model(program: Program) -> Any:
    """The program as an onnx.ModelProto, its input `images`, outputs as `output_names`; raises MissingExtraError."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of(error.name or "onnx", "export", "to export to ONNX") from error
    with quiet():
        names = output_names(program)
        made = torch.onnx.export(program, input_names=[INPUT], output_names=names, dynamo=True, verbose=False)
    assert made is not None  # it is without a file name
    proto = made.model_proto
    _name_axes(proto.graph)
    return proto


def _name_axes(graph: Any) -> None:
    """Free sizes under their own names, where tracing numbered them: of the input, the output and all between."""
    free = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    names = {free[index]: name for index, name in AXES.items() if free[index]}
    if not names:
        return
    numbered = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = numbered.sub(lambda found: names[found[1]], dim.dim_param)


def write_openvino(program: Program, description: Description, path: Path) -> None:
    """An .xml file and, beside it, a .bin file with the weights in float32; raises MissingExtraError."""
    save_openvino(openvino_model(program), description, path)


def openvino_model(program: Program) -> Any:
    """The program as an openvino.Model, its input `images`, outputs as `output_names`; raises MissingExtraError."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError.of("openvino", "export", "to export to OpenVINO") from error
    with quiet():
        model = openvino.convert_model(program)
    model.input(0).set_names({INPUT})
    for output, name in zip(model.outputs, output_names(program), strict=True):
        output.set_names({name})
    model.get_parameters()[0].set_layout(openvino.Layout("NCHW"))  # the names that it has for axes
    for output, result in zip(model.outputs, model.get_results(), strict=True):
        if layout := LAYOUTS.get(len(output.partial_shape)):
            result.set_layout(openvino.Layout(layout))
    return model


def save_openvino(model: Any, description: Description, path: Path) -> None:
    """Write an openvino.Model with its description and, for the engine to compare, the checksum of its weights."""
    import openvino

    model.set_rt_info(description.to_json(), [KEY, DESCRIPTION])
    openvino.save_model(model, path, compress_to_fp16=False)
    model.set_rt_info(checksum(path.with_suffix(".bin")), [KEY, WEIGHTS])
    openvino.save_model(model, path, compress_to_fp16=False)


def write_torch(program: Program, description: Description, path: Path) -> None:
    """One .pt2 file of torch.export."""
    with quiet():
        torch.export.save(program, str(path), extra_files={EXTRA_FILE: description.to_json()})


Writer = Callable[[Program, Description, Path], None]
WRITERS: dict[str, Writer] = {"onnx": write_onnx, "openvino": write_openvino, "torch": write_torch}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own messages and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
