"""An OpenVINO model in int8, by NNCF.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import MissingExtraError
from ..inference.description import Description
from ..inference.engines.openvino_engine import the_core
from .formats import openvino_model, quiet, save_openvino
from .quantizable_layers import nodes_by_layer, weights_of

_OPERATORS = ("Convolution", "GroupConvolution", "MatMul")


class OpenVinoInt8:
    """A traced program that can be quantised: `graph` in float32, `layers` maps those that int8 may take to nodes."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.graph = openvino_model(program)
        self.layers = nodes_by_layer(weights_of(program), self._weighted())

    def quantized(self, batches: Sequence[np.ndarray], layers: Collection[str]) -> Any:
        """The graph with these layers in int8: weights per channel, what they read in one scale without a zero point.

        With a scale per channel, NNCF's choice, depthwise convolutions would be computed in floating point (2026.4).

        batches: (N, C, H, W) to calibrate on. Raises MissingExtraError without NNCF.
        """
        try:
            import nncf
            from nncf.quantization.advanced_parameters import QuantizationParameters
        except ImportError as error:
            raise MissingExtraError.of("nncf", "quantize", "to make int8 models for OpenVINO") from error
        nncf.set_log_level(logging.ERROR)
        wanted = {self.layers[layer] for layer in layers}
        others = [node for node in _nodes(self.graph) if node not in wanted]
        with quiet():
            return nncf.quantize(
                self.graph.clone(),
                nncf.Dataset(batches),
                preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric
                subset_size=len(batches),
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_quantization_params=QuantizationParameters(per_channel=False)
                ),
            )

    def outputs(self, graph: Any, images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """What every layer gives, its bias added, in a graph of this program: layer -> array, for every image.

        The graph is float32 or int8, which is simulated in float32: OpenVINO returns zeros for int8 layers that are
        read in two places (2026.4).
        """
        from openvino import opset13

        graph = graph.clone()
        nodes = {op.get_friendly_name(): op for op in graph.get_ordered_ops()}
        # behind an operator of their own, or a layer that is an output already would have one less
        wanted = [opset13.negative(_with_bias(nodes[node]).output(0)).output(0) for node in self.layers.values()]
        graph.add_outputs(wanted)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
        compiled = the_core().compile_model(graph, "CPU", settings)
        for image in images:
            results = compiled([image])
            yield {layer: -results[i] for i, layer in enumerate(self.layers, start=1)}

    def write(self, graph: Any, description: Description, path: Path) -> None:
        """Write a graph with its description."""
        save_openvino(graph, description, path)

    def _weighted(self) -> Iterator[tuple[str, np.ndarray]]:
        for op in self.graph.get_ordered_ops():
            if op.get_type_name() in _OPERATORS:
                weight = op.input_value(1).get_node()
                if weight.get_type_name() == "Constant":
                    grouped = op.get_type_name() == "GroupConvolution"  # (groups, C_out / groups, C_in / groups, …)
                    yield op.get_friendly_name(), weight.data.reshape(-1, *weight.shape[2:]) if grouped else weight.data


def _with_bias(operator: Any) -> Any:
    """The operator that adds the bias to a convolution or product; itself where it has none.

    One that is read before its bias keeps OpenVINO from computing both in one, and a constant per channel added
    right before a FakeQuantize comes out wrong where sizes are free and int8 is simulated (2026.4), and all after it.
    """
    readers = [reader.get_node() for reader in operator.output(0).get_target_inputs()]
    if len(readers) != 1 or readers[0].get_type_name() != "Add":
        return operator
    terms = {value.get_node().get_type_name() for value in readers[0].input_values()}
    return readers[0] if "Constant" in terms else operator


def _nodes(graph: Any) -> list[str]:
    """Names of everything that computes."""
    skipped = ("Constant", "Parameter", "Result")
    return [op.get_friendly_name() for op in graph.get_ordered_ops() if op.get_type_name() not in skipped]
