"""What the engines of exported files share: the file, its description, checks of what goes in and comes out."""

from __future__ import annotations

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
        """(N, C, H, W) float32 -> {"logits": what the network gives, (N, K, …) float32}.

        Raises ConfigError for the wrong number of channels, MemoryError where memory runs out, VanError where the
        runtime fails or gives something else.
        """
        channels = self.description.in_chans
        if images.ndim != 4 or images.shape[1] != channels:
            raise ConfigError(
                f"the engine got an array of shape {images.shape}; {self.path.name} expects (N, {channels}, H, W)"
            )
        try:
            logits = self._logits(np.ascontiguousarray(images, np.float32))
        except Exception as error:  # of every runtime's own types
            reason = " ".join(str(error).split())
            if is_out_of_memory(error) or any(phrase in reason.lower() for phrase in _OUT_OF_MEMORY):
                raise MemoryError(reason) from error
            raise VanError(f"{self.path.name} fails on images of shape {images.shape}: {reason[:300]}") from error
        about = self.description
        expected = about.config.output_axes.replace("N", str(len(images))).replace("K", str(about.num_classes))
        if logits.ndim != len(expected.split(",")) or logits.shape[:2] != (len(images), about.num_classes):
            raise VanError(
                f"{self.path.name} gives {logits.shape} for {len(images)} images; expected ({expected}), as it is "
                "described; export it again"
            )
        return {"logits": logits}

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

    def _logits(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError

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
