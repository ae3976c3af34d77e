"""Exported files: which engine runs them, what they say about themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

from .exported_engine import RUNTIMES, SUFFIXES, ExportedEngine, ExportedInfo, description_of, format_of

__all__ = [
    "RUNTIMES",
    "SUFFIXES",
    "ExportedEngine",
    "ExportedInfo",
    "description_of",
    "info_of",
    "is_exported",
    "open_exported",
]


def is_exported(source: Any) -> TypeGuard[str | Path]:
    """Whether a source is an exported file, by its suffix."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def open_exported(path: str | Path, threads: int | None = None, trust: bool = False) -> ExportedEngine:
    """The engine that runs an exported file, by its suffix.

    trust: open also a .pt2 file that this machine did not write, which runs its author's programs.
    Raises CheckpointError for a file that is missing, broken, or was not exported by this package; UnsafeFileError for
    a .pt2 file without trust; MissingExtraError without its runtime.
    """
    kind = format_of(path)
    if kind == "onnx":
        from .onnx_engine import OnnxEngine

        return OnnxEngine(path, threads=threads, trust=trust)
    if kind == "openvino":
        from .openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path, threads=threads, trust=trust)
    from .program_engine import ProgramEngine

    return ProgramEngine(path, threads=threads, trust=trust)


def info_of(path: str | Path) -> ExportedInfo:
    """What an exported file is, as `van info` shows it; raises what `description_of` raises."""
    return ExportedInfo(path=str(path), runtime=RUNTIMES[format_of(path)], description=description_of(path))
