"""The ONNX Runtime engine: a file of `van export --format onnx` on the CPU."""

from __future__ import annotations

import numpy as np

from ...errors import MissingExtraError
from .exported_engine import ExportedEngine, broken


class OnnxEngine(ExportedEngine):
    """Runs an exported ONNX file in ONNX Runtime; raises MissingExtraError without it."""

    runtime = "onnxruntime"

    def _open(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError.of("onnxruntime", "export", "to run .onnx files") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = self.threads
        try:
            self.session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], enable_fallback=False
            )
        except Exception as error:  # of many types without a common base
            raise broken(self.path, "an ONNX model", error) from error
        self.input = self.session.get_inputs()[0].name
        self.names = [output.name for output in self.session.get_outputs()]

    def _outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.names, self.session.run(self.names, {self.input: images}), strict=True))
