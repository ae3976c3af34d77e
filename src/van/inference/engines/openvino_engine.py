"""The OpenVINO engine: the two files (.xml, .bin) of `van export --format openvino` on the CPU."""

from __future__ import annotations

import functools
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError, MissingExtraError
from ...files import why_no_file
from .exported_engine import ExportedEngine, broken
from .records import record_of

_starting = threading.Lock()
MOST_SHAPES = 2  # that get a graph of their own, with its copy of the weights


class OpenVinoEngine(ExportedEngine):
    """Runs an exported OpenVINO model in float32 (or as its quantised graph says); raises MissingExtraError without it.

    Raises CheckpointError when the .bin file is missing or belongs to another .xml file.
    """

    runtime = "openvino"

    def _open(self) -> None:
        try:
            with _starting:  # threads that open files at once must not make two
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
        self.free = _Requests(core.compile_model(model, "CPU", self.settings))
        self.fixed: dict[tuple[int, ...], _Requests] = {}
        self.compiling = threading.Lock()

    def _outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return self._requests(images.shape).infer(images)

    def _requests(self, shape: tuple[int, ...]) -> _Requests:
        """Those of a graph compiled for the shape, some 10% faster; beyond MOST_SHAPES of the graph with free sizes.

        A shape has one graph from its first image on: the two round int8 differently.
        Only of models whose configuration allows it: OpenVINO 2026.4 crashes while it compiles a Hamburger for a fixed
        size.
        """
        if not self.description.config.fixed_size_graphs:
            return self.free
        with self.compiling:
            if shape not in self.fixed and len(self.fixed) < MOST_SHAPES:
                model = self.model.clone()
                model.reshape(list(shape))
                self.fixed[shape] = _Requests(self.core.compile_model(model, "CPU", self.settings))
            return self.fixed.get(shape, self.free)


class _Requests:
    """The infer requests of one graph. One serves a caller at a time, so there are as many as callers at once."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.names = [output.get_any_name() for output in compiled.outputs]
        self.idle: list[Any] = []  # append and pop are atomic

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs by name, the caller's own."""
        try:
            request = self.idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        results = request.infer([images], share_inputs=True)
        found = {name: results[number].copy() for number, name in enumerate(self.names)}
        self.idle.append(request)  # one that failed is not used again
        return found


@functools.cache
def the_core() -> Any:
    """OpenVINO itself, kept until the process ends.

    Each core brings a stack for signal handlers. When two were alive, the one that goes last puts back the stack that
    the other one has freed (2026.4), and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def checksum(path: Path) -> str:
    """CRC-32 of a file, by which a foreign or cut one is noticed; 1 GB takes well under a second."""
    value = 0
    with path.open("rb") as file:
        while part := file.read(2**24):
            value = zlib.crc32(part, value)
    return f"{value:08x}"
