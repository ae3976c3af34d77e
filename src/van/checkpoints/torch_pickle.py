"""Reading torch's files safely, without torch, and writing them with it: the one module here that imports torch.

A file is a zip archive of one pickle and the bytes of its storages, or, before torch 1.6, several pickles in a row and
the storages behind them. Published files also hold the argparse Namespace of their training run, numpy scalars and
OpenMMLab's log buffers; `torch_names` lists them, as inert stand-ins wherever they are no arrays. Any other name is
refused before anything of it runs. Sizes that a file declares are compared with what it holds before memory is taken.
Source: torch/serialization.py of torch 1.0 to 2.14.
"""

from __future__ import annotations

import collections
import itertools
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import CheckpointError
from ..files import atomic_output
from .damage import growth_limit
from .pickles import Inert, Refused, load, refusal
from .torch_names import Array, Encoded, Storage, Tensor, offered, storage_of
from .widened import bfloat16_note

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the files from before torch 1.6
_PIECE = 2**24


def read(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The unpickled object with every tensor as a numpy array, and notes.

    Raises UnsafeFileError for a name that is not on the list, CheckpointError for a broken file.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
            file.seek(0)
            tree, storages = _read_zip(file) if packed else _read_legacy(file)
            filled = _Filled(storages, limit_bytes=growth_limit(path.stat().st_size))
            tree = filled.value(tree)
    except Refused as refused:
        raise refusal(path, refused) from None
    return tree, (bfloat16_note(filled.widened),) if filled.widened else ()


Reader = Callable[[str], np.ndarray]  # key of a storage -> its bytes


def _read_zip(file: IO[bytes]) -> tuple[Any, Reader]:
    archive = zipfile.ZipFile(file)
    entries = checked_entries(archive)
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it holds {len(pickles)} pickles, expected one")
    room = pickles[0].removesuffix("data.pkl")
    if (order := entries.get(f"{room}byteorder")) is not None:
        with _unchecked_where_unsaid(archive, order) as stream:
            if stream.read(64) != b"little":
                raise CheckpointError("it was written on a big-endian machine; save it again on a little-endian one")
    with _unchecked_where_unsaid(archive, entries[pickles[0]]) as stream:
        tree = load(stream, offered, storage_of)
        stream.read()  # to the end, where the checksum is compared

    def storage(key: str) -> np.ndarray:
        if (entry := entries.get(f"{room}data/{key}")) is None:
            raise ValueError(f"the storage {key!r} is missing")
        with _unchecked_where_unsaid(archive, entry) as stream:
            data = _filled_array(stream, entry.file_size)
            stream.read(1)  # at the end of a part its checksum is compared
            return data

    return tree, storage


def checked_entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name -> entry of an archive; raises ValueError where two overlap or share a name, or unpack to far too much."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    size = archive.fp.seek(0, 2) if archive.fp is not None else 0
    if sum(entry.file_size for entry in entries) > growth_limit(size):
        raise ValueError(f"its {size:,} bytes would unpack to {sum(entry.file_size for entry in entries):,}")
    for entry, after in itertools.pairwise(entries):
        if entry.header_offset + entry.compress_size > after.header_offset:
            raise ValueError(f"its parts {entry.filename[:80]!r} and {after.filename[:80]!r} overlap")
    named = {entry.filename: entry for entry in entries}
    if len(named) < len(entries):
        raise ValueError("two of its parts have the same name")
    return named


def _unchecked_where_unsaid(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """An entry to read; torch can leave out the checksums, and then writes 0, which zipfile would hold against it."""
    if entry.CRC == 0 and hasattr(entry, "CRC"):
        del entry.CRC
    return archive.open(entry)


def _read_legacy(file: IO[bytes]) -> tuple[Any, Reader]:
    """Magic number, protocol, system, object and keys, a pickle each; then every storage: its length and its bytes."""
    magic, protocol, system = (load(file, offered, storage_of) for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise ValueError("it is a pickle, but not one that torch wrote")
    if system.get("little_endian") is not True:
        raise CheckpointError("it was written on a big-endian machine; save it again on a little-endian one")
    sizes: dict[str, Storage] = {}

    def noted(identity: Any) -> Storage:
        storage = storage_of(identity)
        whole = Storage(storage.key, storage.element, identity[4])
        if sizes.setdefault(storage.key, whole) != whole:
            raise ValueError(f"the storage {storage.key!r} has two sizes")
        return storage

    tree = load(file, offered, noted)
    keys = load(file, offered, storage_of)
    if not isinstance(keys, list) or {str(key) for key in keys} != set(sizes) or len(keys) != len(sizes):
        raise ValueError("its storages are not those that its tensors use")
    start, end = file.tell(), file.seek(0, 2)
    file.seek(start)
    found: dict[str, np.ndarray] = {}
    for key in map(str, keys):
        (count,) = struct.unpack("<q", file.read(8))
        size = count * sizes[key].element.dtype.itemsize
        if count != sizes[key].count or size > end - file.tell():
            raise ValueError(f"the storage {key!r} is shorter or longer than its tensors need")
        found[key] = _filled_array(file, size)
    return tree, found.__getitem__


def _filled_array(stream: IO[bytes], size: int) -> np.ndarray:
    """The next `size` bytes."""
    data = np.empty(size, np.uint8)
    done = 0
    while done < size:
        piece = stream.read(min(_PIECE, size - done))
        if not piece:
            raise ValueError("it ends within a tensor")
        data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return data


class _Filled:
    """Puts arrays in the places of tensors; what is shared stays shared."""

    def __init__(self, storages: Reader, *, limit_bytes: int) -> None:
        self.storages, self.left_bytes, self.widened = storages, limit_bytes, 0
        self.read: dict[str, np.ndarray] = {}
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []  # so that no id is given twice

    def value(self, here: Any) -> Any:
        """The same value with arrays."""
        if isinstance(here, Encoded):
            return bytes(here)
        if not isinstance(here, dict | list | tuple | Tensor | Array):
            return here
        if id(here) not in self.done:
            self.kept.append(here)
            self.done[id(here)] = self._new(here)
        return self.done[id(here)]

    def _new(self, here: Any) -> Any:
        if isinstance(here, dict):
            return {name: self.value(each) for name, each in here.items()}
        if isinstance(here, list | tuple):
            return type(here)(self.value(each) for each in here)
        if isinstance(here, Array):
            return Inert() if here.values is None else here.values
        return self._array(here)

    def _array(self, tensor: Tensor) -> np.ndarray:
        dtype = tensor.element.dtype
        if tensor.key not in self.read:
            self.read[tensor.key] = self.storages(tensor.key)
        data = self.read[tensor.key]
        values = math.prod(tensor.size)
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
        beyond = (tensor.start + tensor.count) * dtype.itemsize > len(data) or (values and last >= tensor.count)
        if beyond or values > tensor.count:
            raise ValueError(f"a tensor of {tensor.size} reaches beyond the {len(data):,} bytes of its storage")
        self.left_bytes -= values * dtype.itemsize
        if self.left_bytes < 0:
            raise ValueError("its tensors share their bytes so often that they would fill the memory")
        if not values:
            return np.empty(tensor.size, np.float32 if tensor.element.numpy == "bfloat16" else dtype)
        start = (tensor.start + tensor.offset) * dtype.itemsize
        strides = tuple(step * dtype.itemsize for step in tensor.stride)
        array: np.ndarray = np.ndarray(tensor.size, dtype, data, start, strides)
        if tensor.element.numpy != "bfloat16":
            return array
        self.widened += 1
        return (array.astype(np.uint32) << 16).view(np.float32)


def write(path: Path, tree: Mapping[str, Any]) -> None:
    """Write nested dicts of arrays and plain values as torch would; readable with `weights_only=True` anywhere."""
    import torch

    with atomic_output(path, error=CheckpointError) as temporary:
        torch.save(_to_torch(tree), temporary)


def _to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        import torch

        return torch.from_numpy(np.array(value, order="C"))
    if isinstance(value, Mapping):
        kind = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
        return kind((key, _to_torch(item)) for key, item in value.items())
    return value
