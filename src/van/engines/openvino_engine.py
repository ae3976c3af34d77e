"""The OpenVINO engine: the two files (.xml, .bin) of `van export --format openvino` on the CPU."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, MissingExtraError
from ..paths import why_no_file
from .exported import ExportedEngine, broken
from .records import record_of

MOST_SHAPES = 2  # that get a graph of their own, with its copy of the weights


class OpenVinoEngine(ExportedEngine):
    """Runs an exported OpenVINO model in float32 (or as its quantised graph says); raises MissingExtraError without it.

    Raises CheckpointError when the .bin file is missing or belongs to another .xml file.
    """

    runtime = "openvino"

    def _open(self) -> None:
        try:
            core = the_core()
        except ImportError as error:
            raise MissingExtraError.of("openvino", "export", "to run .xml files") from error
        weights = self.path.with_suffix(".bin")
        if reason := why_no_file(weights):
            raise CheckpointError(f"{weights} {reason}; expected the weights of {self.path.name} beside it")
        if record_of(self.path).weights != checksum(weights):  # asked before OpenVINO looks into a foreign or cut one
            raise CheckpointError(f"{weights} is not the file that {self.path.name} was written with; export it again")
        try:
            model = core.read_model(self.path, weights)
        except Exception as error:
            raise broken(self.path, "an OpenVINO model", error) from error
        self.core, self.model = core, model
        self.settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self.threads}
        if self.description.options.get("precision") != "int8":
            # floats as they are: on processors with bfloat16 the default would round them, which int8 has done already
            self.settings["INFERENCE_PRECISION_HINT"] = "f32"
        self.request = core.compile_model(model, "CPU", self.settings).create_infer_request()
        self.fixed: dict[tuple[int, ...], Any] = {}
        self.seen: Counter[tuple[int, ...]] = Counter()

    def _logits(self, images: np.ndarray) -> np.ndarray:
        request = self.fixed.get(images.shape) or self._request(images.shape)
        return request.infer([images], share_inputs=True)[0].copy()

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The graph with free sizes, until a shape comes the second time: one compiled for it is some 10% faster.

        Of classifiers only: OpenVINO 2026.4 crashes while it compiles a Hamburger for a fixed size.
        """
        if self.description.task != "classification":
            return self.request
        self.seen[shape] += 1
        if self.seen[shape] < 2 or len(self.fixed) == MOST_SHAPES:
            return self.request
        model = self.model.clone()
        model.reshape(list(shape))
        self.fixed[shape] = self.core.compile_model(model, "CPU", self.settings).create_infer_request()
        return self.fixed[shape]


@functools.cache
def the_core() -> Any:
    """OpenVINO itself, kept until the process ends.

    Each core brings a stack for signal handlers. When two were alive, the one that goes last puts back the stack that
    the other one has freed (2026.4), and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def checksum(path: Path) -> str:
    """CRC-32 of a file, which tells a foreign or cut one; 1 GB takes well under a second."""
    value = 0
    with path.open("rb") as file:
        while part := file.read(2**24):
            value = zlib.crc32(part, value)
    return f"{value:08x}"
