"""What the engines of exported files share: the file, its description, checks of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.damage import named_damage
from ...checkpoints.files import EXPORTED
from ...errors import CheckpointError, ConfigError, VanError
from ...files import why_no_file
from ..batch_backoff import is_out_of_memory
from ..description import KEY, Description
from .records import record_of

SUFFIXES = EXPORTED  # suffix of a file -> the format it is exported in
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch.export"}  # format -> what runs it
# What ONNX Runtime and OpenVINO say; their exceptions are of types of their own.
_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate memory")


class ExportedEngine:
    """What the engines of exported files share: the file, its description, checks of what goes in.

    threads: of the CPU; None: as many as torch uses. runtime: the package that computes.
    trust: open also what runs programs of its author (.pt2).
    Raises CheckpointError for a file that is broken or was not exported by this package.
    """

    runtime: str
    network = None

    def __init__(self, path: str | Path, *, threads: int | None = None, trust: bool = False) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"threads is {threads}; expected at least 1")
        self.path, self.threads, self.trust = Path(path), threads or torch.get_num_threads(), trust
        self.description = description_of(self.path)  # a file that is not ours is refused before a runtime reads it
        with named_damage(path, "cannot be read as an exported network", "export it again"):
            self._open()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(N, C, H, W) float32 -> what the network gives by name, float32: of a single output "logits", (N, K, …).

        Raises ConfigError for the wrong number of channels, MemoryError where memory runs out, VanError where the
        runtime fails or gives something else.
        """
        channels, size = self.description.in_chans, self.description.config.graph_size
        if images.ndim != 4 or images.shape[1] != channels:
            raise ConfigError(
                f"the engine got an array of shape {images.shape}; {self.path.name} expects (N, {channels}, H, W)"
            )
        if size is not None and images.shape[2:] != size:
            raise ConfigError(
                f"{self.path.name} was exported for images of {size[0]} x {size[1]} pixels and got "
                f"{images.shape[2]} x {images.shape[3]}; leave the size out, or export again for another"
            )
        try:
            outputs = self._outputs(np.ascontiguousarray(images, np.float32))
        except Exception as error:  # of every runtime's own types
            reason = " ".join(str(error).split())
            if is_out_of_memory(error) or any(phrase in reason.lower() for phrase in _OUT_OF_MEMORY):
                raise MemoryError(reason) from error
            raise VanError(f"{self.path.name} fails on images of shape {images.shape}: {reason[:300]}") from error
        self._check(outputs, len(images))
        return outputs

    def run_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """As `run`, by way of the host."""
        return {name: torch.from_numpy(each) for name, each in self.run(images.cpu().numpy()).items()}

    def on(self, device: str) -> ExportedEngine:
        """The engine itself for "cpu"; raises ConfigError for any other device."""
        if torch.device(device).type != "cpu":
            raise ConfigError(f"device {device!r} is for checkpoints; exported files run on the cpu here")
        return self

    def info(self) -> ExportedInfo:
        """What the file is."""
        return ExportedInfo(path=str(self.path), runtime=self.runtime, description=self.description)

    def _open(self) -> None:
        """Make the file ready to run."""
        raise NotImplementedError

    def _outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _check(self, outputs: Mapping[str, np.ndarray], images: int) -> None:
        """Raises VanError for outputs of another shape than the description's."""
        classes, axes = self.description.num_classes, self.description.config.output_axes
        expected = axes.replace("N", str(images)).replace("K", str(classes))
        for name, output in outputs.items():
            single = not axes or (output.ndim == len(axes.split(",")) and output.shape[1:2] == (classes,))
            if not single or output.shape[:1] != (images,):
                raise VanError(
                    f"{self.path.name} gives {output.shape} for {images} images; expected "
                    f"({expected or f'{images}, …, as {name}'}), as it is described; export it again"
                )

    def __reduce__(self) -> Any:  # another process opens the file itself
        return partial(type(self), threads=self.threads, trust=self.trust), (self.path,)


@dataclass(frozen=True, kw_only=True)
class ExportedInfo:
    """What `van info` shows of an exported file."""

    path: str
    runtime: str
    description: Description

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) in reading order."""
        return [("file", self.path), ("runtime", self.runtime), *self.description.rows()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"file": self.path, "runtime": self.runtime, **self.description.to_dict()}

    def __str__(self) -> str:
        width = max(len(what) for what, _ in self.rows())
        return "\n".join(f"{what:<{width}}  {value}" for what, value in self.rows())


def description_of(path: str | Path) -> Description:
    """What an exported file says about its network, from our record in it alone: no runtime opens the file.

    Raises CheckpointError for a file that is missing, broken, or was not exported by this package.
    """
    format_of(path)
    with named_damage(path, "cannot be read as an exported network", "export it again"):
        text = record_of(Path(path)).description
        if not text:
            raise CheckpointError(
                f"{path} holds no description of its network (key {KEY!r}); expected a file that `van export` wrote"
            )
        return Description.from_json(text, path)


def format_of(path: str | Path) -> str:
    """The format of an exported file; raises CheckpointError for no file, or one that has another suffix."""
    if reason := why_no_file(path):
        raise CheckpointError(f"{str(path) or repr(path)} {reason}; expected a file of `van export`")
    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise CheckpointError(f"{path} is no exported file by its suffix; expected one of {', '.join(SUFFIXES)}")
    return kind


def broken(path: Path, what: str, error: Exception) -> CheckpointError:
    """The error for a file that its runtime refuses."""
    reason = " ".join(str(error).split())
    return CheckpointError(f"{path} cannot be read as {what}: {reason[:300]}; export it again")
