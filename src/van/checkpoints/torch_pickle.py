"""Reading and writing torch's pickles, safely: the one module of this room that knows torch.

`torch.load(weights_only=True)` builds tensors and plain containers only. Published files also hold the argparse
Namespace of their training run, numpy scalars and OpenMMLab's log buffers; these names are allow-listed here, all but
numpy's own as inert stand-ins. Any other global is refused before anything of it runs.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import io
import pathlib
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ..errors import CheckpointError, UnsafeFileError
from .files import atomic, bfloat16_note


class Inert:
    """Stands in for a pickled object that is no tensor; takes any state and keeps none."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


# Names whose objects carry nothing that van reads.
_INERT = (
    "builtins.getattr",  # how a pickle spells HistoryBuffer's own functions
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.logging.history_buffer.HistoryBuffer.mean",
)
_AS_DICT = (
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "mmengine.config.ConfigDict",
    "addict.addict.Dict",
)
_ONE_AT_A_TIME = threading.Lock()  # torch keeps its allow-list for the whole process
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
_FACTORIES = (list, dict, set, int, float, bool, str, tuple)


def _allowed() -> list[Any]:
    multiarray = importlib.import_module("numpy._core.multiarray")
    names: dict[str, Any] = {
        "argparse.Namespace": argparse.Namespace,
        "collections.defaultdict": collections.defaultdict,
        "collections.deque": collections.deque,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
        **{f"numpy.dtypes.{kind.__name__}": kind for kind in {type(np.dtype(code)) for code in np.typecodes["All"]}},
        **{f"builtins.{kind.__name__}": kind for kind in _FACTORIES},
        **dict.fromkeys(_INERT, Inert),
        **dict.fromkeys(_AS_DICT, collections.OrderedDict),
    }
    for room in ("pathlib", "pathlib._local"):
        names |= {f"{room}.{kind}": pathlib.PurePosixPath for kind in _PATHS}
    for room in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names |= {f"{room}._reconstruct": multiarray._reconstruct, f"{room}.scalar": multiarray.scalar}
    return [(value, name) for name, value in names.items()]


def read(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The unpickled object with every tensor as a numpy array, and notes.

    Raises UnsafeFileError for a global that is not allow-listed, CheckpointError for a broken file.
    """
    try:
        with _ONE_AT_A_TIME, torch.serialization.safe_globals(_allowed()):
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        detail = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CheckpointError(f"{path} is truncated, corrupt or no checkpoint: {detail}") from error
    widened: list[None] = []
    tree = _to_numpy(tree, widened)
    return tree, (bfloat16_note(len(widened)),) if widened else ()


def _refusal(path: Path, message: str) -> CheckpointError:
    found = re.search(r"GLOBAL (\S+)", message)
    name = found[1] if found else _first_stranger(path)
    if name is None and "Unsupported operand" in message:
        return CheckpointError(f"{path} has a pickle protocol that the safe reader lacks; save it with torch's own (2)")
    if name is None:
        return CheckpointError(f"{path} is truncated, corrupt or no checkpoint: {message.splitlines()[-1]}")
    hint = "it pickles a whole module; " if name.startswith("torch.nn.") else ""
    return UnsafeFileError(
        f"{path} asks for {name!r} when it is unpickled, which is not on the list of harmless names; nothing was run; "
        f"{hint}if you trust its source, save its state_dict alone, where that code is installed, and load that"
    )


class _Scanner(pickle.Unpickler):
    """Walks a pickle with stand-ins for every global, and stops at the first that is not harmless."""

    class Stranger(Exception):  # noqa: N818
        """Carries the name."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.known = {name for _, name in _allowed()} | {"collections.OrderedDict"}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self.known or re.match(r"torch\.(_utils\.|storage\.|\w*Storage$)", full):
            return Inert
        raise self.Stranger(full)

    def persistent_load(self, pid: object) -> None:
        return None


def _first_stranger(path: Path) -> str | None:
    """The first global of a pickle that torch's reader gave up on for other reasons, without running anything."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                file: IO[bytes] = io.BytesIO(archive.read(name))
        else:
            file = io.BytesIO(path.read_bytes())
        for _ in range(4):  # a file from before torch 1.6 holds several pickles in a row
            _Scanner(file).load()
    except _Scanner.Stranger as stranger:
        return str(stranger)
    except Exception:  # a scan of a broken file; the caller has its own message
        return None
    return None


def _to_numpy(value: Any, widened: list[None]) -> Any:
    if isinstance(value, torch.Tensor):
        return _array(value, widened)
    if isinstance(value, Mapping):
        return {key: _to_numpy(item, widened) for key, item in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_to_numpy(item, widened) for item in value)
    return value


def _array(tensor: torch.Tensor, widened: list[None]) -> np.ndarray:
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
        raise CheckpointError(f"a tensor of layout {tensor.layout} and type {tensor.dtype} is no plain weight")
    if tensor.dtype == torch.bfloat16:
        widened.append(None)
        tensor = tensor.float()
    try:
        return tensor.detach().resolve_conj().resolve_neg().numpy()
    except TypeError as error:
        raise CheckpointError(f"a tensor of type {tensor.dtype} has no numpy counterpart") from error


def write(path: Path, tree: Mapping[str, Any]) -> None:
    """Write nested dicts of arrays and plain values as torch would; readable with `weights_only=True` anywhere."""
    with atomic(path) as temporary:
        torch.save(_to_torch(tree), temporary)


def _to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, order="C"))
    if isinstance(value, Mapping):
        kind = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
        return kind((key, _to_torch(item)) for key, item in value.items())
    return value
