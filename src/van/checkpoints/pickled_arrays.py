"""Pickles of numpy arrays that torch did not write, as PaddlePaddle saves weights: read safely, and written.

Python's own containers, numpy's arrays and numbers are on the list; any other name is refused before anything of it
runs. The bytes of the arrays lie within the pickle, so that the limits follow from the size of the file.
Sources: numpy's and the codecs module's ways to pickle arrays, protocols 2 to 5; the opcodes in Python's pickletools.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files import atomic_output
from . import torch_names
from .damage import growth_limit
from .pickles import Limits, Refused, load, refusal
from .torch_names import Array, Encoded

# numpy's names, as of any version, and those that every pickle may need.
_ROOMS = ("numpy.core.multiarray", "numpy._core.multiarray")
_NAMES = (
    *(f"{room}.{name}" for room in _ROOMS for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
    "collections.OrderedDict",
)


def starts_like(head: bytes) -> bool:
    """Whether the first bytes of a file are a pickle, but not one of torch's, which begin with a number of 80 bits."""
    if not head.startswith(b"\x80"):
        return False
    first = head[11:] if head[2:3] == b"\x95" else head[2:]  # behind the frame of protocol 4
    return not first.startswith(b"\x8a\x0a")


def read(path: Path) -> Any:
    """The unpickled object with its arrays.

    Raises UnsafeFileError for a name that is not on the list, ValueError for a broken pickle and one of other values.
    """
    size = path.stat().st_size
    limits = Limits(bytes=size + 1, work=2 * size + Limits().work)  # each byte is handed over twice
    try:
        with path.open("rb") as file:
            tree = load(file, _offered, _no_storage, limits)
            if file.read(1):
                raise ValueError("something follows its pickle")
    except Refused as refused:
        raise refusal(path, refused) from None
    if not isinstance(tree, dict) or not any(isinstance(each, Array | dict) for each in tree.values()):
        raise ValueError("it is a pickle, but not of named arrays")
    return _Filled(growth_limit(size)).value(tree)


def _offered(name: str) -> Any:
    return torch_names.offered(name) if name in _NAMES else None


def _no_storage(identity: Any) -> Any:
    raise ValueError("it refers to values outside the file")


class _Filled:
    """Puts arrays in their places; what appears twice counts twice."""

    def __init__(self, limit_bytes: int) -> None:
        self.left_bytes = limit_bytes

    def value(self, here: Any) -> Any:
        if isinstance(here, Encoded):
            return bytes(here)
        if isinstance(here, Array):
            self.left_bytes -= here.values.nbytes if here.values is not None else 0
            if self.left_bytes < 0:
                raise CheckpointError("its arrays appear so often that they would fill the memory")
            return here.values
        if isinstance(here, dict):
            return {name: self.value(each) for name, each in here.items()}
        return type(here)(self.value(each) for each in here) if isinstance(here, list | tuple) else here


def write(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a dict of arrays, texts and dicts of texts in protocol 4, under the names that every numpy has."""
    with atomic_output(path, error=CheckpointError) as temporary, temporary.open("wb") as file:
        file.write(b"\x80\x04")
        file.writelines(_pieces(tree))
        file.write(b".")


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, str):
        data = value.encode()
        yield b"X" + struct.pack("<I", len(data)) + data
    elif isinstance(value, np.ndarray):
        yield from _array(value)
    else:
        yield b"}("
        for name, each in value.items():
            yield from _pieces(name)
            yield from _pieces(each)
        yield b"u"


def _array(array: np.ndarray) -> Iterator[bytes]:
    """`_reconstruct(ndarray, (0,), b"b")`, then its state: version, shape, type, order, bytes."""
    yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    yield b"(K\x01(" + b"".join(_whole(size) for size in array.shape) + b"t"
    yield from _dtype(array.dtype)
    data = np.ascontiguousarray(array).tobytes()
    yield b"\x89\x8e" + struct.pack("<Q", len(data)) + data + b"tb"


def _dtype(dtype: np.dtype[Any]) -> Iterator[bytes]:
    """`dtype("f4", False, True)`, then its state with the byte order."""
    yield b"cnumpy\ndtype\n"
    yield from _pieces(dtype.str[1:])
    yield b"\x89\x88\x87R(K\x03"
    yield from _pieces("<")
    yield b"NNN" + _whole(-1) * 2 + b"K\x00tb"


def _whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
