"""A traced network in ONNX Runtime and in OpenVINO, in float32: what this package's forms are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

Logits = Callable[[np.ndarray], np.ndarray]  # of images (N, C, H, W)


def trace(network: torch.nn.Module, images: torch.Tensor, file: Path, *, free: bool = False) -> None:
    """Write the network as a program for these images; free: for any height and width."""
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if free else None
    with torch.inference_mode(False), torch.no_grad():
        program = torch.export.export(network, (images,), dynamic_shapes=sides and (sides,), strict=False)
    torch.export.save(program, str(file))


def onnx_runtime(file: Path, threads: int) -> Logits:
    """The program in ONNX Runtime."""
    import onnxruntime

    exported = file.with_suffix(".onnx")
    program = torch.export.load(str(file))
    torch.onnx.export(program, (), str(exported), dynamo=True, external_data=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(exported), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def openvino(file: Path, threads: int) -> Logits:
    """The program in OpenVINO, in float32, for the very shape that it was traced with."""
    import openvino

    model = openvino.convert_model(torch.export.load(str(file)))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True)[0].copy()
