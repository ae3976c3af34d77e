"""An ONNX model in int8 (QDQ), by ONNX Runtime's static quantisation.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import MissingExtraError
from ..inference.description import KEY, Description
from .formats import onnx_model, quiet
from .quantizable_layers import nodes_by_layer, weights_of

_OPERATORS = ("Conv", "Gemm", "MatMul")


class OnnxInt8:
    """A traced program that can be quantised: `graph` in float32, `layers` maps those that int8 may take to nodes."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.graph = onnx_model(program)
        self.layers = nodes_by_layer(weights_of(program), self._weighted())

    def quantized(self, batches: Sequence[np.ndarray], layers: Collection[str]) -> Any:
        """The graph with these layers in int8: weights per channel, what they read and make with a zero point.

        batches: (N, C, H, W) to calibrate on. Raises MissingExtraError without onnxruntime.
        """
        try:
            from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        except ImportError as error:
            raise MissingExtraError.of("onnxruntime", "export", "to make int8 models for ONNX Runtime") from error
        import onnx

        wanted = [self.layers[layer] for layer in layers]
        if not wanted:  # an empty list would mean every node
            return self.graph
        with tempfile.TemporaryDirectory() as folder, quiet():
            file = Path(folder) / "int8.onnx"
            quantize_static(
                _copy(self.graph),  # it is changed
                file,
                _Batches(self.graph.graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_quantize=wanted,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(file)

    def outputs(self, graph: Any, images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """What every layer gives in a graph of this program, float32 or int8: layer -> array, for every image."""
        import onnx
        import onnxruntime

        graph = _copy(graph)
        given = {node.name: node.output[0] for node in self.graph.graph.node}
        wanted = [given[node] for node in self.layers.values()]
        known = {output.name for output in graph.graph.output}
        graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for image in images:
            values = session.run(wanted, {session.get_inputs()[0].name: image})
            yield dict(zip(self.layers, values, strict=True))

    def write(self, graph: Any, description: Description, path: Path) -> None:
        """Write a graph with its description."""
        described = _copy(graph)
        described.metadata_props.add(key=KEY, value=description.to_json())
        path.write_bytes(described.SerializeToString())

    def _weighted(self) -> Iterator[tuple[str, np.ndarray]]:
        from onnx import numpy_helper

        values = {each.name: each for each in self.graph.graph.initializer}
        for node in self.graph.graph.node:
            if node.op_type in _OPERATORS and node.input[1] in values:
                yield node.name, numpy_helper.to_array(values[node.input[1]])


def _copy(graph: Any) -> Any:
    return type(graph).FromString(graph.SerializeToString())


class _Batches:
    """The reader of calibration data that onnxruntime asks for."""

    def __init__(self, name: str, batches: Sequence[np.ndarray]) -> None:
        self.remaining = ({name: batch} for batch in batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.remaining, None)
