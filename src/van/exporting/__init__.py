"""Exported networks: one file for ONNX Runtime, OpenVINO or torch.export, and proof that it computes the same."""

from .exporter import FORMATS, Export, batches, describe, destination, export, network, reference, runner
from .formats import onnx_model, openvino_model, save_openvino
from .graph import prepared, trace
from .int8 import Quantized, quantize
from .parity import Case, Parity, compare

__all__ = [
    "FORMATS",
    "Case",
    "Export",
    "Parity",
    "Quantized",
    "batches",
    "compare",
    "describe",
    "destination",
    "export",
    "network",
    "onnx_model",
    "openvino_model",
    "prepared",
    "quantize",
    "reference",
    "runner",
    "save_openvino",
    "trace",
]
